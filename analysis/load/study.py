"""A study: all runs of a report as data frames, each in its group.

A run that failed, was interrupted or never started stays in the frames with its status; `counted` says whether its
final accuracy enters the statistics.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cppo_lab.analysis.grouping import Grouping, group_runs
from cppo_lab.analysis.load.axes import Axes
from cppo_lab.analysis.load.comparability import Difference, mark
from cppo_lab.analysis.load.run_record import RunRecord, number

# The reason that the trainer gives when it diverges, for a run.json without `diverged`.
_DIVERGED = re.compile(r"diverged at step \d+, update \d+: loss \S+, gradient norm \S+")
# What else the measured accuracy of a policy depends on, besides the task.
_EVALUATED_WITH = ("engine.kind", "engine.batch_size", "trainer.temperature", "trainer.evaluation_problems")
_PROFILE_VALUES = (
    "count",
    "divergence_mean",
    "divergence_top_decile",
    "masked_share",
    "threshold_mean",
    "induced_threshold_mean",
    "mismatch_mean",
)


@dataclass(frozen=True)
class Heading:
    """What a study is called and asks.

    command: the overrides of a sweep given on the command line; empty for a sweep from a file.
    source: where the runs come from; empty for a single sweep.
    claims: the claims of the sweep's file; none where several sweeps are joined.
    tuned: the tuned points that the runs are at, as the sweep's manifest lists them; empty where they are not tuned.
    frozen: when its claims were frozen, and what has changed since, as its manifest says; empty where they were not.
    of_methods: for each method with settings of its own, their axes.
    looks: where seeds were added until the contrasts were settled, the looks as `analysis/sequential.py` records them.
    """

    name: str
    title: str
    question: str = ""
    command: str = ""
    baseline: str | None = None
    window: int | None = None
    created_at: str | None = None
    source: str = ""
    claims: tuple[Mapping[str, Any], ...] = ()
    tuned: Mapping[str, Any] = field(default_factory=dict)
    frozen: Mapping[str, Any] = field(default_factory=dict)
    of_methods: Mapping[str, Sequence[str]] = field(default_factory=dict)
    looks: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Study(Heading):
    """Everything a report reads.

    runs: one row per run, index `run_id`; columns `folder name status reason method panel group policy seeds counted
        seed steps steps_done updates tokens_sampled tokens_trained duration_s attempts model parameters
        active_parameters task starting_recipe starting_seed starting_accuracy device started_at`, and one
        column per resolved configuration key, prefixed `config.`.
    metrics: columns `run_id step` and one per metric key; NaN where a step did not record the key.
    timings: columns `run_id step` and the wall-clock keys.
    profiles: one row per run, step, kind and bin.
    incomparable: the keys that must agree and do not, in a study that was forced.
    """

    grouping: Grouping
    runs: pd.DataFrame
    metrics: pd.DataFrame
    timings: pd.DataFrame
    profiles: pd.DataFrame
    provenance: dict[str, dict[str, Any]]
    notes: tuple[str, ...] = ()
    incomparable: tuple[Difference, ...] = ()

    @property
    def mark(self) -> str:
        """The label of every figure and table where the runs are not comparable; empty where they are."""
        return mark(self.incomparable)


def assemble(
    records: Sequence[RunRecord],
    axes: Axes,
    heading: Heading,
    notes: Sequence[str] = (),
    incomparable: tuple[Difference, ...] = (),
) -> Study:
    """The study of `records`, grouped by their values on `axes`; their unreadable parts are added to the notes."""
    values = {record.run_id: axes.values[record.run_id] for record in records}
    methods = {record.run_id: _method(record) for record in records}
    grouping = group_runs(axes.order, values, methods, heading.of_methods)
    evaluated_alike = _panels_evaluated_alike(records, grouping)
    return Study(
        **vars(heading),
        grouping=grouping,
        runs=pd.DataFrame([_run_row(record, grouping, evaluated_alike) for record in records]).set_index(
            "run_id"
        ),
        metrics=_frame(records, "metrics"),
        timings=_frame(records, "timings"),
        profiles=_profile_frame(records),
        provenance={record.run_id: record.info for record in records},
        notes=(*notes, *(note for record in records for note in record.notes)),
        incomparable=incomparable,
    )


def _run_row(record: RunRecord, grouping: Grouping, evaluated_alike: Collection[str]) -> dict[str, Any]:
    info = record.info
    status = str(info.get("status") or "UNKNOWN").upper()
    reason = str(info["reason"]) if info.get("reason") else None
    start = info.get("starting_policy") or {}
    model = info.get("model") or {}
    tokens = info.get("tokens") or {}
    evaluated = any(
        number(row.get("eval/heldout/accuracy")) is not None for row in record.metrics if row.get("step")
    )
    member = grouping.membership[record.run_id]
    last = max((int(row.get("step") or 0) for row in record.metrics), default=0)
    first = next((row for row in record.metrics if row.get("step") == 0), {})
    starting_accuracy = number(first.get("eval/heldout/accuracy"))
    if starting_accuracy is None:
        starting_accuracy = number(start.get("accuracy"))
    row: dict[str, Any] = {
        "run_id": record.run_id,
        "folder": record.folder,
        "name": str(info.get("name") or record.folder.name),
        "status": status,
        "reason": reason,
        "diverged": status == "FAILED" and _diverged(info),
        "method": member.method,
        "panel": member.panel,
        "group": member.label,
        "policy": _policy(record, starting_accuracy, member.panel in evaluated_alike),
        "seeds": member.seeds,
        "steps": number(info.get("steps")),
        "steps_done": number(info.get("steps_done")) if info.get("steps_done") is not None else float(last),
        "last_step": last,
        "updates": number(info.get("updates")),
        "tokens_sampled": number(tokens.get("sampled")),
        "tokens_trained": number(tokens.get("trained")),
        "duration_s": number(info.get("duration_s")),
        "attempts": number(info.get("attempts")),
        "model": model.get("name"),
        "parameters": number(model.get("parameters")),
        "active_parameters": number(model.get("active_parameters")),
        "task": info.get("task"),
        "starting_recipe": start.get("recipe"),
        "starting_seed": start.get("seed"),
        "starting_accuracy": starting_accuracy,
        "device": info.get("device"),
        "started_at": info.get("started_at"),
    }
    row["counted"] = evaluated and (status == "FINISHED" or bool(row["diverged"]))
    row.update({f"config.{key}": value for key, value in record.config.items()})
    return row


def _panels_evaluated_alike(records: Sequence[RunRecord], grouping: Grouping) -> set[str]:
    """The panels in which all runs evaluate a policy in the same way."""
    ways: dict[str, set[tuple[str, ...]]] = {panel: set() for panel in grouping.panels}
    for record in records:
        if record.config:
            way = tuple(str(record.config.get(key)) for key in _EVALUATED_WITH)
            ways[grouping.membership[record.run_id].panel].add(way)
    return {panel for panel, found in ways.items() if len(found) < 2}


def _policy(record: RunRecord, accuracy: float | None, evaluated_alike: bool) -> str:
    """An identifier of the starting policy."""
    start = record.info.get("starting_policy") or {}
    recipe = f"{start.get('recipe')}|{start.get('seed')}"
    # A pretrained policy is the same on every machine, although rounding may change its accuracy.
    if not evaluated_alike or record.config.get("model.kind") == "pretrained":
        return recipe
    # Two processors train different policies from one recipe; their accuracy tells them apart.
    return f"{recipe}|{accuracy}"


def _diverged(info: Mapping[str, Any]) -> bool:
    """Whether the run failed because a loss or gradient was not finite."""
    known = info.get("diverged")
    return known if isinstance(known, bool) else bool(_DIVERGED.fullmatch(str(info.get("reason"))))


def _method(record: RunRecord) -> str:
    return str(
        record.info.get("method") or record.config.get("algo.name") or record.axes.get("algo") or "run"
    )


def _frame(records: Sequence[RunRecord], name: str) -> pd.DataFrame:
    rows = [
        {"run_id": record.run_id, **row}
        for record in records
        for row in getattr(record, name)
        if "step" in row
    ]
    if not rows:
        return pd.DataFrame({"run_id": pd.Series(dtype=str), "step": pd.Series(dtype=int)})
    frame = pd.DataFrame(rows)
    values = [column for column in frame.columns if column != "run_id"]
    frame[values] = frame[values].apply(pd.to_numeric, errors="coerce")
    frame = frame.dropna(subset=["step"]).astype({"step": int})
    # A resumed run may have written a step twice; it continued from the last one.
    return frame.drop_duplicates(["run_id", "step"], keep="last").sort_values(
        ["run_id", "step"], ignore_index=True
    )


def _profile_frame(records: Sequence[RunRecord]) -> pd.DataFrame:
    # By columns: a long study has hundreds of thousands of bins.
    owners: list[tuple[str, Any, Any]] = []
    sizes: list[int] = []
    columns: dict[str, list[Any]] = {name: [] for name in ("low", "high", *_PROFILE_VALUES)}
    for record in records:
        for profile in record.profiles:
            edges = profile.get("edges") or []
            bins = max(0, len(edges) - 1)
            owners.append((record.run_id, profile.get("step"), profile.get("kind")))
            sizes.append(bins)
            columns["low"] += edges[:bins]
            columns["high"] += edges[1:]
            for name in _PROFILE_VALUES:
                values = (profile.get(name) or [])[:bins]
                columns[name] += [*values, *[None] * (bins - len(values))]
    heads = pd.DataFrame(owners, columns=["run_id", "step", "kind"])
    frame = heads.loc[np.repeat(np.arange(len(owners)), sizes)].reset_index(drop=True)
    for name, values in columns.items():
        frame[name] = pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").astype(float)
    return frame
