"""Small tuning studies with made-up results: what is chosen depends on the numbers alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cppo_lab.analysis.load.result_files import ResultFile, write_results
from cppo_lab.analysis.run_table import SCORES
from cppo_lab.sweeps.expansion import combinations
from cppo_lab.sweeps.sweep import PlannedRun, plan_sweep
from cppo_lab.sweeps.sweep_file import read_sweep
from cppo_lab.sweeps.trials import Trials, first_trials
from cppo_lab.sweeps.tuned_points import (
    Published,
    Tried,
    TunedPoint,
    TunedPoints,
    read_tuned_file,
    write_tuned,
)

GRID = """
title: A grid of rates
question: Which rate?
tune: {over: [trainer.lr]}
overrides: [trainer.steps=2, tracking=none]
axes:
  algo: [pg, grpo]
  regime: [many_updates]
  seed: [1, 2]
  trainer.lr: [5.0e-5, 1.0e-4, 2.0e-4, 4.0e-4]
"""
SPACE = """
title: Rates and thresholds
question: Which of both?
tune:
  trials: 6
  sampler: {sampler}
  space: {{trainer.lr: {{low: 5.0e-5, high: 4.0e-4, log: true}}, threshold: [1, 4]}}
overrides: [trainer.steps=2, tracking=none, regime=many_updates]
axes: {{algo: [pg, dppo_topk_tv], seed: [1, 2]}}
"""
TEST = """
title: At its best
question: Which?
tuned: rates
overrides: [trainer.steps=2, tracking=none, regime=many_updates]
axes: {algo: [pg, cppo], seed: [11, 12]}
"""
Final = Callable[[PlannedRun], float]


def written(folder: Path, text: str, name: str = "rates") -> Path:
    """The study as a sweep file."""
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def row_of(run: PlannedRun, final: float) -> dict[str, str]:
    """A row of a result file with this final accuracy."""
    scores = dict.fromkeys(SCORES, "")
    return {
        "run_id": run.run_id,
        "panel": "",
        "method": run.config.algo.name,
        **run.axes,
        "status": "FINISHED",
        **scores,
        "final": f"{final:.7g}",
        "starting_policy": f"start {run.config.seed}",
        **dict.fromkeys(("accuracy", "budget", "deviation"), ""),
        "commit": "0123456789ab",
    }


def results(path: Path, study: Path, final: Final, trials: Callable[[Trials], None] | None = None) -> Path:
    """Rows for every run of a study at its first trials, as `trials` changes them, in `path`/NAME.csv."""
    file = read_sweep(str(study))
    made = first_trials(file, combinations(file, []))
    if trials is not None:
        trials(made)
    runs = plan_sweep(file, ["paths.output=nowhere"], None, made).runs
    rows = tuple(row_of(run, final(run)) for run in runs)
    target = path / f"{study.stem}.csv"
    write_results(target, ResultFile(study.stem, tuple(runs[0].axes), rows))
    return target


def point(
    method: str, rate: float, *more: str, regime: str = "many_updates", notes: tuple[str, ...] = ()
) -> TunedPoint:
    setting = {"trainer.lr": rate}
    return TunedPoint(
        panel={"regime": regime, "model": "s", "task": "chain"},
        method=method,
        overrides=(f"trainer.lr={rate:g}", *more),
        setting=setting,
        accuracy=0.7,
        stderr=0.01,
        choice_error=0.005,
        trials=3,
        published=Published({"trainer.lr": 4e-4}, 0.4, 0.3, 0.02),
        notes=notes,
        tried=(Tried(setting, 0.7, None, 1),),
    )


POINTS = (point("pg", 1e-4), point("cppo", 2e-4, "algo.trust_region.delta=0.3"))


def points_in(folder: Path, *points: TunedPoint) -> TunedPoints:
    path = folder / "tuned" / "rates.yaml"
    made = TunedPoints(
        "rates", ("trainer.lr",), (1, 2), "rule", (), "2026-11-28T15:00:00+00:00", ("a",), "b", "c", points
    )
    write_tuned(path, made)
    return read_tuned_file(path)
