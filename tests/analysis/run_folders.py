"""Writes run folders as a sweep leaves them: believable curves, and all that may go wrong."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from kept_responses import sample_rows

START = 0.36

# Final accuracy, KL per step, masked by threshold, masked by budget.
BEHAVIOUR: dict[str, tuple[float, float, float, float]] = {
    "pg": (0.10, 0.30, 0.0, 0.0),
    "grpo": (0.61, 0.028, 0.021, 0.0),
    "dppo_tv": (0.59, 0.042, 0.017, 0.0),
    "cppo": (0.605, 0.039, 0.015, 0.026),
}


@dataclass(frozen=True)
class Fault:
    """What is wrong with one run: `status`, `reason` and `diverged` in run.json, and the last step it recorded.

    diverged: None for a run.json that does not say.
    """

    status: str
    reason: str | None
    last_step: int
    diverged: bool | None = False


def write_sweep(
    output: Path,
    *,
    name: str = "quickstart",
    algos: Sequence[str] = ("pg", "grpo", "dppo_tv", "cppo"),
    seeds: Sequence[int] = (0, 1, 2),
    learning_rates: Sequence[float] = (4e-4,),
    faults: Mapping[tuple[str, int], Fault] | None = None,
    only_seed: Mapping[str, int] | None = None,
    missing_metrics: Mapping[str, Sequence[str]] | None = None,
    steps: int = 12,
    evaluate_every: int = 2,
    baseline: str | None = "dppo_tv",
    profiles: bool = True,
    absent: Sequence[tuple[str, int]] = (),
    settings: Mapping[str, Any] | None = None,
    keep_every: int = 1,
) -> list[Path]:
    """Write OUTPUT/sweeps/NAME and its run folders; returns the run folders, absent ones included.

    only_seed: methods that have a single seed; absent: planned runs whose folder does not exist; settings: what the
    sweep overrides for all its runs, by dotted key; keep_every: steps from one whose responses are kept to the next.
    """
    settings = settings or {}
    faults, only_seed, missing_metrics = faults or {}, only_seed or {}, missing_metrics or {}
    entries: list[dict[str, Any]] = []
    folders: list[Path] = []
    for algo in algos:
        for rate in learning_rates:
            for seed in seeds:
                if algo in only_seed and seed != only_seed[algo]:
                    continue
                named = f"{algo}{json.dumps(settings)}" if settings else algo
                run_id = f"{abs(hash_of(named, rate, seed)):012x}"[:12]
                folder = output / "runs" / f"{algo}-{run_id}"
                axes = {"algo": algo, "seed": str(seed)}
                if len(learning_rates) > 1:
                    axes["trainer.lr"] = f"{rate:g}"
                entries.append(
                    {
                        "run_id": run_id,
                        "folder": str(folder.relative_to(output)),
                        "overrides": [f"{key}={value}" for key, value in (settings | axes).items()],
                        "axes": axes,
                    }
                )
                folders.append(folder)
                if (algo, seed) not in absent:
                    write_run(
                        folder,
                        run_id=run_id,
                        algo=algo,
                        seed=seed,
                        rate=rate,
                        steps=steps,
                        evaluate_every=evaluate_every,
                        fault=faults.get((algo, seed)),
                        drop=missing_metrics.get(algo, ()),
                        profiles=profiles,
                        settings=settings,
                        keep_every=keep_every,
                    )
    axes_of_sweep: dict[str, list[Any]] = {"algo": list(algos)}
    if len(learning_rates) > 1:
        axes_of_sweep["trainer.lr"] = [f"{rate:g}" for rate in learning_rates]
    axes_of_sweep["seed"] = list(seeds)
    sweep = {
        "name": name,
        "title": "Which trust region holds under 64 updates per rollout?",
        "question": "Does masking by divergence keep training stable where a free update collapses?",
        "created_at": "2026-09-01T10:00:00+00:00",
        "axes": axes_of_sweep,
        "baseline": baseline,
        "window": None,
        "runs": entries,
        "tracking_uri": "sqlite:///mlflow.db",
        "mlflow_run_id": "0" * 32,
    }
    path = output / "sweeps" / name / "sweep.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sweep), encoding="utf-8")
    return folders


def write_run(
    folder: Path,
    *,
    run_id: str,
    algo: str,
    seed: int,
    rate: float = 4e-4,
    steps: int = 12,
    evaluate_every: int = 2,
    fault: Fault | None = None,
    drop: Sequence[str] = (),
    profiles: bool = True,
    settings: Mapping[str, Any] | None = None,
    keep_every: int = 1,
) -> None:
    """One run folder: config.yaml, run.json, metrics, timings, profiles and the responses kept of its steps."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(abs(hash_of(algo, rate, seed)) % 2**32)
    last = fault.last_step if fault else steps
    status, reason = (fault.status, fault.reason) if fault else ("FINISHED", None)
    config = config_of(algo, seed, rate, steps)
    for key, value in (settings or {}).items():
        *groups, key_of_group = key.split(".")
        node = config
        for group in groups:
            node = node[group]
        node[key_of_group] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    info = {
        "run_id": run_id,
        "name": f"{algo} seed {seed}",
        "status": status,
        "reason": reason,
        "method": algo,
        "seed": seed,
        "starting_policy": {
            "recipe": recipe_of(config),
            "seed": config["warmup"]["seed"],
            "accuracy": START,
        },
        "model": {"name": config["model"]["name"], "parameters": 101_440},
        "task": config["task"]["kind"],
        "steps": steps,
        "steps_done": last,
        "updates": 64 * last,
        "tokens": {"sampled": 9_700 * last, "trained": 38_000 * last},
        "attempts": 1,
        "started_at": "2026-09-01T10:00:00+00:00",
        "ended_at": "2026-09-01T10:00:17+00:00",
        "duration_s": 1.4 * last,
        "device": "cpu",
        "versions": {"python": "3.11.2", "torch": "2.13.0", "numpy": "2.4.6"},
        "git": {"commit": "d146cf0a9e0000000000000000000000000000ff", "dirty": False},
        "result_version": 3,
        "inputs": {},
        "theorem_1": "admitted" if algo == "cppo" else None,
    }
    diverged = fault.diverged if fault else False
    if diverged is not None:
        info["diverged"] = diverged
    (folder / "run.json").write_text(json.dumps(info), encoding="utf-8")
    rows = list(metric_rows(algo, steps, last, evaluate_every, generator, drop))
    _write_lines(folder / "metrics.jsonl", rows)
    _write_lines(
        folder / "timings.jsonl",
        [
            {"step": s, "rollout_s": 0.5, "train_s": 0.8, "eval_s": 0.1, "tokens_per_s": 7_000.0}
            for s in range(1, last + 1)
        ],
    )
    if profiles:
        _write_lines(folder / "profiles.jsonl", list(profile_rows(algo, last, generator)))
        _write_lines(folder / "agreement.jsonl", list(agreement_rows(algo, last)))
        (folder / "masked_tokens.json").write_text(json.dumps(masked_tokens(algo, last)), encoding="utf-8")
    for step in range(keep_every, last + 1, keep_every):
        evaluated = step % evaluate_every == 0 or step == last
        _write_lines(folder / "samples" / f"step_{step:06d}.jsonl", sample_rows(algo, step, evaluated))


def metric_rows(
    algo: str, steps: int, last: int, every: int, generator: np.random.Generator, drop: Sequence[str] = ()
) -> Any:
    """Rows 0..last of metrics.jsonl; row 0 holds evaluation keys alone."""
    final, kl, by_threshold, by_budget = BEHAVIOUR.get(algo, (0.5, 0.05, 0.02, 0.0))
    target = final + generator.normal(0, 0.03)
    for step in range(last + 1):
        row: dict[str, Any] = {"step": step}
        if step % every == 0 or step == last:
            share = min(1.0, step / (0.7 * steps))
            bump = 0.12 * np.sin(np.pi * min(1.0, 2.2 * share)) if final < START else 0.0
            accuracy = (
                START + (target - START) * share**0.8 + bump + (generator.normal(0, 0.015) if step else 0.0)
            )
            accuracy = float(np.clip(accuracy, 0.0, 1.0))
            row |= {
                "eval/heldout/accuracy": accuracy,
                "eval/heldout/stderr": float(np.sqrt(accuracy * (1 - accuracy) / 1000)),
                "eval/heldout/length_mean": 38.0,
                "eval/heldout/truncated_share": 0.01,
            }
        if step:
            spread = float(np.exp(generator.normal(0, 0.35)))
            spike = 400.0 if algo == "pg" and step == 8 else 1.0
            noise = generator.normal(0, 0.03)
            masked = by_threshold + by_budget
            row |= {
                "train/reward_mean": float(np.clip(START + (target - START) * step / steps, 0, 1)),
                "train/loss": float(generator.normal(0, 0.01)),
                "train/surrogate": float(generator.normal(0, 0.01)),
                "train/grad_norm": float(0.5 * spread * (1 + (6 * step / steps if final < START else 0))),
                "train/grad_clipped_share": 0.1,
                "train/updates": 64,
                "train/lr": 4e-4,
                "train/zero_variance_groups": 3,
                "policy/k1_vs_rollout": kl * spread * 0.9,
                "policy/k2_vs_rollout": kl * spread,
                "policy/k3_vs_rollout": kl * spread * spike,
                "policy/tv_vs_rollout": min(1.0, 0.6 * float(np.sqrt(kl * spread))),
                "policy/divergence": 0.03 if masked else None,
                "policy/ratio_max_vs_rollout": 9.0 * spread,
                "policy/entropy": float(
                    max(0.02, 0.55 * np.exp(-step / steps * (2.2 if final > START else -0.8)) + noise)
                ),
                "mask/share": masked * spread,
                "mask/share_threshold": by_threshold * spread,
                "mask/share_budget": by_budget * spread,
                "mask/budget_share": by_budget / masked if masked else None,
                "budget/effective": 0.03 if by_budget else None,
                "rollout/length_mean": 38 + (20 * step / steps if final < START else 2 * noise),
                "rollout/length_max": 64,
                "grader/correct": 100.0,
                "grader/wrong": 156.0,
                "rollout/truncated_share": 0.01,
                "mismatch/logp_absdiff_mean": 1e-6,
                "mismatch/logp_absdiff_p99": 5e-6,
                "mismatch/logp_absdiff_max": 1e-5,
            }
        yield {key: value for key, value in row.items() if key not in drop}


def profile_rows(algo: str, last: int, generator: np.random.Generator) -> Any:
    """Relative (20 bins) and absolute (power-of-two bins) position profiles every fourth step."""
    _, kl, by_threshold, by_budget = BEHAVIOUR.get(algo, (0.5, 0.05, 0.02, 0.0))
    for step in range(4, last + 1, 4):
        for kind, edges in (
            ("relative", np.linspace(0, 1, 21)),
            ("absolute", np.array([0.0, 1, 2, 4, 8, 16, 32, 64])),
        ):
            middle = np.linspace(0, 1, len(edges) - 1)
            divergence = np.sqrt(kl) * (0.15 + 0.3 * middle) * np.exp(generator.normal(0, 0.05, middle.shape))
            yield {
                "step": step,
                "kind": kind,
                "edges": edges.tolist(),
                "count": np.full(middle.shape, 480).tolist(),
                "divergence_mean": divergence.tolist(),
                "divergence_top_decile": (4 * divergence).tolist(),
                "masked_share": (by_threshold * (1.6 - middle) + by_budget * 1.8 * middle).tolist(),
                "threshold_mean": (0.15 / (1 - 0.2 * middle)).tolist()
                if by_threshold
                else [None] * len(middle),
                "induced_threshold_mean": (0.15 / (1 - 0.2 * middle) ** 2).tolist()
                if by_threshold
                else [None] * len(middle),
                "mismatch_mean": (1e-6 * (1 + middle)).tolist(),
            }


def agreement_rows(algo: str, last: int) -> Any:
    """Every fourth step: the own rule masks 40 of 1,000 tokens, the other 60, of which 30 are the same."""
    for step in range(4, last + 1, 4):
        yield {
            "step": step,
            "rules": [algo, "another_rule"],
            "tokens": 1000,
            "masked": [40, 60],
            "both": [[40, 30], [30, 60]],
        }


def masked_tokens(algo: str, last: int) -> dict[str, Any]:
    """Of 1,000 tokens per step, a method masks its shares; digits twice as often as operators, the end never."""
    _, _, by_threshold, by_budget = BEHAVIOUR.get(algo, (0.5, 0.05, 0.02, 0.0))

    def cells(shares: Mapping[str, tuple[float, float]]) -> dict[str, list[float]]:
        return {
            name: [
                round(1000 * last * of_tokens),
                round(1000 * last * by_threshold * of_masked),
                round(1000 * last * by_budget * of_masked),
                500 * last * of_tokens,
                800 * last * by_threshold * of_masked,
                800 * last * by_budget * of_masked,
            ]
            for name, (of_tokens, of_masked) in shares.items()
        }

    return {
        "steps": last,
        "columns": ["tokens", "threshold", "budget", "weight", "threshold_weight", "budget_weight"],
        "tokens_left_out": 0,
        "total": cells({"all": (1.0, 1.0)})["all"],
        "cells": {
            "token": cells({"7": (0.2, 0.5), "1": (0.3, 0.2), "+": (0.3, 0.3), "<eos>": (0.2, 0.0)}),
            "class": cells({"digit": (0.5, 0.7), "operator": (0.3, 0.3), "end": (0.2, 0.0)}),
            "position": cells({"0 to 10%": (0.5, 0.2), "90 to 100%": (0.5, 0.8)}),
            "entropy": cells({"below 0.01": (0.6, 0.1), "0.3 to 1": (0.3, 0.5), "2 or more": (0.1, 0.4)}),
            "probability": cells({"0.1 to 0.5": (0.4, 0.9), "0.99 or more": (0.6, 0.1)}),
            "sign": cells({"negative": (0.6, 0.8), "positive": (0.4, 0.2)}),
        },
    }


def config_of(algo: str, seed: int, rate: float, steps: int) -> dict[str, Any]:
    """Resolved configuration of one run, nested."""
    region = {"pg": "none", "grpo": "ratio_clip", "dppo_tv": "divergence_threshold"}.get(
        algo, "prefix_budget"
    )
    return {
        "algo": {
            "name": algo,
            "anchor": "old" if algo == "grpo" else "rollout",
            "divergence": {"kind": "none" if algo in ("pg", "grpo") else "binary_tv"},
            "trust_region": {"kind": region, "delta": None if algo in ("pg", "grpo") else 0.15},
            "aggregation": {"kind": "token_mean"},
        },
        "model": {"kind": "scratch", "name": "s", "width": 64, "layers": 2},
        "task": {"kind": "chain", "steps": 4, "heldout": 1000},
        "trainer": {
            "lr": rate,
            "steps": steps,
            "prompts_per_step": 32,
            "group_size": 8,
            "prompts_per_minibatch": 2,
            "epochs": 4,
            "temperature": 1.0,
            "evaluate_every": 2,
            "grad_clip": 1.0,
        },
        "engine": {"kind": "native", "weights": "same"},
        "seeds": {"prompts": seed, "sampling": seed + 1000, "minibatches": seed + 2000},
        "seed": seed,
        "warmup": {"seed": 0, "steps": 1300, "lr": 4e-3},
    }


def recipe_of(config: Mapping[str, Any]) -> str:
    """The identity of the starting policy: the same for runs that agree in model, task and warm-up."""
    content = json.dumps([config[group] for group in ("model", "task", "warmup")], sort_keys=True)
    return f"{zlib.crc32(content.encode()):08x}"


def hash_of(algo: str, rate: float, seed: int) -> int:
    """A number that is the same in every process, unlike Python's own hash of strings."""
    value = 1469598103934665603
    for character in f"{algo}|{rate:g}|{seed}":
        value = ((value ^ ord(character)) * 1099511628211) % 2**48
    return value


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
