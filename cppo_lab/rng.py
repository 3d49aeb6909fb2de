"""Random streams: every draw of a run is a function of (seed, stream, step), so that nothing needs saving."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


class Stream(StrEnum):
    """The independent sources of randomness of a run."""

    PROMPTS = "prompts"
    SAMPLING = "sampling"
    MINIBATCHES = "minibatches"
    SHUFFLED_WEIGHTS = "shuffled_weights"
    SELECTION = "selection"
    EVALUATION = "evaluation"
    INITIALISATION = "initialisation"
    WARMUP = "warmup"
    HELDOUT = "heldout"


def stream_seed(seed: int, stream: Stream, *position: int) -> int:
    """A 63-bit seed for the draw at `position` (a step, an epoch, …) of one stream of a run."""
    text = ":".join([stream.value, str(seed), *map(str, position)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def evaluation_seed(seed: int, problem: int, sample: int) -> int:
    """The seed of one response of an evaluation: the `sample`-th (from 0) to the problem with that index."""
    return stream_seed(seed, Stream.EVALUATION, problem, *((sample,) if sample else ()))


def numpy_stream(seed: int, stream: Stream, *position: int) -> np.random.Generator:
    """A NumPy generator at `position` of `stream`."""
    return np.random.default_rng(stream_seed(seed, stream, *position))


def torch_stream(seed: int, stream: Stream, *position: int) -> torch.Generator:
    """A CPU torch generator at `position` of `stream`."""
    import torch

    return torch.Generator().manual_seed(stream_seed(seed, stream, *position))
