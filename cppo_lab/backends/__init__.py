"""Where a run's model is trained: in the lab's own process, or by the workers of verl."""
