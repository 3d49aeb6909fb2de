"""Configurations made of random values of random keys."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from forked_lab import run
from trials import Base, Tally

VALUES = (
    "", "null", "true", "-1", "0", "1", "2", "3.5", "1e30", "-1e-9", "nan", "inf", "[]", "[1,2]", "{}", "{a:1}", "none",
    "grpo", "../../evil", "'a b'", '"\x1b[31m"', "é", "'\u2028'", "x" * 300, "${seed}", "${nokey}", "${oc.env:HOME}",
    "???", "1,2", "range(0,3)", "99999999999999999999", "~", "@", "=", "/dev/null", "chain",
)  # fmt: skip
CHOICES = ("grpo", "pg", "s", "m", "none", "mild", "native", "x")


def fuzz_configurations(base: Base, count: int, seed: int) -> Tally:
    """Random values of random keys, refused in one sentence, or accepted; of those one in four runs a step."""
    from cppo_lab.config.compose import compose_run
    from cppo_lab.errors import UserError

    tally, at = Tally("random configurations"), random.Random(seed)
    defaults = _values(compose_run([]).model_dump(mode="python"))
    keys = list(defaults)
    groups = [
        "algo",
        "model",
        "engine",
        "task",
        "warmup",
        "trainer",
        "backend",
        "recipe",
        "regime",
        "tracking",
    ]
    for trial in range(count):
        chosen = at.sample(keys, at.choice([1, 1, 1, 2, 3]))
        if at.random() < 0.5:
            overrides = [f"{key}={_near(defaults[key], at)}" for key in chosen]
        else:
            signs = ["", "", "", "+", "++", "~"]
            overrides = [f"{at.choice(signs)}{key}={at.choice(VALUES)}" for key in chosen]
        if at.random() < 0.2:
            overrides.append(f"{at.choice(groups)}={at.choice(CHOICES)}")
        told = f"config-{seed}-{trial}: {overrides}"
        try:
            config = compose_run(overrides)
        except UserError as error:
            tally.check("\n" not in str(error) and len(str(error)) < 2000, f"{told}: {str(error)[:300]!r}")
            tally.counts["refused"] += 1
        except Exception as error:
            tally.check(False, f"{told}: {type(error).__name__}: {str(error)[:300]}")
        else:
            tally.counts["accepted"] += 1
            if tally.counts["accepted"] % 4 == 1 and config.backend.kind == "native":
                _run_a_step(base, overrides, tally, told)
    return tally


def _values(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found[f"{prefix}{key}"] = value
        if isinstance(value, Mapping):
            found |= _values(value, f"{prefix}{key}.")
    return found


def _near(value: Any, at: random.Random) -> str:
    """A value of the kind of a default, which is more often accepted."""
    if isinstance(value, bool):
        return str(not value).lower()
    if isinstance(value, int):
        return str(at.choice([0, 1, 2, 3, value + 1, 2 * value, max(0, value - 1)]))
    if isinstance(value, float):
        return repr(at.choice([0.0, 0.5, 1.0, value * at.uniform(0, 3), value / 10, value * 10]))
    return "null" if value is None or at.random() < 0.3 else at.choice(VALUES)


def _run_a_step(base: Base, overrides: Sequence[str], tally: Tally, told: str) -> None:
    output = base.output(f"step-{len(list(base.root.iterdir()))}", with_store=False)
    small = ("trainer.steps=1", "trainer.prompts_per_step=2", "trainer.prompts_per_minibatch=1", "trainer.epochs=1",
             "warmup.steps=1", "warmup.max_steps=1", "warmup.band=null", "trainer.evaluation_problems=4",
             "trainer.group_size=2", "tracking=none")  # fmt: skip
    try:
        done = run(["train", *overrides, *small, "-o", str(output)], output / "printed", timeout=120)
    except TimeoutError:
        tally.check(False, f"{told}: hangs")
    else:
        tally.check("Traceback" not in done.printed, f"{told}: {done.printed[-400:]}")
        tally.check(done.code in (0, 1, 2), f"{told}: exit code {done.code}")
        tally.check("--debug" not in done.printed, f"{told}: {done.printed[-300:]}")
        tally.counts[f"run for a step, exit code {done.code}"] += 1
    shutil.rmtree(output)
