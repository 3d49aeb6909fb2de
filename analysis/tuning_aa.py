"""The A/A check of tuning and testing: two copies of a method, each tuned by itself, must show no difference.

`python -m cppo_lab.analysis.tuning_aa lr_sensitivity` resamples the rows of a study. Each simulated study draws tuning
seeds for either copy, chooses a setting for each as `cppo-lab tune` does, draws test seeds, and contrasts the copies'
final accuracies as those of two methods are. The copies may come to have different settings; a test that knows the test
seeds alone then calls what is noise of the tuning a difference between methods. The share of studies in which a
difference is found is therefore given twice: by the test seeds alone, and with the error of the choice, as the lab's
contrasts of tuned methods have it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cppo_lab.analysis.contrasts import ALPHA, Pair, contrast
from cppo_lab.analysis.load.result_files import read_results, score, seeds_of
from cppo_lab.analysis.statistics import share_interval
from cppo_lab.errors import UserError
from cppo_lab.sweeps.expansion import combinations
from cppo_lab.sweeps.sweep_file import SweepFile, read_sweep
from cppo_lab.sweeps.trials import Setting, place_of, setting_of, tuned_axes
from cppo_lab.sweeps.tune_choice import Scores, choice_error, choose

STUDIES = 200
TEST_SEEDS = 24
FEWEST_SEEDS = 3
Generator = np.random.Generator


@dataclass(frozen=True)
class Check:
    """One method in one panel, tuned on so many `seeds`. The shares are of `studies` simulated studies.

    same_setting: both copies were tuned to one setting. by_test_seeds, with_choice: a difference was found.
    """

    panel: str
    method: str
    seeds: int
    studies: int
    same_setting: float
    by_test_seeds: float
    with_choice: float


def check(
    place: tuple[str, str],
    scores: Scores,
    tuning_seeds: int,
    test_seeds: int,
    studies: int,
    generator: Generator,
) -> Check:
    """Simulated studies of two copies of the method with these scores."""
    same, alone, counted = 0, 0, 0
    for _ in range(studies):
        copies = [_tuned(scores, tuning_seeds, generator) for _ in range(2)]
        first, second = _tested(scores, copies, test_seeds, generator)
        same += copies[0][0] == copies[1][0]
        alone += _p(first, second, copies, with_choice=False) < ALPHA
        counted += _p(first, second, copies, with_choice=True) < ALPHA
    return Check(*place, tuning_seeds, studies, same / studies, alone / studies, counted / studies)


def _tuned(scores: Scores, seeds: int, generator: Generator) -> tuple[Setting, float]:
    """The setting chosen on tuning seeds drawn from the rows, and the error of the choice."""
    known = list(next(iter(scores.values())))
    drawn = generator.choice(known, seeds)
    resampled = {
        setting: {str(place): by_seed[seed] for place, seed in enumerate(drawn)}
        for setting, by_seed in scores.items()
    }
    return choose(resampled), choice_error(resampled) or 0.0


def _tested(
    scores: Scores, copies: Sequence[tuple[Setting, float]], seeds: int, generator: Generator
) -> tuple[list[float], list[float]]:
    """Final accuracies of both copies on test seeds drawn from the rows.

    Copies of one setting would be the same runs: the second then has other seeds, as two runs from one starting policy
    differ, too.
    """
    (one, _), (other, _) = copies
    known = list(scores[one])
    drawn = generator.choice(known, seeds)
    again = drawn if one != other else generator.choice(known, seeds)
    return [scores[one][seed] for seed in drawn], [scores[other][seed] for seed in again]


def _p(
    first: Sequence[float],
    second: Sequence[float],
    copies: Sequence[tuple[Setting, float]],
    with_choice: bool,
) -> float:
    points = [
        frozenset({(str(copy), error)}) if with_choice else frozenset()
        for copy, (_, error) in enumerate(copies)
    ]
    pairs = [
        Pair(one, np.nan, frozenset(), points[0]).minus(Pair(other, np.nan, frozenset(), points[1]))
        for one, other in zip(first, second, strict=True)
    ]
    return contrast("", "", pairs).p


def scores_of(file: SweepFile, path: Path) -> dict[tuple[str, str], dict[Setting, dict[str, float]]]:
    """Final accuracies of a study's rows by (panel, method), on the seeds that every setting has.

    Raises UserError where no place has enough.
    """
    assert file.tune is not None, "only studies have settings"
    runs = combinations(file, [])
    panels, keys = tuned_axes(file, runs), file.tune.keys
    places = {tuple(sorted(run.axes.items())): run for run in runs}
    found: dict[tuple[str, str], dict[Setting, dict[str, float]]] = {}
    for row in read_results(path).rows:
        axes = {axis: row[axis] for axis in runs[0].axes}
        run = places.get(tuple(sorted(axes.items())))
        if run is None or not row["final"]:
            continue
        place = place_of(run, panels)
        name = ", ".join(f"{key}={value}" for key, value in place.panel), place.method
        found.setdefault(name, {}).setdefault(setting_of(run, keys), {})[seeds_of(row)] = score(row, "final")
    complete = {name: _on_shared_seeds(scores) for name, scores in found.items()}
    enough = {n: s for n, s in complete.items() if len(next(iter(s.values()))) >= FEWEST_SEEDS and len(s) > 1}
    if not enough:
        raise UserError(
            f"{path}: no method has {FEWEST_SEEDS} seeds at every setting, which resampling needs at the least."
        )
    return enough


def _on_shared_seeds(scores: Mapping[Setting, Mapping[str, float]]) -> dict[Setting, dict[str, float]]:
    shared = set.intersection(*(set(by_seed) for by_seed in scores.values()))
    return {setting: {seed: by_seed[seed] for seed in sorted(shared)} for setting, by_seed in scores.items()}


def check_study(
    name: str, results: Path, tuning_seeds: int | None, test_seeds: int, studies: int
) -> list[Check]:
    """The check of every method in every panel of a study, on as many tuning seeds as it has unless given.

    Raises UserError for a sweep that is no study, and for too few rows.
    """
    file = read_sweep(name)
    if file.tune is None:
        raise UserError(f"{name}: its sweep file has no 'tune' section.")
    found = scores_of(file, results / f"{file.slug}.csv")
    generator = np.random.default_rng(0)
    return [
        check(place, scores, tuning_seeds or len(next(iter(scores.values()))), test_seeds, studies, generator)
        for place, scores in found.items()
    ]


def table(checks: Sequence[Check]) -> Iterator[str]:
    """The checks as a table in Markdown, with all studies together in the last row.

    The intervals are Clopper and Pearson's of a share of so many studies.
    """
    yield (
        "| panel | method | tuning seeds | studies | same setting | difference found, by test seeds alone | "
        "with the choice | 95% CI |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for each in checks:
        shares = (each.same_setting, each.by_test_seeds, each.with_choice)
        yield f"| {each.panel} | {each.method} | {each.seeds} | {_shares(each.studies, shares)} |"
    means = [
        float(np.mean([getattr(each, name) for each in checks]))
        for name in ("same_setting", "by_test_seeds", "with_choice")
    ]
    yield f"| all | {len(checks)} places | | {_shares(sum(each.studies for each in checks), means)} |"


def _shares(studies: int, shares: Sequence[float]) -> str:
    """The number of studies, the shares, and the interval of the last one."""
    low, high = share_interval(round(shares[-1] * studies), studies)
    told = " | ".join(f"{100 * share:.1f}%" for share in shares)
    return f"{studies} | {told} | {100 * low:.1f} to {100 * high:.1f}%"


def main() -> None:
    """`python -m cppo_lab.analysis.tuning_aa STUDY`."""
    parser = argparse.ArgumentParser(
        description="The A/A check of tuning and testing, on the rows of a study."
    )
    parser.add_argument("study")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--tuning-seeds", type=int, help="(default: as many as the rows have)")
    parser.add_argument("--test-seeds", type=int, default=TEST_SEEDS)
    parser.add_argument("--studies", type=int, default=STUDIES)
    given = parser.parse_args()
    try:
        checks = check_study(given.study, given.results, given.tuning_seeds, given.test_seeds, given.studies)
    except UserError as error:
        sys.exit(f"Error: {error}")
    print("\n".join(table(checks)))


if __name__ == "__main__":
    main()
