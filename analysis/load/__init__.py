"""Run folders, MLflow experiments and result files, read into a study."""
