"""Groups: the runs of one method that differ only in their seeds.

A group is one setting of every axis that is not a seed. Its `method` has a colour, its `panel` a picture of its own: in
a sweep of algo x learning rate x seed the method is the algorithm and the panel the learning rate.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cppo_lab.analysis.formatting import tidy
from cppo_lab.analysis.safe_text import visible
from cppo_lab.config.seed_axes import is_seed_axis

METHOD_AXES = ("algo", "algo.name")
MOST_LABEL = 40
DEFAULT_BASELINES = ("dppo_topk_tv", "dppo_tv", "grpo", "ppo", "pg")


@dataclass(frozen=True)
class Member:
    """The group of one run; `seeds` is its seed axes as text, the same for runs to be paired."""

    method: str
    panel: str
    label: str
    seeds: str


@dataclass(frozen=True)
class Group:
    """One method under one setting of the remaining axes; `values` holds its non-seed axis values."""

    method: str
    panel: str
    label: str
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Grouping:
    """Groups in the order of the sweep's axes, and the group of every run."""

    groups: tuple[Group, ...]
    membership: dict[str, Member]
    seed_axes: tuple[str, ...]

    @property
    def panels(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(group.panel for group in self.groups))

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(group.method for group in self.groups))

    def in_panel(self, panel: str) -> tuple[Group, ...]:
        return tuple(group for group in self.groups if group.panel == panel)


def group_runs(
    axes: Mapping[str, Sequence[str]],
    run_axes: Mapping[str, Mapping[str, str]],
    methods: Mapping[str, str],
    of_methods: Mapping[str, Sequence[str]] | None = None,
) -> Grouping:
    """Group runs by their axis values; `methods` names the algorithm where no axis does.

    `of_methods` are axes that single methods have: a value on one of them makes a method of its own, and no panel.
    """
    names = list(axes) or list(dict.fromkeys(key for values in run_axes.values() for key in values))
    varying = [name for name in names if not is_seed_axis(name)]
    seeds = tuple(name for name in names if is_seed_axis(name))
    method_axis = next((name for name in METHOD_AXES if name in varying), None)
    algorithms = {
        run: values.get(method_axis, methods[run]) if method_axis else methods[run]
        for run, values in run_axes.items()
    }
    several_methods = method_axis is not None and len(set(algorithms.values())) > 1
    different = _different([name for name in varying if name != method_axis], run_axes.values())
    own = _own_axes(different, run_axes, algorithms, of_methods or {})
    others = [name for name in different if not any(name in owned for owned in own.values())]
    short = short_names(different)

    def told(names: Sequence[str], values: Mapping[str, str]) -> list[str]:
        return [f"{short[name]}={label_of(tidy(values.get(name, '?')))}" for name in names]

    def place(run_id: str) -> tuple[Group, Member]:
        values, plain = run_axes[run_id], algorithms[run_id]
        algorithm = ", ".join([label_of(plain), *told(own[plain], values)])
        rest = ", ".join(told(others, values))
        if several_methods or not others:
            method, panel = algorithm, rest
        else:
            method, panel = rest, ""
        label = ", ".join(part for part in (method, panel) if part)
        kept = ([(method_axis, label_of(plain))] if method_axis else []) + [
            (name, values.get(name, "?")) for name in different
        ]
        seed_text = ", ".join(f"{name}={values.get(name, '?')}" for name in seeds)
        return Group(method, panel, label, tuple(kept)), Member(method, panel, label, seed_text)

    placed = {run_id: place(run_id) for run_id in run_axes}
    found = {group.label: group for group, _ in placed.values()}

    def rank(group: Group) -> tuple[int, ...]:
        values = dict(group.values)
        order = [*others, *([method_axis] if method_axis else []), *different]
        return tuple(_index(axes.get(name, ()), values.get(name, "")) for name in order)

    groups = tuple(sorted(found.values(), key=rank))
    return Grouping(groups, {run_id: member for run_id, (_, member) in placed.items()}, seeds)


def _different(names: Sequence[str], runs: Collection[Mapping[str, str]]) -> list[str]:
    """The axes on which runs differ."""
    return [name for name in names if len({values.get(name) for values in runs}) > 1]


def _own_axes(
    different: Sequence[str],
    run_axes: Mapping[str, Mapping[str, str]],
    algorithms: Mapping[str, str],
    of_methods: Mapping[str, Sequence[str]],
) -> dict[str, list[str]]:
    """For each algorithm, the axes that name its methods: its own, and others' own on which its runs differ, too."""
    owned = {name for names in of_methods.values() for name in names}
    found = {}
    for algorithm in set(algorithms.values()):
        varied = _different(
            different, [run_axes[run] for run, each in algorithms.items() if each == algorithm]
        )
        found[algorithm] = [
            name
            for name in different
            if name in of_methods.get(algorithm, ()) or (name in owned and name in varied)
        ]
    return found


def find_baseline(groups: Sequence[Group], wanted: str | None) -> Group | None:
    """The baseline among the groups of one panel: by method, by label or by an axis value.

    None wanted: the first of dppo_topk_tv, dppo_tv, grpo, ppo, pg that is there, else the first group.
    """
    if wanted is not None:
        return next(
            (
                group
                for group in groups
                if wanted in (group.method, group.label) or wanted in dict(group.values).values()
            ),
            None,
        )
    ranked = (group for name in DEFAULT_BASELINES for group in groups if group.method == name)
    return next(ranked, groups[0] if groups else None)


def has_baseline(grouping: Grouping, wanted: str) -> bool:
    """Whether any group is the baseline."""
    return find_baseline(grouping.groups, wanted) is not None


def distinct_panels(panels: Sequence[str]) -> dict[str, str]:
    """Each panel without what all of several panels share: `regime=mismatch, epochs=4` is `regime=mismatch`."""
    parts = {panel: panel.split(", ") for panel in panels}
    shared = set.intersection(*map(set, parts.values())) if len(parts) > 1 else set()
    return {panel: ", ".join(part for part in each if part not in shared) for panel, each in parts.items()}


def label_of(value: str) -> str:
    """A value as a label of a figure; a long one is cut and made unique by a checksum."""
    shown = visible(value).replace("\n", r"\n").replace("\t", r"\t")
    if len(shown) <= MOST_LABEL:
        return shown
    return f"{shown[: MOST_LABEL - 10]}… {zlib.crc32(value.encode()):08x}"


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The last informative part of each dotted name where that is unambiguous, otherwise the whole name.

    `trainer.lr` becomes lr; a `kind` or `name` says nothing alone, so `task.kind` becomes task.
    """
    telling = [name.removesuffix(".kind").removesuffix(".name").split(".")[-1] for name in names]
    return {
        name: part if telling.count(part) == 1 else name for name, part in zip(names, telling, strict=True)
    }


def _index(values: Sequence[str], value: str) -> int:
    return list(values).index(value) if value in values else len(values)
