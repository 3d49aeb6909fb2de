"""Time, memory and size of a report on a large sweep.

    python benchmarks/report.py                      100 runs of 500 steps with 60 metrics each
    python benchmarks/report.py --seeds 5            fewer runs
    python benchmarks/report.py --json results.json

Run folders as a sweep leaves them are written into a temporary folder: five methods by `--seeds` seeds, every step with
its metrics and timings, every tenth with an evaluation, position profiles and samples with token records (of which a
report reads the last). `cppo-lab report` then runs on them in a process of its own, imports included. Peak memory is
the largest resident memory of that process and its children together, looked at every 50 ms.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import yaml

from analysis.figures.render import render
from analysis.findings import find
from analysis.gallery import exhibits
from analysis.runs import load_study
from cppo_lab.compose import compose_run
from cppo_lab.runs.folder import jsonable_config

METHODS = ("pg", "grpo", "cispo", "dppo_topk_tv", "cppo")
SWEEP = "large"
METRICS = 60
STEPS, EVALUATE_EVERY = 500, 10
SAMPLES, RESPONSE_TOKENS = 4, 60
MEBI = 2**20
NAMED = (
    "eval/heldout/accuracy",
    "eval/heldout/stderr",
    "policy/k3_vs_rollout",
    "policy/entropy",
    "train/grad_norm",
    "train/reward_mean",
    "train/lr",
    "mask/share",
    "mask/share_threshold",
    "mask/share_budget",
    "rollout/length_mean",
    "rollout/truncated_share",
)


def write_sweep(output: Path, seeds: int) -> None:
    """Run folders and the manifest of a sweep of METHODS by `seeds` seeds."""
    entries: list[dict[str, Any]] = []
    for method in METHODS:
        config = jsonable_config(compose_run([f"algo={method}"]).model_dump())
        for seed in range(seeds):
            run_id = f"{len(entries):012x}"
            folder = output / "runs" / f"{method}-{run_id}"
            write_run(folder, run_id, method, seed, config)
            axes = {"algo": method, "seed": str(seed)}
            entries.append({"run_id": run_id, "folder": str(folder.relative_to(output)), "axes": axes})
    manifest = {
        "name": SWEEP,
        "title": f"{len(entries)} runs",
        "axes": {"algo": list(METHODS), "seed": [str(seed) for seed in range(seeds)]},
        "baseline": "dppo_topk_tv",
        "runs": entries,
    }
    path = output / "sweeps" / SWEEP / "sweep.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def write_run(folder: Path, run_id: str, method: str, seed: int, config: Mapping[str, Any]) -> None:
    """One finished run."""
    rng = np.random.default_rng([METHODS.index(method), seed])
    folder.mkdir(parents=True)
    whole = {**config, "seed": seed}
    (folder / "config.yaml").write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    info = {
        "run_id": run_id,
        "name": f"{method} seed {seed}",
        "status": "FINISHED",
        "method": method,
        "seed": seed,
        "starting_policy": {"recipe": "98acc31600d0", "seed": seed, "accuracy": 0.36},
        "model": {"name": "s", "parameters": 126_208},
        "task": "chain",
        "steps": STEPS,
        "steps_done": STEPS,
        "duration_s": 1000.0,
        "device": "cpu",
    }
    (folder / "run.json").write_text(json.dumps(info), encoding="utf-8")
    write_lines(folder / "metrics.jsonl", metric_rows(rng))
    write_lines(
        folder / "timings.jsonl",
        ({"step": step, "rollout_s": 0.8, "train_s": 1.1, "eval_s": 0.1} for step in range(1, STEPS + 1)),
    )
    evaluated = range(EVALUATE_EVERY, STEPS + 1, EVALUATE_EVERY)
    write_lines(folder / "profiles.jsonl", (row for step in evaluated for row in profile_rows(rng, step)))
    for step in evaluated:
        write_lines(folder / "samples" / f"step_{step:06d}.jsonl", sample_rows(rng))


def metric_rows(rng: np.random.Generator) -> Iterable[dict[str, float | None]]:
    """The starting policy's evaluation, then METRICS metrics at every step, two of them at evaluated steps only."""
    others = [f"policy/metric_{place:02d}" for place in range(METRICS - len(NAMED))]
    final = 0.6 + 0.03 * rng.normal()
    for step in range(STEPS + 1):
        row: dict[str, float | None] = {"step": step}
        if step % EVALUATE_EVERY == 0:
            accuracy = 0.36 + (final - 0.36) * min(1.0, step / 300) + (0.01 * rng.normal() if step else 0.0)
            row |= {NAMED[0]: accuracy, NAMED[1]: float(np.sqrt(accuracy * (1 - accuracy) / 1024))}
        if step:
            row |= dict(
                zip((*NAMED[2:], *others), np.exp(rng.normal(-3, 0.5, METRICS - 2)).tolist(), strict=True)
            )
        yield row


def profile_rows(rng: np.random.Generator, step: int) -> Iterable[dict[str, Any]]:
    """A relative and an absolute position profile."""
    for kind, edges in (("relative", np.linspace(0, 1, 21)), ("absolute", 2.0 ** np.arange(8))):
        bins = len(edges) - 1
        columns = ("divergence_mean", "divergence_top_decile", "masked_share", "threshold_mean")
        yield {
            "step": step,
            "kind": kind,
            "edges": edges.tolist(),
            "count": rng.integers(1000, 2000, bins).tolist(),
            **{column: rng.random(bins).tolist() for column in columns},
        }


def sample_rows(rng: np.random.Generator) -> Iterable[dict[str, Any]]:
    """Responses with what was decided of each of their tokens."""
    columns = ("divergence", "weight", "threshold", "ratio", "advantage")
    for place in range(SAMPLES):
        text = [str(digit) for digit in rng.integers(0, 10, RESPONSE_TOKENS)]
        masked = np.where(rng.random(RESPONSE_TOKENS) < 0.1, "threshold", "").tolist()
        yield {
            "prompt": "ana has 30 books, doubles them, gives 3, gets 8, wins 6. how many?\n",
            "completion": "".join(text),
            "answer": "71",
            "parsed": "71" if place % 2 else "41",
            "reward": float(place % 2),
            "advantage": 0.5,
            "length": RESPONSE_TOKENS,
            "finish": "stop",
            "tokens": {
                "text": text,
                "masked": masked,
                **{column: short(rng.random(RESPONSE_TOKENS)) for column in columns},
            },
        }


def short(values: npt.NDArray[np.float64]) -> list[float]:
    """Five decimals, as token records have five digits."""
    return np.round(values, 5).tolist()


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def resident_bytes(process: psutil.Process) -> int:
    """Resident memory of a process and its descendants, as far as they still live."""
    total = 0
    for member in (process, *process.children(recursive=True)):
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def measured(command: list[str]) -> tuple[float, float, int]:
    """Wall and processor seconds and peak resident bytes of a command; raises CalledProcessError when it fails."""
    start = time.perf_counter()
    child = psutil.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while child.poll() is None:
        peak = max(peak, resident_bytes(child))
        time.sleep(0.05)
    taken = time.perf_counter() - start
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    # In kibibytes. Samples may miss a short peak of one process; the kernel does not.
    return taken, usage.ru_utime + usage.ru_stime, max(peak, 1024 * usage.ru_maxrss)


def stage_seconds(output: Path) -> dict[str, float]:
    """Processor seconds of the stages of a report, one after the other in this process."""
    start = time.process_time()
    spent: dict[str, float] = {}

    def ended(stage: str) -> None:
        nonlocal start
        now = time.process_time()
        spent[stage], start = now - start, now

    study = load_study(output, SWEEP)
    ended("reading run folders")
    findings = find(study)
    ended("statistics")
    shown = exhibits(study, findings)
    ended("drawing figures")
    for exhibit in shown:
        if exhibit.figure is not None:
            render(exhibit.name, exhibit.figure, png=True, pdf=True, page=True)
    ended("figures as PNG, PDF and SVG")
    return spent


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Write the sweep, report it, and print what that took."""
    parser = argparse.ArgumentParser(description="Time, memory and size of a report on a large sweep.")
    parser.add_argument("--seeds", type=int, default=20, help="seeds of each of the five methods")
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        output = Path(place)
        write_sweep(output, options.seeds)
        command = [sys.executable, "-m", "cppo_lab", "report", SWEEP, "--output", str(output)]
        wall, processor, peak = measured(command)
        report = output / "reports" / SWEEP
        results: dict[str, Any] = {
            "runs": len(METHODS) * options.seeds,
            "steps": STEPS,
            "metrics": METRICS,
            "run_folders_mib": folder_bytes(output / "runs") / MEBI,
            "wall_s": wall,
            "processor_s": processor,
            "peak_mib": peak / MEBI,
            "page_mib": (report / "index.html").stat().st_size / MEBI,
            "report_mib": folder_bytes(report) / MEBI,
        }
        for name, value in results.items():
            print(f"{name:18}{value:10.1f}" if isinstance(value, float) else f"{name:18}{value:10}")
        stages = stage_seconds(output)
        results["stages_processor_s"] = stages
        print("Processor seconds of single stages, in this process:")
        for stage, spent in stages.items():
            print(f"{stage:30}{spent:8.1f}")
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
