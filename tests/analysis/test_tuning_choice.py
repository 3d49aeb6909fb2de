"""The error that comes from how a tuned point was chosen, in contrasts, and the A/A check that it keeps the level."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from tuning_studies import GRID, results, written

from cppo_lab.analysis.contrasts import Contrast, compare, is_beyond_test_seeds
from cppo_lab.analysis.run_table import Run, RunTable
from cppo_lab.analysis.statistics import share_interval
from cppo_lab.analysis.tuned import at_tuned_points
from cppo_lab.analysis.tuning_aa import check, check_study, table
from cppo_lab.errors import UserError
from cppo_lab.sweeps.tune_choice import FAILED, choice_error, choose, edge_of, pruned, regret
from cppo_lab.sweeps.tune_section import Prune

LOW, HIGH = (("trainer.lr", 1e-4),), (("trainer.lr", 2e-4),)


def test_a_choice_that_no_seed_doubts_has_no_error() -> None:
    scores = {LOW: {"1": 0.7, "2": 0.8, "3": 0.6}, HIGH: {"1": 0.6, "2": 0.7, "3": 0.5}}
    assert choose(scores) == LOW
    assert choice_error(scores) == 0.0


def test_the_error_of_a_choice_is_what_other_seeds_would_have_made_of_it() -> None:
    scores = {LOW: {"1": 0.7, "2": 0.5}, HIGH: {"1": 0.6, "2": 0.59}}
    assert choose(scores) == LOW or choose(scores) == HIGH
    # Means 0.6 and 0.595. Both draws of seed 2, a quarter of all, choose the other; n / (n - 1) = 2.
    assert choice_error(scores) == pytest.approx(0.005 * math.sqrt(0.25 * 2), rel=0.1)


def test_one_seed_says_nothing_about_it() -> None:
    assert choice_error({LOW: {"1": 0.7}, HIGH: {"1": 0.5}}) is None


def runs(method: str, finals: list[float]) -> list[Run]:
    return [
        Run(
            run_id=f"{method}{seed}",
            method=method,
            seeds=f"seed={seed}",
            policy="p",
            final=final,
            axes={"algo": method},
        )
        for seed, final in enumerate(finals)
    ]


def points(**errors: float) -> list[dict[str, object]]:
    return [
        {
            "method": name,
            "panel": {"regime": "mild"},
            "setting": {"trainer.lr": 1e-4},
            "choice_error": error,
        }
        for name, error in errors.items()
    ]


def test_a_contrast_counts_the_choices_of_both_methods() -> None:
    one, other = runs("cppo", [0.70, 0.72, 0.71, 0.74]), runs("pg", [0.66, 0.69, 0.66, 0.68])
    plain = compare(one, other, ("cppo", "pg"))
    made = at_tuned_points(RunTable((*one, *other)), points(cppo=0.03, pg=0.04))
    tuned = compare(made.of("", "cppo"), made.of("", "pg"), ("cppo", "pg"))
    assert plain.estimate
    assert tuned.estimate
    assert tuned.estimate.mean == plain.estimate.mean
    own = plain.estimate.sd / 2
    assert tuned.estimate.sd / 2 == pytest.approx(math.hypot(own, 0.05))
    assert plain.p < 0.05 < tuned.p
    # Best steps and shares of masked tokens are no accuracies: their choice has no error in those units.
    assert {run.choice for run in made.runs} != {frozenset()}


def test_more_test_seeds_do_not_average_the_error_of_the_choice_out() -> None:
    generator = np.random.default_rng(5)
    one = runs("cppo", list(0.72 + generator.normal(0, 0.02, 24)))
    other = runs("pg", list(0.70 + generator.normal(0, 0.02, 24)))

    def tuned(error: float) -> Contrast:
        made = at_tuned_points(RunTable((*one, *other)), points(cppo=error, pg=error))
        return compare(made.of("", "cppo"), made.of("", "pg"), ("cppo", "pg"))

    plain, small, large = (tuned(error) for error in (0.0, 0.003, 0.02))
    assert plain.seeds_needed
    assert small.seeds_needed
    assert small.estimate
    # 0.8 power takes 2.8 standard errors, and a little more at so few seeds; one part of the error stays.
    assert plain.seeds_needed < small.seeds_needed < math.inf
    own, shared, n = small.estimate.own_sd, small.estimate.shared, small.seeds_needed
    reached = small.estimate.mean / math.hypot(own / math.sqrt(n), shared)
    assert 2.8 <= reached < 3.5
    assert not small.needs_tuning
    assert large.seeds_needed == math.inf
    assert large.needs_tuning
    # A difference many times as large is detected with the same error.
    assert not is_beyond_test_seeds(large.estimate, 0.2, 1)


def test_a_point_on_both_sides_cancels() -> None:
    one, other = runs("cppo", [0.70, 0.72, 0.74]), runs("cppo", [0.66, 0.69, 0.67])
    made = at_tuned_points(RunTable((*one, *other)), points(cppo=0.03)).runs
    same = compare(made[:3], made[3:], ("a", "b"))
    assert same.estimate == compare(one, other, ("a", "b")).estimate


def test_two_copies_that_are_tuned_apart_differ_by_chance_alone() -> None:
    """Four rates, of which two are nearly as good: four seeds often choose the worse one."""
    generator = np.random.default_rng(1)
    seeds, means = range(40), {5e-5: 0.66, 1e-4: 0.72, 2e-4: 0.735, 4e-4: 0.62}
    of_seed = generator.normal(0, 0.03, len(seeds))
    scores = {
        (("trainer.lr", rate),): {
            f"seed={seed}": mean + of_seed[seed] + generator.normal(0, 0.03) for seed in seeds
        }
        for rate, mean in means.items()
    }
    made = check(("", "pg"), scores, 4, 24, 400, np.random.default_rng(2))
    assert 0.2 < made.same_setting < 0.95
    assert made.by_test_seeds > 0.09
    # 0.05 and two standard errors of a share of 400.
    assert made.with_choice < 0.072


def test_the_check_reads_a_study_and_its_rows(tmp_path: Path) -> None:
    study = written(tmp_path, GRID.replace("[1, 2]", "[1, 2, 3]"))
    results(tmp_path, study, lambda run: 0.5 + 0.01 * run.config.seed + 100 * run.config.trainer.lr)
    checks = check_study(str(study), tmp_path, None, 6, 10)
    assert [(each.panel, each.method, each.same_setting) for each in checks] == [
        ("", "pg", 1.0),
        ("", "grpo", 1.0),
    ]
    assert len(list(table(checks))) == 5


def test_a_seed_that_is_not_complete_is_left_out_of_the_check(tmp_path: Path) -> None:
    study = written(tmp_path, GRID.replace("[1, 2]", "[1, 2, 3, 4]"))
    path = results(tmp_path, study, lambda run: 0.5 + 0.01 * run.config.seed + 100 * run.config.trainer.lr)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:-1]), encoding="utf-8")
    checks = check_study(str(study), tmp_path, None, 6, 100)
    assert [(each.method, each.seeds) for each in checks] == [("pg", 4), ("grpo", 3)]
    *_, grpo, everything = table(checks)
    low, high = share_interval(round(100 * checks[1].with_choice), 100)
    share = f"{100 * checks[1].with_choice:.1f}%"
    assert grpo.startswith("|  | grpo | 3 | 100 | 100.0% |")
    assert grpo.endswith(f"| {share} | {100 * low:.1f} to {100 * high:.1f}% |")
    assert everything.startswith("| all | 2 places | | 200 | 100.0% |")


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    study = written(tmp_path, GRID)
    results(tmp_path, study, lambda run: 0.5)
    with pytest.raises(UserError, match="no method has 3 seeds at every setting"):
        check_study(str(study), tmp_path, None, 6, 10)


def test_a_setting_with_a_failed_run_counts_as_the_worst_and_cannot_be_chosen() -> None:
    far = (("trainer.lr", 4e-4),)
    scores = {
        LOW: {"1": 0.69, "2": 0.5},
        HIGH: {"1": 0.7, "2": 0.6},
        far: {"1": 0.99, "2": FAILED},
    }
    assert choose(scores) == HIGH
    assert choice_error(scores) == choice_error({LOW: scores[LOW], HIGH: scores[HIGH]})
    assert regret(scores, HIGH, far) is None
    assert pruned(scores, Prune(2, 0.03)) == [far]
    # It is at no edge: a larger rate was tried, and is worse.
    assert edge_of([1e-4, 2e-4, 4e-4], 2e-4) == 0
    with pytest.raises(ValueError, match="empty"):
        choose({far: scores[far]})
