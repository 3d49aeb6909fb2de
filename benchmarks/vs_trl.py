"""Training iterations of the lab and of TRL's GRPOTrainer in turns: seconds of an iteration, and peak memory.

    make .venv-trl/.installed
    python benchmarks/vs_trl.py                                  two sizes of the ladder, 4 and 64 updates, one thread
    python benchmarks/vs_trl.py --models s --threads 1 2 --json results.json

An iteration samples 256 responses (32 prompts of the embedded task, 8 each, at most 54 tokens), grades them, and takes
4 or 64 updates by GRPO. Both start from the same weights and prompts in float32, each in a process of its own with the
same PyTorch and transformers, and sample by themselves: TRL by transformers' `generate`. The lab records what every run
of it records; TRL logs once an iteration. They take turns: medians over `--repeats` iterations after one that does not
count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cppo_lab.config.compose import compose_run
from cppo_lab.quiet import quiet_libraries
from cppo_lab.tracking.provenance import device_name, versions
from cppo_lab.training.starting_policy import starting_policy

HERE = Path(__file__).resolve().parent
SCHEDULES = {4: (8, 1), 64: (2, 4)}
"""Prompts of a minibatch, and epochs, by the number of updates of an iteration."""


def job(model: str, updates: int, threads: int, seed: int, iterations: int) -> dict[str, Any]:
    """What both workers are told; makes the starting policy unless it is cached."""
    prompts, epochs = SCHEDULES[updates]
    overrides = [
        f"model={model}",
        "algo=grpo",
        "algo.aggregation.kind=token_mean",
        f"seed={seed}",
        f"trainer.prompts_per_minibatch={prompts}",
        f"trainer.epochs={epochs}",
        f"trainer.threads={threads}",
        f"trainer.steps={iterations}",
    ]
    config = compose_run(overrides)
    task = config.task.build()
    trainer = config.trainer
    problems = [
        problem
        for step in range(iterations)
        for problem in task.training_problems(step, trainer.prompts_per_step, config.seeds.prompts)
    ]
    return {
        "overrides": overrides,
        "policy": starting_policy(config, task).path,
        "problems": [{"prompt": problem.prompt, "answer": problem.answer} for problem in problems],
        "limit": config.task.response_limit,
        "responses": trainer.prompts_per_step * trainer.group_size,
        "group": trainer.group_size,
        "minibatch": prompts * trainer.group_size,
        "epochs": epochs,
        "updates": updates,
        "lr": trainer.lr,
        "betas": trainer.betas,
        "grad_clip": trainer.grad_clip,
        "seed": seed,
        "threads": threads,
        "iterations": iterations,
    }


class Worker:
    """A process that does one iteration whenever it is asked."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self._log = log
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w", encoding="utf-8"),
            env=environment,
            text=True,
        )

    def iteration(self) -> dict[str, float]:
        """Seconds and sampled tokens of the next iteration, and the process's peak memory so far in MiB."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(
                f"{' '.join(self._process.args)} ended:\n{self._log.read_text(encoding='utf-8')}"
            )  # type: ignore[arg-type]
        found: dict[str, float] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


@contextmanager
def workers(asked: dict[str, Any], theirs: Path, folder: Path) -> Iterator[dict[str, Worker]]:
    """A worker of each, both ready or about to be."""
    file = folder / "job.json"
    file.write_text(json.dumps(asked), encoding="utf-8")
    environment = dict(os.environ, OMP_NUM_THREADS=str(asked["threads"]), PYTHONPATH=str(HERE.parent))
    commands = {
        "lab": [sys.executable, str(HERE / "iterations_lab.py"), str(file)],
        "trl": [str(theirs), str(HERE / "iterations_trl.py"), str(file)],
    }
    made: dict[str, Worker] = {}
    try:
        for name, command in commands.items():
            made[name] = Worker(command, environment, folder / f"{name}.log")
        yield made
    finally:
        for worker in made.values():
            worker.close()


def compared(asked: dict[str, Any], theirs: Path) -> dict[str, dict[str, float]]:
    """Medians of seconds and tokens of each, and their peak memory."""
    seen: dict[str, list[dict[str, float]]] = {"lab": [], "trl": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        workers(asked, theirs, Path(folder)) as both,
    ):
        for turn in range(asked["iterations"]):
            for name, worker in both.items():
                found = worker.iteration()
                if turn:
                    seen[name].append(found)
    return {
        name: {
            "seconds": statistics.median(each["seconds"] for each in found),
            "tokens": statistics.median(each["tokens"] for each in found),
            "peak_mib": found[-1]["peak_mib"],
        }
        for name, found in seen.items()
    }


def main() -> None:
    """Run the comparison and print it as a table."""
    parser = argparse.ArgumentParser(description="Training iterations of the lab against TRL's.")
    parser.add_argument("--models", nargs="+", default=["s", "m"], help="rungs of the ladder")
    parser.add_argument("--updates", nargs="+", type=int, default=[64, 4], choices=sorted(SCHEDULES))
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--trl", type=Path, default=Path(".venv-trl/bin/python"), help="the interpreter with TRL"
    )
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers here")
    options = parser.parse_args()
    if not options.trl.exists():
        raise SystemExit(f"--trl {options.trl}: no such file; `make .venv-trl/.installed` makes it.")
    quiet_libraries()
    heads = ("model", "updates", "threads", "TRL", "lab", "ratio", "TRL MiB", "lab MiB")
    print("".join(f"{head:>9}" for head in heads))
    results = []
    for model in options.models:
        for updates in options.updates:
            for threads in options.threads:
                asked = job(model, updates, threads, options.seed, options.repeats + 1)
                found = compared(asked, options.trl)
                ours, theirs = found["lab"], found["trl"]
                ratio = theirs["seconds"] / ours["seconds"]
                print(
                    f"{model:>9}{updates:9}{threads:9}{theirs['seconds']:7.2f} s{ours['seconds']:7.2f} s{ratio:9.2f}"
                    f"{theirs['peak_mib']:9.0f}{ours['peak_mib']:9.0f}",
                    flush=True,
                )
                results.append(
                    {"model": model, "updates": updates, "threads": threads, "ratio": ratio, **found}
                )
    if options.json is not None:
        content = {"device": f"cpu ({device_name('cpu')})", "versions": versions(), "results": results}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
