"""Figures of a study: one function per figure, each returns a Figure and touches no global state."""
