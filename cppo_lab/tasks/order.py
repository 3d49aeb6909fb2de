"""The order in which a fixed set of training problems is gone through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from cppo_lab.rng import Stream, numpy_stream

Item = TypeVar("Item")


class ShuffledStream(Generic[Item]):
    """All of `items`, again and again, each time in another order: a function of (seed, place) alone."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        self._orders: dict[tuple[int, int], Sequence[int]] = {}

    def batch(self, step: int, count: int, seed: int) -> list[Item]:
        """The `count` items of `step` (from 0) under `seed`, where every step takes as many."""
        found = []
        for place in range(step * count, (step + 1) * count):
            epoch, index = divmod(place, len(self._items))
            found.append(self._items[self._order(seed, epoch)[index]])
        return found

    def _order(self, seed: int, epoch: int) -> Sequence[int]:
        if (seed, epoch) not in self._orders:
            rng = numpy_stream(seed, Stream.PROMPTS, epoch)
            self._orders[seed, epoch] = rng.permutation(len(self._items)).tolist()
        return self._orders[seed, epoch]
