"""Time, memory and size of a report on a large sweep.

    python benchmarks/report.py                      100 runs of 500 steps with 60 metrics each
    python benchmarks/report.py --seeds 5            fewer runs
    python benchmarks/report.py --json results.json

Run folders as a sweep leaves them are written into a temporary folder: five methods by `--seeds` seeds, every step with
its metrics, timings and sampled responses, every tenth with an evaluation, position profiles, agreement with other
rules and token records. `cppo-lab report` then runs on them in a process of its own, imports included. Peak memory is
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
import psutil
import yaml

from cppo_lab.analysis.figures.render import render
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.page.exhibits import exhibits
from cppo_lab.analysis.summary import summarise
from cppo_lab.config.compose import compose_run
from cppo_lab.tracking.run_folder import jsonable_config

METHODS = ("pg", "grpo", "cispo", "dppo_topk_tv", "cppo")
WITH_THRESHOLD, WITH_BUDGET = ("dppo_topk_tv", "cppo"), ("cppo",)
SWEEP = "large"
METRICS = 60
STEPS, EVALUATE_EVERY = 500, 10
SAMPLES, RESPONSE_TOKENS = 16, 60
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
    write_lines(folder / "agreement.jsonl", (agreement_row(method, step) for step in evaluated))
    # The same responses at every step: what counts is how much there is to read.
    plain = json_lines(sample_rows(rng, method, with_tokens=False))
    recorded = json_lines(sample_rows(rng, method, with_tokens=True))
    (folder / "samples").mkdir()
    for step in range(1, STEPS + 1):
        path = folder / "samples" / f"step_{step:06d}.jsonl"
        path.write_text(recorded if step in evaluated else plain, encoding="utf-8")


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
        columns = (
            "divergence_mean",
            "divergence_top_decile",
            "masked_share",
            "threshold_mean",
            "induced_threshold_mean",
        )
        yield {
            "step": step,
            "kind": kind,
            "edges": edges.tolist(),
            "count": rng.integers(1000, 2000, bins).tolist(),
            **{column: rng.random(bins).tolist() for column in columns},
        }


def agreement_row(method: str, step: int) -> dict[str, Any]:
    """What the own rule and three others masked of the same tokens."""
    rules = [method, "ppo", "dppo_tv", "cppo_binary"]
    both = [[40 if mine == other else 20 for other in rules] for mine in rules]
    return {"step": step, "rules": rules, "tokens": 9000, "masked": [40] * len(rules), "both": both}


def sample_rows(rng: np.random.Generator, method: str, *, with_tokens: bool) -> Iterable[dict[str, Any]]:
    """Responses, with what was decided of each of their tokens at evaluated steps."""
    for place in range(SAMPLES):
        text = [str(digit) for digit in rng.integers(0, 10, RESPONSE_TOKENS)]
        yield {
            "prompt": "ana has 30 books, doubles them, gives 3, gets 8, wins 6. how many?\n",
            "completion": "".join(text),
            "answer": "71",
            "parsed": "71" if place % 2 else "41",
            "reward": float(place % 2),
            "advantage": 0.5,
            "length": RESPONSE_TOKENS,
            "finish": "stop",
            "tokens": {"text": text, **token_record(rng, method)} if with_tokens else None,
        }


def token_record(rng: np.random.Generator, method: str) -> dict[str, Any]:
    """Numbers of each token of a response; None for what `method` does not have."""
    threshold, budget = method in WITH_THRESHOLD, method in WITH_BUDGET
    reasons = np.array(["", "threshold" if threshold else "", "budget" if budget else ""])

    def column(there: bool) -> list[float] | None:
        # Token records have five digits.
        return np.round(0.3 * rng.random(RESPONSE_TOKENS), 5).tolist() if there else None

    return {
        "anchor": "rollout",
        "delta": 0.15 if threshold else None,
        "divergence": column(threshold),
        "weight": column(budget),
        "threshold": column(threshold),
        "prefix_threshold": column(budget),
        "ratio": column(True),
        "advantage": column(True),
        "masked": rng.choice(reasons, RESPONSE_TOKENS, p=(0.9, 0.05, 0.05)).tolist(),
    }


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """One object per line."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A JSON Lines file."""
    path.write_text(json_lines(rows), encoding="utf-8")


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
    summary = summarise(study)
    ended("statistics")
    shown = exhibits(study, summary)
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
