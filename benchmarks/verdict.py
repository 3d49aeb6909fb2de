"""What a verdict costs: a fixed number of seeds against `sweep --until-resolved`, at the same most seeds and error.

    python benchmarks/verdict.py                                    the spreads of results/tuned_table1.csv
    python benchmarks/verdict.py --seeds 40 --json results.json

Simulated studies of one of `--family` contrasts that share the error, with paired differences that are normal with the
median spread of the committed contrasts. For every true difference: how often it is settled (shown not to be zero, or
to lie within the margin), and the seeds that this took, on average over the studies, settled or not. Processor time
counts two runs and a starting policy for each seed, by the rows' median duration and `--policy` seconds.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

from cppo_lab.analysis.contrasts import ALPHA, pair_up
from cppo_lab.analysis.load.result_files import read_results, run_table
from cppo_lab.analysis.run_table import Run
from cppo_lab.analysis.sequential import Looks, planned_looks
from cppo_lab.analysis.statistics import Array
from cppo_lab.cli.until_resolved import BLOCK
from cppo_lab.tracking.provenance import versions

DIFFERENCES = (0.0, 0.015, 0.03, 0.05, 0.1, 0.2)


def spread(runs: list[Run], baseline: str) -> float:
    """The median standard deviation of the paired differences from the baseline, over panels and methods."""
    found = []
    for panel, method in sorted({(run.panel, run.method) for run in runs if run.method != baseline}):
        sides = (
            [run for run in runs if (run.panel, run.method) == (panel, each)] for each in (method, baseline)
        )
        values = [pair.value for pair in pair_up(*sides).values()]
        if len(values) > 2:
            found.append(float(np.std(values, ddof=1)))
    return float(np.median(found))


def settled_at(differences: Array, looks: Looks) -> tuple[Array, Array]:
    """The seeds after which each study of `differences` [seeds, studies] stops, and whether it is settled then."""
    stops = np.full(differences.shape[1], looks.pairs[-1])
    is_open = np.ones(differences.shape[1], dtype=bool)
    for n, level in zip(looks.pairs, looks.levels, strict=True):
        mean, half = differences[:n].mean(0), differences[:n].std(0, ddof=1) / math.sqrt(n)
        half *= scipy_stats.t.ppf(0.5 + level / 2, n - 1)
        now = is_open & ((np.abs(mean) > half) | (np.abs(mean) + half < looks.margin))
        stops[now] = n
        is_open &= ~now
    return stops, ~is_open


def main() -> None:
    """Run the comparison and print it as a table."""
    parser = argparse.ArgumentParser(description="Fixed seeds against seeds until settled.")
    parser.add_argument("--results", type=Path, default=Path("results/tuned_table1.csv"))
    parser.add_argument("--baseline", default="pg")
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--family", type=int, default=3)
    parser.add_argument("--margin", type=float, default=3.0, help="points")
    parser.add_argument("--studies", type=int, default=20_000)
    parser.add_argument("--policy", type=float, default=60.0, help="seconds of a starting policy")
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers here")
    options = parser.parse_args()
    table = read_results(options.results)
    sd = spread(list(run_table(table).runs), options.baseline)
    a_seed = 2 * float(np.median([float(row["duration_s"]) for row in table.rows])) + options.policy
    pairs = tuple(dict.fromkeys([*range(BLOCK, options.seeds, BLOCK), options.seeds]))
    growing = planned_looks(pairs, options.family, options.margin / 100)
    fixed = Looks((options.seeds,), (1 - ALPHA / options.family,), options.family, options.margin / 100)
    print(f"spread {100 * sd:.1f} points, {options.family} contrasts, at most {options.seeds} seeds")
    heads = ("true difference", "settled: fixed", "growing", "seeds", "core-seconds: fixed", "growing")
    print("".join(f"{head:>{width}}" for head, width in zip(heads, (16, 16, 9, 7, 21, 9), strict=True)))
    results: list[dict[str, Any]] = []
    for truth in DIFFERENCES:
        drawn = truth + sd * np.random.default_rng(0).normal(size=(options.seeds, options.studies))
        (_, of_fixed), (seeds, of_growing) = settled_at(drawn, fixed), settled_at(drawn, growing)
        row = {
            "difference": truth,
            "settled_fixed": float(of_fixed.mean()),
            "settled_growing": float(of_growing.mean()),
            "seeds_growing": float(seeds.mean()),
            "core_s_fixed": options.seeds * a_seed,
            "core_s_growing": float(seeds.mean()) * a_seed,
        }
        results.append(row)
        print(
            f"{100 * truth:13.1f} pt{row['settled_fixed']:16.0%}{row['settled_growing']:9.0%}"
            f"{row['seeds_growing']:7.1f}{row['core_s_fixed']:21.0f}{row['core_s_growing']:9.0f}"
        )
    if options.json is not None:
        about = {
            "spread": sd,
            "family": options.family,
            "seeds": options.seeds,
            "margin": options.margin / 100,
        }
        content = {**about, "seconds_of_a_seed": a_seed, "versions": versions(), "results": results}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
