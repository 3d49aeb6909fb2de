"""`sweep --until-resolved`: seeds in blocks, for the contrasts that are not settled yet."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cppo_lab.cli.console import console
from cppo_lab.errors import UserError

if TYPE_CHECKING:
    from cppo_lab.analysis.sequential import Looks
    from cppo_lab.analysis.summary import PanelSummary
    from cppo_lab.executors.settings import Local, Ray, Submitit
    from cppo_lab.sweeps.adhoc import Naming
    from cppo_lab.sweeps.sweep import PlannedRun, Sweep

BLOCK = 4
"""Seeds that are added at a time."""
DEFAULT_MARGIN = 3.0
DEFAULT_SEEDS = 24


@dataclass(frozen=True)
class Until:
    """Differences within `margin` points count as none; a contrast gets at most `seeds` seeds."""

    margin: float
    seeds: int


def until(wanted: bool, margin: float | None, seeds: int | None) -> Until | None:
    """What the options ask for. Raises UserError for one that has no effect, or for too few seeds."""
    if not wanted:
        for option, value in (("--margin", margin), ("--max-seeds", seeds)):
            if value is not None:
                raise UserError(f"{option} {value:g}: only applies with --until-resolved.")
        return None
    seeds = DEFAULT_SEEDS if seeds is None else seeds
    if seeds < BLOCK:
        raise UserError(f"--max-seeds {seeds}: must be at least {BLOCK}, the seeds of the first look.")
    return Until(DEFAULT_MARGIN if margin is None else margin, seeds)


@dataclass(frozen=True)
class Growing:
    """A sweep at all the seeds it may take, in order, and its looks.

    overrides: what plans it; labels: the group of every run id.
    """

    sweep: Sweep
    overrides: Sequence[str]
    seeds: tuple[int, ...]
    looks: Looks
    labels: Mapping[str, str]

    def due(self, pairs: int, unsettled: Collection[str] | None) -> list[PlannedRun]:
        """The runs at the first seeds of all methods, or of those in a contrast that is not settled."""
        from cppo_lab.sweeps.expansion import values_set
        from cppo_lab.sweeps.fresh_seeds import SEED

        seeds = set(map(str, self.seeds[:pairs]))
        return [
            run
            for run in self.sweep.runs
            if values_set(run.overrides)[SEED] in seeds
            and (unsettled is None or self.labels[run.run_id] in unsettled)
        ]

    def in_words(self) -> str:
        """What the looks are, and what ends them."""
        from cppo_lab.analysis.formatting import listed, plural

        at, family = listed([str(pairs) for pairs in self.looks.pairs]), plural(self.looks.family, "contrast")
        return (
            f"That is the most. The {family} of a panel are looked at with {at} seeds, and those that are above, below "
            f"or within {100 * self.looks.margin:g} points take no more."
        )

    def of(self, run_ids: Collection[str]) -> Sweep:
        """The sweep as if it had these runs alone."""
        return replace(self.sweep, runs=tuple(run for run in self.sweep.runs if run.run_id in run_ids))


def sweep_until_resolved(
    growing: Growing, jobs: int | None, report: bool, executor: Local | Submitit | Ray | None
) -> bool:
    """Run blocks of seeds until every contrast with the baseline is settled; False if a run or the report failed."""
    from cppo_lab.analysis.formatting import listed
    from cppo_lab.analysis.load.sources import load_study
    from cppo_lab.analysis.summary import summarise
    from cppo_lab.cli.sweep_runs import check_runs, finish, train_runs, train_waiting

    check_runs(growing.sweep, is_here=executor is None or executor.kind == "local")
    made: set[str] = set()
    unsettled: set[str] | None = None
    for pairs in growing.looks.pairs:
        made |= {run.run_id for run in growing.due(pairs, unsettled)}
        so_far = growing.of(made)
        so_far.write_manifest(looks=growing.looks.record())
        told = "all methods" if unsettled is None else listed(sorted(unsettled))
        console().print(f"{pairs} seeds of {told}:", soft_wrap=True)

        def start(waiting: Sequence[PlannedRun], planned: Sweep = so_far) -> Mapping[str, str]:
            return train_runs(planned, waiting, jobs, executor).failed

        if not train_waiting(so_far, start):
            finish(so_far, report)
            return False
        panels = summarise(load_study(so_far.output, so_far.name)).panels
        unsettled = _unsettled(panels, growing.looks)
        _print(panels, growing.looks)
        if not unsettled:
            break
    return finish(so_far, report)


def plan_growing(
    name: str, overrides: Sequence[str], config_dir: Path | None, naming: Naming | None, asked: Until
) -> Growing:
    """The sweep at the most seeds, and its looks.

    Raises UserError for a sweep without seeds, with nothing to compare, with several settings of one method to choose
    from, or that Hydra would start.
    """
    from cppo_lab.analysis.sequential import planned_looks
    from cppo_lab.cli.checked_sweep import checked_sweep
    from cppo_lab.sweeps.expansion import hydra_settings
    from cppo_lab.sweeps.fresh_seeds import SEED, planned_seeds, seeds_override

    settings = hydra_settings(overrides)
    if settings:
        raise UserError(
            f"{settings[0]}: Hydra's launchers start all runs at once, and no seeds after a look."
        )
    own, _ = checked_sweep(name, overrides, config_dir, naming)
    _refuse_choices(own)
    first = sorted(map(int, planned_seeds(own)))
    seeds = tuple([*first, *range(first[-1] + 1, first[-1] + 1 + asked.seeds)][: asked.seeds])
    others = [each for each in overrides if each.lstrip("+").partition("=")[0] != SEED]
    grown_by = [*others, seeds_override(seeds)]
    grown, _ = checked_sweep(name, grown_by, config_dir, naming)
    # The claims of a file are about its own seeds, all of them.
    sweep = replace(grown, file=replace(grown.file, claims=()))
    labels, contrasts = _groups(sweep)
    if not contrasts:
        raise UserError(f"sweep {sweep.name}: has one method, and nothing to compare it with.")
    pairs = tuple(dict.fromkeys([*range(BLOCK, asked.seeds, BLOCK), asked.seeds]))
    return Growing(sweep, grown_by, seeds, planned_looks(pairs, contrasts, asked.margin / 100), labels)


def _refuse_choices(sweep: Sweep) -> None:
    from cppo_lab.analysis.claims import Planned
    from cppo_lab.analysis.grids import tuning_axes

    varied = tuning_axes([Planned("", "", "", run.axes) for run in sweep.runs])
    if varied:
        raise UserError(
            f"sweep {sweep.name}: varies {varied[0]}, and which of several settings is a method's best is not settled "
            f"seed by seed; give one, as {varied[0]}=…, or a sweep of tuned methods."
        )


def _groups(sweep: Sweep) -> tuple[dict[str, str], int]:
    """The group of every run id, and the most contrasts with the baseline that a panel has."""
    from cppo_lab.analysis.grouping import group_runs

    axes = {run.run_id: run.axes for run in sweep.runs}
    methods = {run.run_id: run.config.algo.name for run in sweep.runs}
    grouping = group_runs(sweep.axes, axes, methods, sweep.file.of_methods)
    most = max(len(grouping.in_panel(panel)) for panel in grouping.panels)
    return {run: member.label for run, member in grouping.membership.items()}, most - 1


def _unsettled(panels: Sequence[PanelSummary], looks: Looks) -> set[str]:
    """The groups of contrasts that are not settled."""
    from cppo_lab.analysis.sequential import decision

    open_ones = [
        each for panel in panels for each in panel.contrasts if decision(each, looks.margin) == "open"
    ]
    return {label for each in open_ones for label in (each.treatment, each.baseline) if label}


def _print(panels: Sequence[PanelSummary], looks: Looks) -> None:
    from cppo_lab.analysis.formatting import points, points_range
    from cppo_lab.analysis.verdict_text import decision_in_words

    for each in (contrast for panel in panels for contrast in panel.contrasts):
        seen = each.estimate
        told = "no pairs" if seen is None else f"{points(seen.mean)} ({points_range(seen)}), n = {each.n}"
        console().print(
            f"  {each.treatment} against {each.baseline}: [bold]{decision_in_words(each, looks)}[/], {told}",
            soft_wrap=True,
        )
