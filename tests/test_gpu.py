"""The same trainer on a CUDA device."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tiny_runs import loop_for, tiny_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


@pytest.mark.parametrize("algo", ["cppo", "dapo", "ppo", "cppo_shuffled"])
def test_methods_take_steps_on_the_device(algo: str, output: Path) -> None:
    loop = loop_for(tiny_config(output, f"algo={algo}", "trainer.device=cuda"))
    metrics, _ = loop._train_step()
    assert next(loop.policy.network.parameters()).is_cuda
    assert math.isfinite(metrics["rollout/length_mean"])
