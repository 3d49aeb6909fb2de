"""The standing check: whatever part of vLLM keeps old weights, the run hears of it before it trains on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from text_models import byte_tokenizer
from torch import nn
from vllm_models import OneEngine, moved, random_network, vllm_engine

from cppo_lab.errors import UserError
from cppo_lab.models.loading import Policy
from cppo_lab.rollouts.vllm import repacking
from cppo_lab.rollouts.vllm.engine import VllmEngine
from cppo_lab.rollouts.vllm.probe import TOLERANCE

pytestmark = pytest.mark.vllm

STALE = "does not have the trainer's weights: after the push of version 5"


def skip_push(engine: VllmEngine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine._offline, "push", lambda weights: list(weights))


def skip_output_head(_engine: VllmEngine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(repacking, "pack_output_head", lambda model: None)


def skip_experts(_engine: VllmEngine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(repacking, "pack_experts", lambda model: None)


def pack_experts_twice(_engine: VllmEngine, patch: pytest.MonkeyPatch) -> None:
    once = repacking.pack_experts

    def twice(model: nn.Module) -> None:
        once(model)
        once(model)

    patch.setattr(repacking, "pack_experts", twice)


def keep_prefixes(engine: VllmEngine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine._offline._llm, "reset_prefix_cache", lambda: True)


SABOTAGE: dict[str, tuple[str, Callable[[VllmEngine, pytest.MonkeyPatch], None]]] = {
    "push skipped": ("tied", skip_push),
    "push skipped, experts": ("experts", skip_push),
    "output head stale": ("tied", skip_output_head),
    "output head stale, experts": ("experts", skip_output_head),
    "experts not packed": ("experts", skip_experts),
    "experts packed twice": ("experts", pack_experts_twice),
    "prefix cache stale": ("tied", keep_prefixes),
}


@pytest.mark.parametrize("case", SABOTAGE)
@pytest.mark.parametrize("share", [0.02, 0.002], ids=["large step", "small step"])
def test_stale_weights_stop_the_run(
    case: str, share: float, vllm: OneEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, sabotage = SABOTAGE[case]
    engine, policy = vllm.of_kind(kind)
    engine.load_weights(policy.network, 4)
    learner = moved(policy.network, share)
    with monkeypatch.context() as patch:
        sabotage(engine, patch)
        with pytest.raises(UserError, match=STALE):
            engine.load_weights(learner, 5)
    # A whole push heals it.
    engine.load_weights(learner, 6)
    assert engine._probe.gap(policy, learner) < TOLERANCE["float32"] / 10


@pytest.mark.parametrize("kind", ["tied", "untied", "experts"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rounding_alone_stays_far_below_the_tolerance(kind: str, dtype: str, vllm: OneEngine) -> None:
    engine, policy = vllm.of_kind(kind, dtype)
    gaps = []
    for seed in range(5):
        learner = moved(policy.network, seed=seed)
        engine._offline.push((name, p.detach()) for name, p in learner.named_parameters())
        gaps.append(engine._probe.gap(policy, learner))
    assert max(gaps) < TOLERANCE[dtype] / 2, gaps


def test_not_a_number_is_no_agreement(vllm: OneEngine) -> None:
    engine, policy = vllm.of_kind("tied")
    learner = moved(policy.network)
    with torch.no_grad():
        learner.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(UserError, match="vLLM"):
        engine.load_weights(learner, 5)


def test_a_policy_that_vllm_reads_otherwise_is_refused_at_the_start(vllm: OneEngine, tmp_path: Path) -> None:
    """The folder says what vLLM computes; a policy that computes something else is found out before a run starts."""
    vllm.close()
    policy = Policy(random_network("tied"), byte_tokenizer())
    policy.network.save_pretrained(tmp_path)
    config: Any = policy.network.config
    config.rope_parameters = config.rope_parameters | {"rope_theta": 100.0}
    different = type(policy.network)(config).eval()
    different.load_state_dict(policy.network.state_dict())
    with pytest.raises(UserError, match="after the push of version 0"):
        vllm_engine(Policy(different, policy.tokenizer), tmp_path)
