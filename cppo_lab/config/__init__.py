"""From files and overrides to one validated configuration per run, and the identity of the run."""
