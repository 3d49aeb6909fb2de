"""What all campaigns share: folders to start from, ways of stopping a process, and the tally of what was lost."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forked_lab import Command, run
from tiny_runs import TINY

TRACKED = [each for each in TINY if each != "tracking=none"]
TRAIN = ("train", *TRACKED, "trainer.steps=6", "trainer.checkpoint_every=2", "trainer.evaluate_every=2")
SWEEP = ("sweep", "algo=grpo,cppo", "seed=0,1", *TRAIN[1:], "--jobs", "2", "--no-report", "--name", "ours")
TWELVE = ("sweep", "algo=grpo,cppo,pg", "seed=0,1,2,3", *SWEEP[3:])
VARIANTS = ([], ["algo=grpo"], ["trainer.staleness=1"], ["algo=dppo_topk_tv", "engine.weights=int8"])
RESULTS = ("metrics.jsonl", "profiles.jsonl", "agreement.jsonl", "masked_tokens.json")
FAILPOINTS = (
    "checkpoint-filled", "checkpoint-removed", "file-written", "mirror-named", "mirror-created", "mirror-metrics",
    "mirror-ended", "store-made", "folder-hidden",
)  # fmt: skip
# Exit codes of a command that was stopped: done, not sent, interrupted, by a signal; and, where something was broken,
# of one that failed or was refused.
STOPPED = frozenset({0, 4, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT})
ALLOWED = frozenset({1, 2, *STOPPED})


@dataclass
class Tally:
    """What was tried, how often, and what was lost, each with how to repeat it."""

    tried: str
    counts: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Tally:
        """The tally whose fields were written."""
        return cls(fields["tried"], Counter(fields["counts"]), list(fields["lost"]))

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.tried, self.counts + other.counts, self.lost + other.lost)

    def check(self, holds: bool, said: str) -> None:
        """Note a loss unless `holds`."""
        if not holds:
            self.lost.append(said)

    def row(self) -> str:
        """A row of the table."""
        done = ", ".join(f"{number} {what}" for what, number in sorted(self.counts.items()))
        return f"| {self.tried} | {done} | {len(self.lost)} |"


class Base:
    """What all trials start from: a folder with a starting policy and a store, and what whole runs amount to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.template = root / "template"
        self._expected: dict[tuple[str, ...], dict[str, bytes]] = {}
        done = run([*TRAIN, "trainer.steps=1", "-o", str(self.template)], root / "made")
        assert done.code == 0, done.printed
        shutil.rmtree(self.template / "runs")
        with closing(sqlite3.connect(self.template / "mlflow.db")) as store:
            (lab,) = store.execute("SELECT experiment_id FROM experiments WHERE name = 'cppo-lab'").fetchone()
        assert lab
        for path in self.template.glob("mlflow.db*"):
            path.unlink()
        # A store without the experiment, whose artifacts would be in the template.
        from cppo_lab.tracking.mlflow_store import quiet_client

        quiet_client()
        self.policies = self.template / "policies"

    def output(self, name: str, *, with_store: bool = True) -> Path:
        """A fresh output folder."""
        output = self.root / name
        output.mkdir()
        shutil.copytree(self.policies, output / "policies")
        if with_store:
            shutil.copy(self._empty_store(), output / "mlflow.db")
        return output

    def _empty_store(self) -> Path:
        path = self.root / "empty" / "mlflow.db"
        if not path.exists():
            path.parent.mkdir()
            code = os.spawnv(
                os.P_WAIT,
                sys.executable,
                [sys.executable, "-c", "import sys; from cppo_lab.tracking.sqlite_store import make_sqlite_store as m; "
                 f"m('sqlite:///{path}')"],
            )  # fmt: skip
            assert code == 0
        return path

    def expected(self, arguments: Sequence[str]) -> dict[str, bytes]:
        """The results of a run that nobody stops."""
        key = tuple(arguments)
        if key not in self._expected:
            output = self.output(f"whole-{len(self._expected)}")
            done = run([*arguments, "-o", str(output)], output / "printed")
            assert done.code == 0, done.printed
            self._expected[key] = results(output)
            shutil.rmtree(output)
        return self._expected[key]


def results(output: Path) -> dict[str, bytes]:
    """What runs amount to: their deterministic files, and the weights of their checkpoints."""
    patterns = [f"runs/*/{name}" for name in RESULTS]
    patterns += ["runs/*/samples/*.jsonl", "runs/*/checkpoints/*/*.safetensors"]
    paths = [path for pattern in patterns for path in output.glob(pattern) if not path.name.startswith(".")]
    return {str(path.relative_to(output)): path.read_bytes() for path in sorted(paths)}


def left_over(output: Path) -> list[str]:
    """Hidden temporary files and folders in run folders."""
    found = [path for path in output.glob("runs/**/.*") if path.suffix[1:].isdigit()]
    return [str(path.relative_to(output)) for path in found]


def stop(command: Command, at: random.Random, longest: float, tally: Tally, *, group: bool = True) -> bool:
    """Stop a command at a random moment in a random way; False if it had ended before."""
    deadline = time.monotonic() + at.uniform(0, longest)
    while time.monotonic() < deadline:
        if command.poll() is not None:
            return False
        time.sleep(0.002)
    how = at.choices(["KILL", "TERM", "INT", "INT twice", "STOP, KILL"], [5, 2, 2, 1, 1])[0]
    tally.counts[f"SIG{how}"] += 1
    if how == "KILL":
        command.send(signal.SIGKILL, group=group)
    elif how == "TERM":
        command.send(signal.SIGTERM, group=group)
    elif how.startswith("INT"):
        command.send(signal.SIGINT, group=group)
        if how == "INT twice":
            time.sleep(at.uniform(0, 0.05))
            command.send(signal.SIGINT, group=group)
    else:
        command.send(signal.SIGSTOP, group=group)
        time.sleep(0.02)
        command.send(signal.SIGKILL, group=group)
    command.wait(60)
    return True


def check_store(output: Path, tally: Tally, name: str) -> None:
    """Compare MLflow with the run folders."""
    done = run(["sync", "--all", "--check", "-o", str(output)], output / "printed")
    tally.check("\n0 records" not in f"\n{done.printed}", f"{name}: MLflow has nothing to compare")
    tally.check(done.code == 0, f"{name}: MLflow differs: {done.printed[-400:]}")
    tally.counts["comparisons with MLflow"] += 1
