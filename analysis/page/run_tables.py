"""Tables of what was run: how methods differ, what they cost, every run."""

from __future__ import annotations

import math

import pandas as pd

from cppo_lab.analysis.formatting import NONE, count, percent, plural, seconds
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.page.tables import Cell, Column, Table
from cppo_lab.analysis.summary import Summary
from cppo_lab.config.seed_axes import is_seed_axis

# Sections of the configuration that say what was computed; the rest is in each run's config.yaml.
SECTIONS = ("task", "model", "engine", "trainer", "warmup", "evaluation")
MOST_SHARED = 48


def differences_table(study: Study) -> Table | None:
    """Configuration keys whose value differs between methods, one column per method; None when none does."""
    first = _settings(study).groupby(study.runs["group"], sort=False).head(1)
    labels = study.runs.loc[first.index, "group"]
    if len(first) < 2:
        return None
    first = first.set_axis(labels).loc[[g.label for g in study.grouping.groups if g.label in set(labels)]]
    differing = [str(key) for key in first if first[key].nunique() > 1]
    if not differing:
        return None

    def of_method(label: str) -> Column[str]:
        return Column(label, lambda key: Cell(str(first.at[label, key])), numeric=False)

    key: Column[str] = Column("key", Cell, numeric=False)
    return Table.of(
        "configuration",
        "Configuration keys that differ between methods. A dash: the method does not set the key.",
        (key, *map(of_method, first.index)),
        differing,
    )


def shared_settings(study: Study) -> list[tuple[str, str]]:
    """(key, value) of the settings of task, model, engine, trainer and warm-up that all runs share."""
    settings = _settings(study)
    shared = [
        (str(key), str(values.iloc[0]))
        for key, values in settings.items()
        if str(key).split(".")[0] in SECTIONS and values.nunique() == 1 and values.iloc[0] != NONE
    ]
    return shared[:MOST_SHARED]


def budget_table(study: Study) -> Table:
    """What each method cost: tokens, updates, wall time."""

    def total(group: Group, column: str) -> float:
        return float(_runs(study, group)[column].sum(min_count=1))

    return Table.of(
        "budget",
        "Compute per method, summed over its runs. Split: shares of the measured time in rollout, training and "
        "evaluation.",
        (
            Column("method", lambda group: Cell(group.label, method=group.method), numeric=False),
            Column("runs", lambda group: Cell(str(len(_runs(study, group))), len(_runs(study, group)))),
            Column("optimizer updates", lambda group: Cell.of(total(group, "updates"), count)),
            Column("tokens sampled", lambda group: Cell.of(total(group, "tokens_sampled"), count)),
            Column("tokens trained", lambda group: Cell.of(total(group, "tokens_trained"), count)),
            Column("wall time", lambda group: Cell.of(total(group, "duration_s"), seconds)),
            Column("per run", lambda group: Cell.of(_runs(study, group)["duration_s"].mean(), seconds)),
            Column("rollout / train / eval", lambda group: Cell(_split(study, group))),
        ),
        study.grouping.groups,
    )


def runs_table(study: Study, summary: Summary) -> Table:
    """Every run with its status, failed and unfinished ones included."""
    results = {run.run_id: run for result in summary.results for run in result.runs}

    def score(run: pd.Series, name: str) -> Cell:
        return Cell.of(getattr(results.get(str(run.name)), name, None), percent)

    return Table.of(
        "runs",
        f"Every run of the study ({plural(len(study.runs), 'run')}). Counted: enters the statistics.",
        (
            Column("run", lambda run: Cell(str(run.name)[:12]), numeric=False),
            Column("method", lambda run: Cell(str(run["group"]), method=str(run["method"])), numeric=False),
            Column("seeds", lambda run: Cell(str(run["seeds"]) or NONE), numeric=False),
            Column("status", lambda run: Cell(str(run["status"]).lower()), numeric=False),
            Column("steps", lambda run: Cell(_steps(run), float(run["last_step"]))),
            Column("start", lambda run: Cell.of(run["starting_accuracy"], percent)),
            Column("final", lambda run: score(run, "final")),
            Column("best", lambda run: score(run, "best")),
            Column("time", lambda run: Cell.of(run["duration_s"], seconds)),
            Column("counted", lambda run: Cell("yes" if run["counted"] else "no"), numeric=False),
            Column(
                "reason",
                lambda run: Cell(run["reason"] if isinstance(run["reason"], str) else ""),
                numeric=False,
            ),
        ),
        (run for _, run in study.runs.iterrows()),
    )


def setting(value: object) -> str:
    """A configuration value as text; a dash where the run has none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NONE
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _settings(study: Study) -> pd.DataFrame:
    """The configurations of the runs that have one, as text: one column per key, seeds left out."""
    keys = [column for column in map(str, study.runs.columns) if column.startswith("config.")]
    known = study.runs[keys].dropna(how="all").rename(columns=lambda key: key.removeprefix("config."))
    return known[[key for key in known if not is_seed_axis(str(key))]].map(setting)


def _runs(study: Study, group: Group) -> pd.DataFrame:
    return study.runs[study.runs["group"] == group.label]


def _split(study: Study, group: Group) -> str:
    """`36 / 57 / 7%`: shares of rollout, training and evaluation in the measured time."""
    timings = study.timings[study.timings["run_id"].isin(_runs(study, group).index)]
    shares = [timings[key].sum() if key in timings else 0.0 for key in ("rollout_s", "train_s", "eval_s")]
    total = sum(shares)
    return " / ".join(f"{100 * share / total:.0f}" for share in shares) + "%" if total > 0 else NONE


def _steps(run: pd.Series) -> str:
    planned = run["steps"]
    done = int(run["last_step"])
    return f"{done}" if pd.isna(planned) else f"{done} of {int(planned)}"
