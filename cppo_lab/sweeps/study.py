"""The runs of a sweep file: those of its grids and, of a tuning study, every setting that it tries."""

from __future__ import annotations

from collections.abc import Sequence

from cppo_lab.errors import UserError
from cppo_lab.objectives.main_threshold import at_multiple, main_threshold
from cppo_lab.objectives.spec import AlgoSpec
from cppo_lab.sweeps.expansion import Combination, axis_names, combinations, values_set
from cppo_lab.sweeps.sweep_file import SweepFile
from cppo_lab.sweeps.trials import Setting, Trials, first_trials, with_trials
from cppo_lab.sweeps.tune_section import THRESHOLD
from cppo_lab.sweeps.tuned_points import read_tuned_file, tuned_file


def sweep_runs(file: SweepFile, overrides: Sequence[str], trials: Trials | None = None) -> list[Combination]:
    """Every run of a sweep with the command line's overrides.

    Those of a study are at the `trials` given, else at those known beforehand and those that its tuned file says were
    made: values added to a grid, and the trials of a sampler. Raises UserError where none are known yet.
    """
    found = combinations(file, overrides)
    if file.tune is None:
        return found
    if trials is not None:
        return with_trials(file, found, trials)
    if not {*file.tune.over} <= {*axis_names(file, found)}:
        # The command line fixed what the study varies: an ordinary sweep.
        return found
    trials = first_trials(file, found)
    if not any(key in values_set(overrides) for key in file.tune.keys):
        add_recorded(file, trials)
    if not any(trials.settings.values()):
        raise UserError(
            f"sweep {file.slug}: its settings are chosen by {file.tune.sampler} as results come in; "
            f"run cppo-lab tune {file.slug}."
        )
    return with_trials(file, found, trials)


def add_recorded(file: SweepFile, trials: Trials) -> None:
    """Add to the trials those that the study's tuned file, if there is one, says were made."""
    path = tuned_file(file)
    if not path.is_file():
        return
    for point in read_tuned_file(path).points:
        for place, settings in trials.settings.items():
            if place.method == point.method and all(point.panel.get(k) == v for k, v in place.panel):
                tried = [_setting(trials, place.method, each.setting) for each in point.tried]
                settings += [setting for setting in tried if setting not in settings]


def _setting(trials: Trials, method: str, values: object) -> Setting:
    assert isinstance(values, dict), "a tuned file was checked where it is read"
    return tuple((key, float(values[key])) for key in trials.keys(method) if key in values)


def split_multiple(run: Combination) -> tuple[Combination, float]:
    """The run without its multiple of the main threshold, and the multiple; 1 where it has none."""
    text = values_set(run.overrides).get(THRESHOLD)
    if text is None:
        return run, 1.0
    try:
        multiple = float(text)
    except ValueError:
        multiple = 0.0
    if not multiple > 0:
        raise UserError(
            f"{THRESHOLD}={text}: must be a number above 0, a multiple of the published threshold."
        )
    kept = tuple(each for each in run.overrides if each.partition("=")[0] != THRESHOLD)
    return Combination(kept, run.axes), multiple


def threshold_overrides(algo: AlgoSpec, multiple: float) -> tuple[str, ...]:
    """The overrides that put a method's main threshold at a multiple; none at 1. Raises UserError if it has none."""
    if multiple == 1:
        return ()
    if not main_threshold(algo):
        raise UserError(f"{THRESHOLD}={multiple:g}: algo={algo.name} has no main threshold to multiply.")
    return tuple(f"algo.{key}={value:g}" for key, value in at_multiple(algo, multiple).items())
