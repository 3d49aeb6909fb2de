"""Prompts and verifiable answers."""
