"""Evaluation: held-out accuracy during training, and `cppo-lab eval` under the field's protocols."""
