"""Which axes of a sweep only change random numbers."""

from __future__ import annotations


def is_seed_axis(name: str) -> bool:
    """`seed`, `warmup.seed`, `seeds.prompts`, `data_seed`: axes that only change random numbers."""
    parts = name.split(".")
    return parts[-1] == "seed" or parts[-1].endswith("_seed") or "seeds" in parts
