"""Random streams: each draw has a place of its own, and nothing else decides it."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from cppo_lab.rng import Stream, numpy_stream, stream_seed, torch_stream

# The first eight bytes of SHA-256 of 'STREAM:SEED:POSITION…', shifted right by one.
GOLDEN = (1566173780384816955, 3001088014345149906, 939559274248239399)


def test_no_two_places_share_a_seed() -> None:
    places = [(seed, stream) for seed, stream in itertools.product(range(12), Stream)]
    positions = [(), *((i,) for i in range(25)), *itertools.product(range(12), range(4)), (1, 1, 1)]
    seeds = {stream_seed(seed, stream, *position) for seed, stream in places for position in positions}
    assert len(seeds) == len(places) * len(positions)


@given(st.integers(0, 2**63 - 1), st.sampled_from(list(Stream)), st.lists(st.integers(0, 10**9), max_size=3))
def test_seed_fits_every_generator_and_is_repeatable(seed: int, stream: Stream, position: list[int]) -> None:
    found = stream_seed(seed, stream, *position)
    assert found == stream_seed(seed, stream, *position)
    assert 0 <= found < 2**63


def test_generators_are_independent_of_each_other_and_of_global_state() -> None:
    np.random.seed(0)
    torch.manual_seed(0)
    first = numpy_stream(1, Stream.PROMPTS, 2).random(4)
    drawn = torch.rand(4, generator=torch_stream(1, Stream.SAMPLING, 2))
    np.random.seed(1)
    torch.manual_seed(1)
    assert (numpy_stream(1, Stream.PROMPTS, 2).random(4) == first).all()
    assert torch.equal(torch.rand(4, generator=torch_stream(1, Stream.SAMPLING, 2)), drawn)
    assert not (numpy_stream(1, Stream.PROMPTS, 3).random(4) == first).any()
    assert not (numpy_stream(1, Stream.MINIBATCHES, 2).random(4) == first).any()


def test_seeds_are_those_of_earlier_versions() -> None:
    """A change here would silently give every recorded configuration other results."""
    assert stream_seed(0, Stream.PROMPTS) == GOLDEN[0]
    assert stream_seed(7, Stream.SAMPLING, 3) == GOLDEN[1]
    assert stream_seed(7, Stream.MINIBATCHES, 3, 1) == GOLDEN[2]
