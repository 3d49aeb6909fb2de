"""Schedules and controls of the learning rate: their values, their product, and what they count."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import loop_for, tiny_config
from vectors_2026 import ABSENT, vectors

from cppo_lab.training.learning_rate import (
    LearningRate,
    LengthDecay,
    ess_share,
    row_log_weights,
    schedule_factor,
    warmup_factor,
)

WITH_VECTORS = pytest.mark.skipif(not vectors(), reason=ABSENT)


@WITH_VECTORS
@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_schedules_equal_their_vectors(kind: str) -> None:
    given, want = vectors()["optimiser"]["inputs"], vectors()["optimiser"]["expected"][kind]
    total, warmup = given["total"], given["warmup"]
    found = [
        warmup_factor(at, warmup)
        * schedule_factor(kind, at, planned=total, warmup=warmup, floor=given["floor"])
        for at in range(total)
    ]
    assert found == pytest.approx(want, abs=1e-12)


@WITH_VECTORS
@pytest.mark.parametrize(
    ("name", "base", "exponent"), [("sqrt", 1, 0.5), ("linear", 1, 1), ("base_half", 0.5, 0.5)]
)
def test_effective_sample_size_equals_its_vector(name: str, base: float, exponent: float) -> None:
    want = vectors()["optimiser"]["expected"][f"ess_{name}"]
    share = ess_share(
        torch.tensor(vectors()["optimiser"]["inputs"]["seq_log_ratio_flip"], dtype=torch.float64)
    )
    assert share == pytest.approx(want["ess_share"], abs=1e-9)
    assert min(1.0, share / base) ** exponent == pytest.approx(want["factor"], abs=1e-9)


@WITH_VECTORS
def test_decay_after_a_surge_of_length_equals_its_vector() -> None:
    want = vectors()["optimiser"]["expected"]["length_decay"]
    decay = LengthDecay(multiple=3, window=4, period_factor=1.8, floor=0.1)
    lengths = vectors()["optimiser"]["inputs"]["lengths"]
    assert [decay.factor(step, length) for step, length in enumerate(lengths)] == want["factor"]
    assert decay.surge == want["surge"]


def test_effective_sample_size_does_not_depend_on_a_common_factor_and_ignores_empty_rows() -> None:
    weights = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    assert ess_share(weights - 200) == pytest.approx(ess_share(weights), rel=1e-12)
    assert ess_share(torch.zeros(5)) == 1.0
    assert ess_share(torch.empty(0)) == 1.0
    mask = torch.tensor([[True, True], [False, False]])
    old, mu = torch.tensor([[-1.0, -2.0], [math.nan, -9.0]]), torch.tensor([[-1.5, -1.0], [0.0, 0.0]])
    assert row_log_weights(old, mu, mask).tolist() == [-0.5, 0.0]


def test_decay_stops_at_its_floor_and_does_not_start_without_a_surge() -> None:
    decay = LengthDecay(multiple=2, window=1, period_factor=1, floor=0.2)
    assert [decay.factor(step, length) for step, length in enumerate([10, 25, 5, 5, 5, 5])] == [
        *(1, 1, 0.5, 0.25, 0.2, 0.2)
    ]
    calm = LengthDecay(multiple=2, window=2, period_factor=1, floor=0.2)
    assert {calm.factor(step, 20 - step) for step in range(20)} == {1}


def test_schedule_and_control_multiply_and_the_product_is_logged(output: Path) -> None:
    config = tiny_config(
        output,
        *(
            "trainer.lr_schedule=linear",
            "trainer.lr_floor=0.2",
            "trainer.lr_control=ess",
            "engine.weights=int4",
        ),
        "trainer.lr_warmup_updates=2",
    )
    loop = loop_for(config)
    for step in range(config.trainer.steps):
        metrics, _ = loop._train_step()
        assert 0 < metrics["train/ess_share"] < 1
        # The place of the last update where no group was dropped.
        place = step * 3 + int(metrics["train/updates"]) - 1
        linear = 1 if place < 2 else 1 - 0.8 * (place - 2) / 7
        assert 0 < metrics["train/lr_factor"] < linear
        assert metrics["train/lr"] == pytest.approx(config.trainer.lr * metrics["train/lr_factor"], rel=1e-12)


def test_effective_sample_size_sees_how_old_a_batch_is(output: Path) -> None:
    config = tiny_config(output, "trainer.lr_control=ess", "trainer.staleness=1", "trainer.lr=1e-3")
    loop = loop_for(config)
    shares = [loop._train_step()[0]["train/ess_share"] for _ in range(2)]
    # The sampler runs at the trainer's own precision, so that only age tells them apart.
    assert shares[0] == pytest.approx(1.0, abs=1e-3)
    assert shares[1] < 0.99


def test_a_schedule_counts_planned_updates_where_prompts_are_dropped(output: Path) -> None:
    config = tiny_config(output, "trainer.lr_schedule=linear", "trainer.prompts_per_minibatch=1")
    loop = loop_for(config)
    trainer = config.trainer
    for step in range(trainer.steps):
        loop._sample_ahead(step)
        experience = loop.pending.popleft()
        live = torch.zeros_like(experience.live)
        live[0] = True
        loop.learner.learn(replace(experience, live=live), step)
        rate = loop.learner.optimizer.param_groups[0]["lr"]
        assert loop.learner.updates == step + 1
        assert rate == pytest.approx(trainer.lr * (1 - step / trainer.steps), rel=1e-12)


def test_without_schedule_or_control_nothing_is_logged_and_the_factor_is_one(output: Path) -> None:
    rate = LearningRate(tiny_config(output).trainer)
    rate.begin_step(0, 9.0)
    assert rate.factor(0, 0, None) == 1.0
    assert rate.metrics() == {}
    assert rate.state_dict() == {}
