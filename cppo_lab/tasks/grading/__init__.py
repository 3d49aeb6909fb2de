"""Grading of untrusted text: extraction, exact numbers, guarded symbolic mathematics, and worker processes.

Nothing here imports torch: a worker process starts in a fraction of a second.
"""
