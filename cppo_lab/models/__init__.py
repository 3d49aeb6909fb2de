"""Policies: loading, the from-scratch ladder, tokenizers, log-probabilities and the value head."""
