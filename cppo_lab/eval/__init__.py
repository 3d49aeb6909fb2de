"""Evaluation: held-out accuracy during training, and `cppo-lab eval` on benchmarks."""
