"""Run folders, their identity, resumption, tracking, and sweeps of them."""
