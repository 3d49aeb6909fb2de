"""What watches a loss and returns numbers: metrics, position profiles, mask overlap and token traces."""
