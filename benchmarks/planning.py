"""Seconds that commands take which train nothing: over a thousand finished runs, and without any.

    python benchmarks/planning.py --json benchmarks/results/planning.json

Writes the run.json and timings of a sweep of five methods and 200 seeds into a temporary folder. Each command is a
process of its own; medians over `--repeats`, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cppo_lab.config.size import cost_key
from cppo_lab.sweeps.sweep import find_sweep
from cppo_lab.tracking.provenance import device_name, versions

SWEEP = ("algo=pg,grpo,cppo,dppo_tv,cispo", "seed=range(0,200)")
COMMANDS = {
    "--help": ["--help"],
    "list methods": ["list", "methods"],
    "plan, 1,000 finished runs": ["plan", *SWEEP],
    "list runs, 1,000 finished runs": ["list", "runs"],
}


def write_finished_runs(output: Path) -> None:
    """The files of every run of the sweep that a plan reads."""
    sweep, _ = find_sweep(SWEEP[0], [*SWEEP[1:], f"paths.output={output}"], None)
    for run in sweep.runs:
        config, folder = run.config, run.folder.path
        run.folder.create(config.model_dump(mode="python"))
        info = {
            "run_id": run.run_id,
            "name": f"{config.algo.name} seed {config.seed}",
            "status": "FINISHED",
            "method": config.algo.name,
            "seed": config.seed,
            "task": config.task.kind,
            "steps": config.trainer.steps,
            "steps_done": config.trainer.steps,
            "started_at": "2026-01-01T00:00:00+00:00",
            "ended_at": "2026-01-01T00:00:30+00:00",
            "duration_s": 30.0,
            "cost_key": cost_key(config),
        }
        (folder / "run.json").write_text(json.dumps(info), encoding="utf-8")
        row = {"rollout_s": 0.4, "train_s": 1.3, "tokens_per_s": 5000.0}
        lines = [json.dumps({"step": step + 1, **row}) + "\n" for step in range(config.trainer.steps)]
        (folder / "timings.jsonl").write_text("".join(lines), encoding="utf-8")


def seconds(arguments: list[str], environment: dict[str, str]) -> float:
    """Of one command, from its start to its end."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "cppo_lab.cli", *arguments]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def main() -> None:
    """Time the commands and print a table."""
    parser = argparse.ArgumentParser(description="Commands that train nothing.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_finished_runs(Path(folder))
        environment = dict(os.environ, CPPO_LAB_OUTPUT=folder)
        seen: dict[str, list[float]] = {name: [] for name in COMMANDS}
        for _ in range(options.repeats):
            for name, arguments in COMMANDS.items():
                seen[name].append(seconds(arguments, environment))
    results = {name: statistics.median(found) for name, found in seen.items()}
    for name, found in results.items():
        print(f"{name:32}{found:6.2f} s")
    if options.json is not None:
        content = {"device": f"cpu ({device_name('cpu')})", "versions": versions(), "seconds": results}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
