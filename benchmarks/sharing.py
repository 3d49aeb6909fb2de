"""Runs that share one device: finished runs per hour, and processor time per run, by how many train at once.

    python benchmarks/sharing.py --jobs 1 2 --json benchmarks/results/sharing-cpu.json        two cores
    python benchmarks/sharing.py --jobs 1 2 4 8 16 --model m                                  one GPU, or many cores

Each is a whole `cppo-lab sweep -j N` of `--runs` short runs, its start included, whose starting policy is there; they
take turns. A GPU is shared by processes, each with a context of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cppo_lab.config.compose import compose_run
from cppo_lab.models.device import resolved_device
from cppo_lab.quiet import quiet_libraries
from cppo_lab.tracking.provenance import device_name, versions
from cppo_lab.training.starting_policy import starting_policy

METHODS = ("pg", "grpo", "dppo_topk_tv", "cppo")


def settings(model: str, steps: int) -> list[str]:
    """What all runs share."""
    return [f"model={model}", f"trainer.steps={steps}", "warmup.seed=0", "algo.aggregation.kind=token_mean"]


def sweep(jobs: int, seeds: int, shared: Sequence[str], policies: Path) -> tuple[float, float]:
    """Wall-clock and processor seconds of a sweep with so many runs at once."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(policies, Path(folder, "policies"))
        command = [sys.executable, "-m", "cppo_lab.cli", "sweep", f"algo={','.join(METHODS)}"]
        command += [f"seed=range(0,{seeds})", *shared, "-j", str(jobs), "--no-report"]
        environment = dict(os.environ, CPPO_LAB_OUTPUT=folder, OMP_NUM_THREADS="1")
        before, started = _children_s(), time.perf_counter()
        subprocess.run(command, env=environment, capture_output=True, check=True)
        return time.perf_counter() - started, _children_s() - before


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run the sweeps and print a table."""
    parser = argparse.ArgumentParser(description="Runs that share one device.")
    parser.add_argument(
        "--jobs", nargs="+", type=int, default=[1, 2], help="runs at once; the first is compared with"
    )
    parser.add_argument("--runs", type=int, default=8, help="a multiple of four")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--model", default="s")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers here")
    options = parser.parse_args()
    if options.runs < len(METHODS) or options.runs % len(METHODS):
        raise SystemExit(
            f"--runs {options.runs}: must be a multiple of {len(METHODS)}, the number of methods."
        )
    quiet_libraries()
    shared = settings(options.model, options.steps)
    seeds = options.runs // len(METHODS)
    seen: dict[int, list[tuple[float, float]]] = {jobs: [] for jobs in options.jobs}
    with tempfile.TemporaryDirectory() as folder:
        config = compose_run([*shared, f"paths.output={folder}"])
        starting_policy(config, config.task.build())
        for _ in range(options.repeats):
            for jobs in options.jobs:
                seen[jobs].append(sweep(jobs, seeds, shared, Path(folder, "policies")))
    device = resolved_device(config.trainer.device)
    print(f"{'at once':>8}{'seconds':>9}{'ratio':>7}{'processor s a run':>19}")
    results = []
    first = statistics.median(wall for wall, _ in seen[options.jobs[0]])
    for jobs, found in seen.items():
        wall = statistics.median(each for each, _ in found)
        processor = statistics.median(each for _, each in found) / (seeds * len(METHODS))
        print(f"{jobs:8}{wall:9.1f}{first / wall:7.2f}{processor:19.1f}")
        results.append(
            {"jobs": jobs, "seconds": wall, "ratio": first / wall, "processor_s_per_run": processor}
        )
    if options.json is not None:
        about = {
            "device": f"{device} ({device_name(device)})",
            "cores": os.cpu_count(),
            "model": options.model,
        }
        content = {**about, "runs": seeds * len(METHODS), "versions": versions(), "results": results}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
