"""Running sums, so that means over micro-batches and updates are right."""

import math

import torch
from torch import Tensor


def quantile(values: Tensor, q: float) -> float:
    """Quantile with linear interpolation of any number of values [N]; NaN for none."""
    if values.numel() == 0:
        return math.nan
    rank = q * (values.numel() - 1)
    ordered = values.sort().values
    low = math.floor(rank)
    high = min(low + 1, values.numel() - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (rank - low))


class Sums:
    """Named running sums and extremes; a ratio of two sums is NaN when its denominator is 0."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._ranges: dict[str, tuple[float, float]] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Add the sum of `values` (any shape, bool counts as 0 and 1)."""
        total = values.sum(dtype=torch.float64)
        self._sums[name] = self._sums[name] + total if name in self._sums else total

    def extend(self, name: str, values: Tensor) -> None:
        """Widen the range [smallest, largest] seen under `name` by `values` [N]."""
        if values.numel():
            low, high = float(values.min()), float(values.max())
            known = self._ranges.get(name, (low, high))
            self._ranges[name] = (min(known[0], low), max(known[1], high))

    def ratio(self, numerator: str, denominator: str) -> float:
        """Sum of `numerator` over sum of `denominator`."""
        below = self.total(denominator)
        return self.total(numerator) / below if below else math.nan

    def total(self, name: str) -> float:
        """The sum under `name`; 0 when nothing was added."""
        return float(self._sums[name]) if name in self._sums else 0.0

    def has(self, name: str) -> bool:
        """Whether anything was added under `name`."""
        return name in self._sums

    def range(self, name: str) -> tuple[float, float]:
        """Smallest and largest value under `name`; NaN when nothing was seen."""
        return self._ranges.get(name, (math.nan, math.nan))
