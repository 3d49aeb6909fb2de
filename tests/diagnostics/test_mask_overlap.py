"""Mask overlap of methods on the same tokens: against the golden masks, and over micro-batches."""

from __future__ import annotations

import golden_vectors as golden
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cppo_lab.diagnostics.mask_overlap import COMPARED, MaskOverlapCounter
from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.named import method
from cppo_lab.objectives.objective import token_objective


def count(batch: TokenBatch, own: str, compared: tuple[str, ...] = COMPARED) -> MaskOverlapCounter:
    algo = method(own)
    counter = MaskOverlapCounter(algo, compared)
    counter.update(batch, token_objective(batch, algo))
    return counter


def test_counts_are_those_of_the_published_masks_of_the_flip_case() -> None:
    # methods.md, section 16: rows of DPPO-TV 0.15 and of CPPO adaptive 0.02, 1 = kept.
    dppo = "110 11111111 1111 11111111 111 10 010"
    cppo = "111 11111111 1111 11111111 111 10 010"
    drops = [[kept == "0" for kept in text.replace(" ", "")] for text in (dppo, cppo)]
    batch = golden.load("flip", torch.float64)
    found = count(batch, "dppo_tv", ("cppo_binary",)).result()
    assert found.rules == ["dppo_tv", "cppo_binary"]
    assert found.tokens == len(drops[0]) == int(batch.response_mask.sum())
    assert found.masked == [sum(drops[0]), sum(drops[1])]
    both = sum(first and second for first, second in zip(*drops, strict=True))
    assert found.both == [[sum(drops[0]), both], [both, sum(drops[1])]]


def test_the_own_method_comes_first_and_is_counted_once() -> None:
    rules = count(golden.load("flip", torch.float64), "cppo_binary").result().rules
    assert rules == ["cppo_binary", "grpo", "dppo_tv", "trm_max", "trm_avg"]


def test_tokens_without_advantage_are_not_counted() -> None:
    batch = golden.load("edge", torch.float64)
    per_token = batch.advantages if batch.advantages.dim() == 2 else batch.advantages[:, None]
    subject = batch.response_mask & (per_token != 0)
    assert count(batch, "dppo_tv").result().tokens == int(subject.sum()) < int(batch.response_mask.sum())


@pytest.mark.parametrize("case", ["base", "calib", "flip", "mismatch"])
@given(pieces=st.integers(1, 7))
def test_micro_batches_add_up_and_pairs_are_consistent(case: str, pieces: int) -> None:
    batch = golden.load(case, torch.float64)
    algo = method("dppo_tv")
    counter = MaskOverlapCounter(algo)
    for rows in torch.arange(batch.logp.shape[0]).chunk(pieces):
        part = batch.rows(rows)
        counter.update(part, token_objective(part, algo))
    found = counter.result()
    assert found == count(batch, "dppo_tv").result()
    for i, row in enumerate(found.both):
        assert row[i] == found.masked[i] <= found.tokens
        assert all(
            row[j] == found.both[j][i] <= min(found.masked[i], found.masked[j]) for j in range(len(row))
        )
