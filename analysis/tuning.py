"""Tuned points from the results of a tuning study: its rounds replayed on the rows that there are."""

from __future__ import annotations

import copy
import datetime
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cppo_lab.analysis.load.result_files import read_results, rows_of, score
from cppo_lab.analysis.load.result_sets import Row
from cppo_lab.analysis.load.scores import score_runs
from cppo_lab.analysis.load.sources import NothingToReport, load_study
from cppo_lab.analysis.run_table import ACCURACY
from cppo_lab.config.compose import compose_runs
from cppo_lab.config.default_choices import default_choice
from cppo_lab.config.identity import run_ids
from cppo_lab.config.schema import RunConfig
from cppo_lab.config.seed_axes import is_seed_axis
from cppo_lab.errors import UserError
from cppo_lab.files import file_sha256
from cppo_lab.sweeps.expansion import combinations, values_set
from cppo_lab.sweeps.study import split_multiple, threshold_overrides
from cppo_lab.sweeps.sweep import PlannedRun, Sweep, plan_sweep
from cppo_lab.sweeps.sweep_file import SweepFile
from cppo_lab.sweeps.trials import (
    Place,
    Setting,
    first_trials,
    place_of,
    setting_text,
    tuned_axes,
    with_setting,
)
from cppo_lab.sweeps.tune_choice import (
    FAILED,
    PRUNE_LEVEL,
    Scores,
    choice_error,
    choosable,
    choose,
    failures,
    mean_of,
    regret,
)
from cppo_lab.sweeps.tune_rounds import Study, Widening, seeds_wanted
from cppo_lab.sweeps.tune_section import THRESHOLD, TuneSection
from cppo_lab.sweeps.tuned_points import REGIME, Published, Tried, TunedPoint, TunedPoints

RULE = (
    "the highest mean final accuracy over the tuning seeds; among equals the smaller values, "
    "in the order of the keys"
)
Rows = Mapping[str, Row]
"""Rows of result files by run id."""


@dataclass
class Request:
    """What `cppo-lab tune` is asked: a study and the command line's overrides."""

    file: SweepFile
    overrides: tuple[str, ...]
    config_dir: Path | None = None
    given: tuple[str, ...] = ()
    composed: dict[tuple[str, ...], RunConfig] = field(default_factory=dict)
    """Configurations of earlier rounds by their overrides: a later round has mostly the same runs."""

    @property
    def section(self) -> TuneSection:
        """The file's `tune:` section."""
        assert self.file.tune is not None, "only studies are tuned"
        return self.file.tune


@dataclass
class Round:
    """One round of a study: its sweep at the settings so far, and the runs that are wanted and have no result."""

    sweep: Sweep
    missing: list[PlannedRun]
    scores: dict[Place, dict[Setting, dict[str, float]]] = field(default_factory=dict)
    used: list[Row] = field(default_factory=list)


def begin(request: Request) -> Study:
    """The study before its first round. Raises UserError for whatever is wrong with its section."""
    found = combinations(request.file, request.overrides)
    axes = tuned_axes(request.file, found)
    bases = {place_of(run, axes): split_multiple(with_setting(run, request.section, ()))[0] for run in found}
    configs = compose_runs([run.overrides for run in bases.values()], request.config_dir)
    study = Study(first_trials(request.file, found), dict(zip(bases, configs, strict=True)))
    study.ask({})
    return study


def plan_round(request: Request, study: Study, rows: Rows) -> Round:
    """The runs at the settings so far, with the results that there are and are wanted."""
    sweep = plan_sweep(request.file, request.overrides, request.config_dir, study.trials, request.composed)
    runs: dict[Place, dict[Setting, dict[str, PlannedRun]]] = {}
    for run in sweep.runs:
        place, setting = _place(run, request.section), _setting(run, request.section, study)
        runs.setdefault(place, {}).setdefault(setting, {})[_seeds(run)] = run
    here = Round(sweep, [])
    for place, by_setting in runs.items():
        found = {
            (s, seed): _row_of(run, rows)
            for s, by_seed in by_setting.items()
            for seed, run in by_seed.items()
        }
        seeds = list(dict.fromkeys(seed for by_seed in by_setting.values() for seed in by_seed))
        known = here.scores[place] = {setting: {} for setting in by_setting}
        for (setting, seed), row in found.items():
            if row is not None:
                known[setting][seed] = score(row, "final") if row["final"] else FAILED
        wanted = seeds_wanted(study.trials.settings[place], known, seeds, request.section.prune)
        for setting, count in wanted.items():
            # A pruned setting may have been run on more seeds than it needed.
            known[setting] = {seed: known[setting][seed] for seed in seeds[:count] if seed in known[setting]}
            here.missing += [
                by_setting[setting][seed] for seed in seeds[:count] if seed not in known[setting]
            ]
            here.used += [row for seed in seeds[:count] if (row := found[setting, seed]) is not None]
    # In the order of the sweep: whole seeds first.
    places = {run.run_id: place for place, run in enumerate(sweep.runs)}
    here.missing.sort(key=lambda run: places[run.run_id])
    return here


def rounds(
    request: Request, rows: Callable[[Sweep | None], Rows], run_missing: Callable[[Round], None] | None
) -> tuple[Study, Round]:
    """Every round of a study to its end. `run_missing` trains the runs of a round; without it nothing is run.

    Without it a grid is widened only as far as there are results. Raises UserError where other results are missing, and
    where every setting of a method failed.
    """
    study = begin(request)
    here = plan_round(request, study, rows(None))
    while True:
        while here.missing:
            if run_missing is None:
                raise _incomplete(request, here)
            run_missing(here)
            here = plan_round(request, study, rows(here.sweep))
        if study.ask(here.scores):
            here = plan_round(request, study, rows(here.sweep))
            continue
        _refuse_without_choice(request, here)
        wanted = study.wanted_widenings(here.scores)
        if run_missing is None:
            wanted = [each for each in wanted if _has_results(request, study, each, rows(None))]
        if not wanted:
            return study, here
        for each in wanted:
            study.widen(each)
        here = plan_round(request, study, rows(here.sweep))


def _has_results(request: Request, study: Study, wanted: Widening, rows: Rows) -> bool:
    tried = Study(copy.deepcopy(study.trials), study.configs)
    tried.widen(wanted)
    return not plan_round(request, tried, rows).missing


def tuned_points(request: Request, study: Study, here: Round) -> TunedPoints:
    """The chosen setting of every method in every panel, with what it was chosen from."""
    assert request.file.path is not None, "a study is a file"
    text = "\n".join(sorted(f"{row['run_id']} {row['final']}" for row in here.used))
    return TunedPoints(
        study=request.file.slug,
        keys=request.section.keys,
        seeds=tuple(sorted({run.config.seed for run in here.sweep.runs})),
        rule=RULE,
        given=request.given,
        chosen_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commits=tuple(sorted({row.get("commit", "") for row in here.used} - {""})),
        study_sha256=file_sha256(request.file.path),
        rows_sha256=hashlib.sha256(text.encode()).hexdigest(),
        points=tuple(_point(request, study, here, place) for place in study.trials.settings),
    )


def _point(request: Request, study: Study, here: Round, place: Place) -> TunedPoint:
    scores = here.scores[place]
    chosen = choose(scores)
    run = next(
        run
        for run in here.sweep.runs
        if _place(run, request.section) == place and _setting(run, request.section, study) == chosen
    )
    mean = mean_of(list(scores[chosen].values()))
    choices = {
        "model": run.config.model.name,
        "task": run.config.task.kind,
        REGIME: values_set(run.overrides).get(REGIME, default_choice(REGIME)),
    }
    return TunedPoint(
        panel={**dict(place.panel), **{k: v for k, v in choices.items() if k not in dict(place.panel)}},
        method=place.method,
        overrides=_overrides(study, place, chosen),
        setting=dict(chosen),
        accuracy=round(mean.value, 5),
        stderr=_rounded(mean.error),
        choice_error=_rounded(choice_error(scores)),
        trials=len(study.trials.settings[place]),
        published=_published(request.section, study, place, scores),
        notes=tuple(_notes(request.section, study, here, place)),
        tried=tuple(_tried(setting, scores) for setting in sorted(study.trials.settings[place])),
    )


def _tried(setting: Setting, scores: Scores) -> Tried:
    if failures(scores[setting]):
        return Tried(dict(setting), None, None, len(scores[setting]))
    mean = mean_of(list(scores[setting].values()))
    return Tried(dict(setting), round(mean.value, 5), _rounded(mean.error), mean.seeds)


def _overrides(study: Study, place: Place, setting: Setting) -> tuple[str, ...]:
    """What the setting sets, with the threshold as its value."""
    multiple = dict(setting).get(THRESHOLD, 1.0)
    own = [f"{key}={value:g}" for key, value in setting if key != THRESHOLD]
    return (*own, *threshold_overrides(study.configs[place].algo, multiple))


def _published(section: TuneSection, study: Study, place: Place, scores: Scores) -> Published:
    """The setting that the sweep has without tuning, unless its section names it."""
    named = dict(section.published) if section.published else {}
    values = {THRESHOLD: 1.0} | named
    for key in section.keys:
        if key not in values:
            values[key] = _number_at(key, study.configs[place])
    setting = tuple((key, values[key]) for key in study.trials.keys(place.method))
    known = scores.get(setting)
    less = regret(scores, choose(scores), setting)
    return Published(
        dict(setting),
        round(mean_of(list(known.values())).value, 5) if known and not failures(known) else None,
        None if less is None else round(less.value, 5),
        None if less is None else _rounded(less.error),
    )


def _number_at(key: str, config: Any) -> float:
    found = config
    for part in key.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, int | float) or isinstance(found, bool):
        raise UserError(f"tune: {key}: must be a key with a number, to be tuned.")
    return float(found)


def _notes(section: TuneSection, study: Study, here: Round, place: Place) -> list[str]:
    """What a reader of the choice must know: an edge, what was widened, what was pruned."""
    notes = []
    added = {
        each.key: sorted(w.value for w in study.widened if (w.panel, w.key) == (place.panel, each.key))
        for each in study.widened
        if each.panel == place.panel
    }
    notes += [f"{key} widened to {', '.join(f'{v:g}' for v in values)}" for key, values in added.items()]
    for at, key, side in study.edges({place: here.scores[place]}):
        assert at == place, "the edges of one place were asked for"
        word = "lowest" if side < 0 else "highest"
        times = sum((w.panel, w.key, w.side) == (place.panel, key, side) for w in study.widened)
        after = f", after widening {times} times" if times else ""
        notes.append(f"at the edge: {key} is the {word} that was tried{after}; the best may lie beyond")
    seeds = {setting: len(by_seed) for setting, by_seed in here.scores[place].items()}
    if max(seeds.values()) == 1:
        notes.append("one tuning seed: the error of the choice is unknown, and intervals leave it out")
    failed = {setting: n for setting, by_seed in here.scores[place].items() if (n := failures(by_seed))}
    notes += [
        f"failed: {n} of {seeds[setting]} seeds at {setting_text(setting)}, which has no mean and cannot be chosen"
        for setting, n in sorted(failed.items())
    ]
    dropped = sorted(
        setting for setting, n in seeds.items() if n < max(seeds.values()) and setting not in failed
    )
    if dropped and section.prune:
        told = "; ".join(f"{setting_text(each)} after {seeds[each]} seeds" for each in dropped)
        notes.append(
            f"pruned, below the best by more than {100 * section.prune.margin:g} points with {100 * PRUNE_LEVEL:g}% "
            f"confidence: {told}"
        )
    return notes


def rows_from_results(*paths: Path) -> Rows:
    """The rows of result files by run id, the first file's where several have a run; empty without the files."""
    return {row["run_id"]: row for path in reversed(paths) for row in read_results(path).rows}


def rows_from_folders(sweep: Sweep) -> Rows:
    """The rows of a sweep's runs in its output folder, as a result file would have them.

    A run that diverged before its first evaluation has one without a final accuracy. One that its machine failed or
    that was interrupted has none: it is to be resumed.
    """
    sweep.write_manifest()
    try:
        study = load_study(sweep.output, sweep.name)
    except NothingToReport:
        counted: Rows = {}
    else:
        counted = {row["run_id"]: row for row in rows_of(study, score_runs(study)[0]).rows}
    return {run.run_id: _failed_row(run) for run in sweep.runs if _has_failed(run)} | dict(counted)


def _has_failed(run: PlannedRun) -> bool:
    """Whether it diverged before its first evaluation: it would do so again."""
    info = run.folder.info
    return info.get("status") == "FAILED" and info.get("diverged") is True and not was_evaluated(run)


def was_evaluated(run: PlannedRun) -> bool:
    """Whether a run has an evaluation after that of its starting policy."""
    return any(ACCURACY in row and row["step"] for row in run.folder.rows("metrics.jsonl"))


def _failed_row(run: PlannedRun) -> Row:
    git = run.folder.info.get("git") or {}
    return {
        "run_id": run.run_id,
        "status": "FAILED",
        "final": "",
        "commit": str(git.get("commit") or "")[:12],
    }


def _row_of(run: PlannedRun, rows: Rows) -> Row | None:
    """The row of a run, from a machine of any kind; None where it has none, or one without a final accuracy although
    it did not fail.
    """
    found = rows.get(run.run_id) if rows else None
    if found is None and rows:
        found = next((rows[each] for each in sorted(run_ids(run.config)) if each in rows), None)
    return found if found is not None and (found.get("final") or found.get("status") == "FAILED") else None


def _refuse_without_choice(request: Request, here: Round) -> None:
    for place, scores in here.scores.items():
        if not choosable(scores):
            panel = ", ".join(f"{key}={value}" for key, value in place.panel)
            raise UserError(
                f"tune {request.file.slug}: {place.method}{f' ({panel})' if panel else ''}: every setting that was "
                "tried has a run that diverged before its first evaluation; try smaller values."
            )


def _place(run: PlannedRun, section: TuneSection) -> Place:
    tuned = (*section.keys, "algo")
    panel = tuple((axis, v) for axis, v in run.axes.items() if axis not in tuned and not is_seed_axis(axis))
    return Place(panel, run.axes.get("algo") or values_set(run.overrides)["algo"])


def _setting(run: PlannedRun, section: TuneSection, study: Study) -> Setting:
    method = run.axes.get("algo") or values_set(run.overrides)["algo"]
    return tuple((key, float(run.axes[key])) for key in study.trials.keys(method))


def _seeds(run: PlannedRun) -> str:
    return " ".join(f"{axis}={value}" for axis, value in run.axes.items() if is_seed_axis(axis))


def _incomplete(request: Request, here: Round) -> UserError:
    first = here.missing[0]
    wanted = len(here.missing) + len(here.used)
    return UserError(
        f"tune {request.file.slug}: {len(here.missing)} of the {wanted} runs that the choice needs have no result, the "
        f"first of them {first.label}; run cppo-lab tune {request.file.slug}, or choose on fewer seeds, as by "
        "'seed=range(0,4)'."
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 5)
