"""The first steps of three methods on the smallest model, to the bit: a refactoring that changes one is seen here.

Processors round differently, so that curves are pinned for each kind of them. Running this file adds those of this
machine, and leaves all others as they are.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import tiny_config

from cppo_lab.tracking.provenance import processor
from cppo_lab.training.run import run

PINNED = Path(__file__).parents[1] / "pinned" / "learning_curves.json"
CURVES = {
    "grpo": ("algo=grpo", "model.implementation=transformers"),
    "dppo_topk_tv": ("algo=dppo_topk_tv", "model.implementation=transformers"),
    "cppo": ("algo=cppo", "model.implementation=transformers"),
    "cppo, the lab's decoder": ("algo=cppo", "model.implementation=lab"),
}
Curve = list[dict[str, Any]]


def machine() -> str:
    """What the bits depend on besides the code."""
    return f"{processor()}, torch {torch.__version__}"


def curve(name: str, output: Path) -> Curve:
    """The metrics of every step of a tiny run, as metrics.jsonl has them."""
    return run(tiny_config(output, *CURVES[name], "trainer.lr=4e-4")).rows("metrics.jsonl")


@pytest.mark.parametrize("name", CURVES)
def test_first_steps_are_the_pinned_ones_to_the_bit(name: str, output: Path) -> None:
    pinned = json.loads(PINNED.read_text(encoding="utf-8"))
    if name not in pinned.get(machine(), {}):
        having = sorted(key for key, curves in pinned.items() if name in curves)
        pytest.skip(f"no such curve is pinned for {machine()}; pinned are those of {', '.join(having)}")
    expected = pinned[machine()][name]
    assert len(expected) == 4
    for step, (was, now) in enumerate(zip(expected, curve(name, output), strict=True)):
        assert now == was, f"step {step}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    known = json.loads(PINNED.read_text(encoding="utf-8")) if PINNED.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        mine = {name: curve(name, Path(folder)) for name in CURVES}
    mine |= known.get(machine(), {})
    PINNED.write_text(json.dumps(known | {machine(): mine}, indent=1) + "\n", encoding="utf-8")
