"""The run folder, which is the record of a run, and its copy in MLflow."""
