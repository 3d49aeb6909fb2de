"""Numbers about a loss: metrics, position profiles, mask overlap and token traces."""
