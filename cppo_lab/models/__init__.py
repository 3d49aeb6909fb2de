"""Models: configuration, loading, the from-scratch ladder, tokenizers, log-probabilities and the critic."""
