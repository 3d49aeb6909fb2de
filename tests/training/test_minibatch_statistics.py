"""What a rule reads beside its rows: statistics of the whole minibatch, the sampler's entropy and its lag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import UNTRAINED, loop_for, tiny_config

from cppo_lab.config.compose import compose_run
from cppo_lab.errors import UserError
from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.rollouts.rollout import SamplingSettings

# The sampler's int4 weights move the ratios before the first update.
MISMATCH = ("engine.weights=int4", "trainer.steps=1", "trainer.prompts_per_minibatch=6")


METHODS = {
    "m2po_mask": ["algo.trust_region.delta_mean=1e-4"],
    "staleness_tail": ["algo.trust_region.clip_low=0.01", "algo.trust_region.clip_high=0.01"],
}
"""Methods with a statistic, and a region that is narrow enough for this mismatch."""


def updated(
    output: Path, algo: str, microbatch: int | None
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Gradients and metrics of the first update."""
    given = "null" if microbatch is None else microbatch
    overrides = (f"algo={algo}", *METHODS[algo], *MISMATCH, f"trainer.microbatch_sequences={given}")
    loop = loop_for(tiny_config(output, *overrides))
    metrics, _ = loop._train_step()
    names = loop.policy.network.named_parameters()
    return {name: each.grad for name, each in names if each.grad is not None}, metrics


@pytest.mark.parametrize("algo", METHODS)
def test_gradients_do_not_depend_on_micro_batches(algo: str, output: Path) -> None:
    expected, metrics = updated(output, algo, None)
    assert 0 < metrics["mask/share"] < 1
    named = [name for name in metrics if name.startswith("minibatch/")]
    assert named, "statistics are logged"
    for size in (1, 7):
        found, again = updated(output, algo, size)
        assert {name: again[name] for name in named} == pytest.approx(
            {name: metrics[name] for name in named}, rel=1e-5
        )
        assert again["mask/share"] == metrics["mask/share"]
        for name, gradient in expected.items():
            scale = float(gradient.abs().max())
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5 * scale)


def test_the_native_engine_records_the_entropy_of_what_it_samples_from(output: Path) -> None:
    loop = loop_for(tiny_config(output, *UNTRAINED))
    settings = SamplingSettings(max_new_tokens=8, temperature=0.7, full=True, entropy=True, seed=1)
    rollout = loop.rollouts.engine.sample([[5, 6, 7], [8, 9]], settings)
    assert rollout.entropy is not None
    assert rollout.log_distribution is not None
    logp = rollout.log_distribution
    expected = -(logp.exp() * logp).sum(-1)
    mask = rollout.response_mask
    torch.testing.assert_close(rollout.entropy[mask], expected[mask])
    assert not rollout.entropy[~mask].any()
    assert loop.rollouts.engine.sample([[5, 6, 7]], SamplingSettings(max_new_tokens=2)).entropy is None


def test_an_engine_without_the_entropy_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"engine\.kind=vllm: does not record the entropy of the whole distribution"
    ):
        compose_run(
            ["recipe=qwen3_1.7b", "algo=staleness_tail", "algo.trust_region.scale=entropy", "engine=vllm"]
        )


def test_a_batch_says_how_many_steps_its_sampler_lags(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = loop_for(tiny_config(output, "algo=a3po", "trainer.steps=4", "trainer.staleness=2"))
    seen: list[set[int]] = []
    batch_of = loop.learner.token_batch

    def recorded(*given: Any, **rest: Any) -> Any:
        batch, values = batch_of(*given, **rest)
        assert isinstance(batch, TokenBatch)
        assert batch.version_lag is not None
        assert batch.prompt is not None
        # Groups of eight: rows of a prompt are adjacent, and every prompt of the minibatch is there.
        assert batch.prompt.view(-1, 8).unique(dim=1).shape[1] == 1
        seen.append(set(batch.version_lag.flatten().tolist()))
        return batch, values

    monkeypatch.setattr(loop.learner, "token_batch", recorded)
    lags = []
    for _ in range(4):
        seen.clear()
        loop._train_step()
        lags.append(set().union(*seen))
    assert lags == [{0}, {1}, {2}, {2}]
