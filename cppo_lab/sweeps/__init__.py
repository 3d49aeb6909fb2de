"""Sweep files, their runs and costs, and the workers that execute them."""
