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
METHODS = ("grpo", "dppo_topk_tv", "cppo")
Curve = list[dict[str, Any]]


def machine() -> str:
    """What the bits depend on besides the code."""
    return f"{processor()}, torch {torch.__version__}"


def curve(method: str, output: Path) -> Curve:
    """The metrics of every step of a tiny run, as metrics.jsonl has them."""
    return run(tiny_config(output, f"algo={method}", "trainer.lr=4e-4")).rows("metrics.jsonl")


@pytest.mark.parametrize("method", METHODS)
def test_first_steps_are_the_pinned_ones_to_the_bit(method: str, output: Path) -> None:
    pinned = json.loads(PINNED.read_text(encoding="utf-8"))
    if machine() not in pinned:
        pytest.skip(f"no curves are pinned for {machine()}; pinned are {', '.join(sorted(pinned))}")
    expected = pinned[machine()][method]
    assert len(expected) == 4
    for step, (was, now) in enumerate(zip(expected, curve(method, output), strict=True)):
        assert now == was, f"step {step}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    known = json.loads(PINNED.read_text(encoding="utf-8")) if PINNED.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        mine = {method: curve(method, Path(folder)) for method in METHODS}
    PINNED.write_text(json.dumps({machine(): mine} | known, indent=1) + "\n", encoding="utf-8")
