"""The training run: rollouts, updates, evaluation and checkpoints on one device."""
