"""The random batches hold every case that the comparisons with other libraries are about."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("yaml", reason="PyYAML is not installed")

from peer_batches import random_batches, with_region

from cppo_lab.objectives import method, token_objective
from cppo_lab.objectives.spec import CorrectionSpec


def test_batches_hold_thousands_of_ragged_responses_with_holes_and_zero_advantages() -> None:
    batches = list(random_batches())
    masks = [batch.response_mask for batch in batches]
    assert sum(len(mask) for mask in masks) > 2000
    assert all(bool(mask.any(-1).all()) for mask in masks)
    last = [mask * torch.arange(1, mask.shape[1] + 1) for mask in masks]
    holes = sum(int((end.amax(-1) != mask.sum(-1)).sum()) for end, mask in zip(last, masks, strict=True))
    zero = sum(int((batch.advantages == 0).sum()) for batch in batches)
    assert holes > 300
    assert zero > 300


@pytest.mark.parametrize(
    "name", ["ppo", "grpo", "dppo_tv", "dppo_kl", "gspo", "trm_max", "trm_avg", "trm_max_avg"]
)
def test_both_decisions_are_common(name: str) -> None:
    objectives = [token_objective(batch, method(name)) for batch in random_batches()]
    masked = sum(int(objective.masked.sum()) for objective in objectives)
    tokens = sum(int(batch.response_mask.sum()) for batch in random_batches())
    assert 0.05 < masked / tokens < 0.95


def test_the_second_clip_and_the_truncation_of_importance_weights_both_happen() -> None:
    dual = weight = 0
    corrected = replace(method("grpo"), correction=CorrectionSpec(kind="icepop", low=0.5, high=5.0))
    for batch in random_batches():
        once = token_objective(batch, method("ppo")).masked
        twice = token_objective(batch, with_region(method("ppo"), dual_clip=3.0)).masked
        dual += int((twice & ~once).sum())
        factor = token_objective(batch, corrected).correction
        assert factor is not None
        weight += int((batch.response_mask & (factor == 0)).sum())
    assert dual > 200
    assert weight > 100
