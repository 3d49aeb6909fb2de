"""What the hashes of files and their way to the disk cost a run: a share of the run's own time.

    python benchmarks/integrity.py --json benchmarks/results/integrity.json

Trains runs of the quickstart's settings and counts the seconds within `os.fsync`, within hashing, and within reading
hashes back. A share in one run does not depend on how busy the machine is; the starting policy is made first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import cppo_lab.files
import cppo_lab.manifests
import cppo_lab.tracking.integrity
from cppo_lab.config.compose import compose_run
from cppo_lab.quiet import quiet_libraries
from cppo_lab.tracking.provenance import device_name, versions
from cppo_lab.training.run import run
from cppo_lab.training.starting_policy import starting_policy

SETTINGS = ("algo=cppo", "regime=many_updates", "tracking=none")


class Seconds:
    """Counts the time within functions, each call once even where they call each other."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._within = False

    def counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, whose time is counted under `name`."""

        def call(*arguments: Any, **options: Any) -> Any:
            if self._within:
                return function(*arguments, **options)
            self._within, started = True, time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self._within = False
                self.spent[name] = self.spent.get(name, 0.0) + time.perf_counter() - started

        return call


def watch(seconds: Seconds) -> None:
    """Count the time within what integrity costs."""
    os.fsync = seconds.counted("fsync", os.fsync)
    hashlib.sha256 = seconds.counted("hashes", hashlib.sha256)
    for module in (cppo_lab.files, cppo_lab.manifests, cppo_lab.tracking.integrity):
        if hasattr(module, "file_sha256"):
            setattr(module, "file_sha256", seconds.counted("hashes", getattr(module, "file_sha256")))  # noqa: B009, B010


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        configs = [
            compose_run([*SETTINGS, f"seed={seed}", f"paths.output='{folder}'"]) for seed in range(given.runs)
        ]
        starting_policy(configs[0], configs[0].task.build())
        seconds = Seconds()
        watch(seconds)
        for config in configs:
            seconds.spent, started = {}, time.perf_counter()
            run(config)
            whole = time.perf_counter() - started
            rows.append({"run_s": whole, **seconds.spent, "share": sum(seconds.spent.values()) / whole})
            print({key: round(value, 4) for key, value in rows[-1].items()})
    share = statistics.median(row["share"] for row in rows)
    print(f"{100 * share:.2f}% of a run")
    if given.json:
        machine = {"device": device_name("cpu"), "versions": versions()}
        content = {**machine, "settings": SETTINGS, "share": share, "runs": rows}
        given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
