"""How fast a core of this machine multiplies matrices."""

from __future__ import annotations

import functools
import time

_ROWS, _WIDTH, _TIMES = 256, 1024, 8


@functools.cache
def core_flops() -> float:
    """Floating-point operations per second of one thread, in float32 products of a small model's size; measured once.

    The best of a few tries: what else the machine does makes them slower.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        left, right = torch.ones(_ROWS, _WIDTH), torch.ones(_WIDTH, _WIDTH)
        spent = []
        for _ in range(_TIMES):
            started = time.perf_counter()
            torch.mm(left, right)
            spent.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return 2 * _ROWS * _WIDTH * _WIDTH / min(spent)
