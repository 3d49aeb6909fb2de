"""Figures of a study: one function per figure, each returns a matplotlib Figure and touches no global state."""
