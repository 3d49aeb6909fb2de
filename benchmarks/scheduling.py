"""A sweep of a thousand runs over 64 workers that are taken away: lost work, and what the command itself costs.

    python benchmarks/scheduling.py
    python benchmarks/scheduling.py --runs 200 --workers 16 --mean-hours 1 --json results.json

The scheduler is the lab's, and so are the run folders it reads; the workers are simulated, in simulated time. A run
has `--steps` steps of `--step-s` seconds and a checkpoint every `--checkpoint-every` of them; a worker is taken away
after a time drawn from an exponential distribution, and what it did since the last checkpoint is lost. Times of the
command are processor seconds of this machine, file operations are those it makes (opened files and listed folders).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cppo_lab.config.compose import compose_run
from cppo_lab.config.schema import RunConfig
from cppo_lab.executors.remote_job import RemoteJob
from cppo_lab.executors.scheduler import Ended, Handle, RemoteScheduler
from cppo_lab.sweeps.jobs import Event, Job
from cppo_lab.tracking.run_folder import RunFolder, run_folder

ROW = {f"metric/{number}": 0.123456789 for number in range(60)}


@dataclass
class Cluster:
    """Simulated workers; `tick` lets `poll_s` seconds pass."""

    settings: argparse.Namespace
    folders: dict[str, RunFolder]
    rng: np.random.Generator
    now: float = 0.0
    done: dict[str, int] = field(default_factory=dict)
    trained: int = 0
    lost: int = 0
    taken: int = 0
    own_s: float = 0.0
    """Processor seconds of the simulation itself."""

    def submit(self, jobs: Sequence[RemoteJob]) -> Sequence[Handle]:
        return [
            Worker(self, job.key, self.now, self.rng.exponential(self.settings.mean_hours * 3600))
            for job in jobs
        ]

    def close(self) -> None:
        return None

    def tick(self) -> None:
        self.now += self.settings.poll_s


@dataclass
class Worker:
    """One attempt at one run."""

    cluster: Cluster
    key: str
    began: float
    life: float
    written: int = 0
    end: Ended | None = None

    def ended(self) -> Ended | None:
        began = time.process_time()
        self._go_on()
        self.cluster.own_s += time.process_time() - began
        return self.end

    def cancel(self) -> None:
        self.end = Ended(lost="cancelled")

    def _go_on(self) -> None:
        cluster, settings = self.cluster, self.cluster.settings
        folder = cluster.folders[self.key]
        first = cluster.done.get(self.key, 0)
        if not self.written:
            folder.update_info(status="RUNNING")
        lived = min(cluster.now - self.began, self.life)
        steps = min(int(lived / settings.step_s), settings.steps - first)
        for step in range(first + self.written, first + steps):
            folder.append("metrics.jsonl", {"step": step, **ROW})
        self.written = steps
        if first + steps == settings.steps:
            self._stop(steps, 0)
            folder.update_info(status="FINISHED")
            self.end = Ended()
        elif lived >= self.life:
            kept = (first + steps) // settings.checkpoint_every * settings.checkpoint_every
            self._stop(steps, first + steps - kept)
            cluster.done[self.key] = max(first, kept)
            cluster.taken += 1
            self.end = Ended(lost="its node was taken away")

    def _stop(self, steps: int, lost: int) -> None:
        self.cluster.trained += steps
        self.cluster.lost += lost


def runs(output: Path, count: int) -> list[RunConfig]:
    one = compose_run([f"paths.output='{output}'", "tracking=none"])
    return [one.model_copy(update={"seed": seed}) for seed in range(count)]


def measure(settings: argparse.Namespace) -> dict[str, Any]:
    """One simulated sweep."""
    with tempfile.TemporaryDirectory() as folder:
        configs = runs(Path(folder), settings.runs)
        folders = {}
        for config in configs:
            its = run_folder(config)
            its.create({})
            folders[its.path.name] = its
        jobs = [Job(run_folder(config).path.name, "run", config) for config in configs]
        cluster = Cluster(settings, folders, np.random.default_rng(settings.seed))
        finished: list[str] = []
        opened = count_opened(Path(folder))

        def on_event(event: Event) -> None:
            if event.kind == "finished":
                finished.append(event.job)

        scheduler = RemoteScheduler(jobs, cluster, settings.workers, 10**6, on_event)
        began = time.process_time()
        scheduler.run(cluster.tick, 0.0)
        spent = time.process_time() - began - cluster.own_s
    polls = cluster.now / settings.poll_s
    needed = settings.runs * settings.steps
    ideal = needed * settings.step_s / settings.workers
    return {
        "runs": settings.runs,
        "workers": settings.workers,
        "mean hours of a worker": settings.mean_hours,
        "each run finished once": sorted(finished) == sorted(job.key for job in jobs),
        "workers taken away": cluster.taken,
        "share of steps lost": round(1 - needed / cluster.trained, 4),
        "hours": round(cluster.now / 3600, 2),
        "over the ideal": round(cluster.now / ideal, 3),
        "processor seconds of the command per hour": round(spent / (cluster.now / 3600), 2),
        "file operations per minute": round(opened[0] / (cluster.now / 60)),
        "polls": round(polls),
    }


def count_opened(folder: Path) -> list[int]:
    """Counts every file below `folder` that is opened from now on, the simulated workers' not."""
    count, root = [0], str(folder)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir") and str(args[0]).startswith(root):
            caller: Any = sys._getframe(1)
            while caller is not None and caller.f_code.co_name != "_go_on":
                caller = caller.f_back
            count[0] += caller is None

    sys.addaudithook(hook)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument(
        "--mean-hours", type=float, default=4.0, help="mean time until a worker is taken away"
    )
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--step-s", type=float, default=60.0)
    parser.add_argument("--checkpoint-every", type=int, default=4)
    parser.add_argument("--poll-s", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    settings = parser.parse_args()
    found = measure(settings)
    for name, value in found.items():
        print(f"{name:45} {value}")
    if settings.json:
        settings.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
