"""The random batches hold every case that the comparisons with other libraries are about."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("yaml", reason="PyYAML is not installed")

from peer_batches import BATCHES, FEW, SEEDS, SHAPES, random_batch, random_batches, with_region

from cppo_lab.objectives import method, token_objective
from cppo_lab.objectives.spec import CorrectionSpec

DOCUMENT = Path(__file__).parents[2] / "docs" / "methods.md"


def test_comparisons_take_thousands_of_batches_and_the_document_counts_them() -> None:
    masks = [random_batch(seed, *shape).response_mask for seed in SEEDS for shape in SHAPES]
    assert len(masks) == BATCHES >= 2000
    responses, tokens = sum(len(mask) for mask in masks), sum(int(mask.sum()) for mask in masks)
    text = " ".join(DOCUMENT.read_text(encoding="utf-8").split())
    for count, what in (
        (BATCHES, "random batches in float64"),
        (responses, "responses"),
        (tokens, "tokens"),
    ):
        number = str(count) if count < 10_000 else f"{count:,}".replace(",", " ")
        assert f" {number} {what}" in text


def test_batches_hold_ragged_responses_with_holes_and_zero_advantages() -> None:
    masks = [batch.response_mask for batch in random_batches(FEW)]
    assert all(bool(mask.any(-1).all()) for mask in masks)
    last = [mask * torch.arange(1, mask.shape[1] + 1) for mask in masks]
    holes = sum(int((end.amax(-1) != mask.sum(-1)).sum()) for end, mask in zip(last, masks, strict=True))
    zero = sum(int((batch.advantages == 0).sum()) for batch in random_batches(FEW))
    assert holes > 300
    assert zero > 300


@pytest.mark.parametrize(
    "name", ["ppo", "grpo", "dppo_tv", "dppo_kl", "gspo", "trm_max", "trm_avg", "trm_max_avg"]
)
def test_both_decisions_are_common(name: str) -> None:
    objectives = [token_objective(batch, method(name)) for batch in random_batches(FEW)]
    masked = sum(int(objective.masked.sum()) for objective in objectives)
    tokens = sum(int(batch.response_mask.sum()) for batch in random_batches(FEW))
    assert 0.05 < masked / tokens < 0.95


def test_the_second_clip_and_the_truncation_of_importance_weights_both_happen() -> None:
    dual = weight = 0
    corrected = method("grpo").replace(correction=CorrectionSpec(kind="icepop", low=0.5, high=5.0))
    for batch in random_batches(FEW):
        once = token_objective(batch, method("ppo")).masked
        twice = token_objective(batch, with_region(method("ppo"), dual_clip=3.0)).masked
        dual += int((twice & ~once).sum())
        factor = token_objective(batch, corrected).correction
        assert factor is not None
        weight += int((batch.response_mask & (factor == 0)).sum())
    assert dual > 200
    assert weight > 100
