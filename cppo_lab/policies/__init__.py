"""Policies: from-scratch ladder, loading, starting policies, and log-probabilities."""
