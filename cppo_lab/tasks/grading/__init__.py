"""Grading of untrusted text: extraction, exact numbers, guarded symbolic mathematics, and processes that can be killed.

Nothing here imports torch: a worker process starts in a fraction of a second.
"""
