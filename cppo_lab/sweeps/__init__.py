"""Sweep files, the runs that they expand to, their costs, and the worker processes that train them."""
