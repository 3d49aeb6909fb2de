"""Verdicts on claims: symmetric rules on paired differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuned_runs import over_rates

from cppo_lab.analysis.claim_tests import ClaimTest, check_claims, p_values, together
from cppo_lab.analysis.claims import Claim, Planned, read_claims
from cppo_lab.analysis.contrasts import ALPHA, Contrast, Pair
from cppo_lab.analysis.load.result_files import ResultFile, run_table
from cppo_lab.analysis.run_table import RunTable
from cppo_lab.analysis.statistics import Estimate, t_interval
from cppo_lab.errors import UserError


def claim(**fields: Any) -> Claim:
    content = {"says": "A is above B", "contrast": "a - b", "expect": "above", **fields}
    return read_claims("mine", [content])[0]


def seen(mean: float, half: float, count: int = 16) -> Estimate:
    """An estimate whose 95% interval reaches `half` to each side."""
    values = np.resize([-1.0, 1.0], count)
    values *= half / t_interval(values).high
    return t_interval(values + mean)


def outcome_of(expect: str, estimate: Estimate, **fields: Any) -> ClaimTest:
    made = claim(expect=expect, **fields)
    alone = p_values(made, estimate)
    pairs = (Pair(estimate.mean, 0.0, frozenset()),) * estimate.n
    return ClaimTest(made, "", Contrast("a", "b", pairs, estimate), estimate.n, alone, alone)


@pytest.mark.parametrize(
    ("expect", "mean", "half", "said"),
    [
        ("above", 0.021, 0.02, "holds"),
        ("above", 0.019, 0.02, "inconclusive"),
        ("above", 0.009, 0.02, "does not hold"),  # three points are excluded
        ("above", 0.011, 0.02, "inconclusive"),
        ("above", -0.05, 0.01, "does not hold"),
        ("below", -0.021, 0.02, "holds"),
        ("below", -0.009, 0.02, "does not hold"),
        ("below", -0.011, 0.02, "inconclusive"),
        ("equal", 0.009, 0.02, "holds"),
        ("equal", 0.011, 0.02, "inconclusive"),
        ("equal", 0.031, 0.02, "does not hold"),
        ("equal", 0.015, 0.01, "holds"),  # different, and by less than matters
        ("not zero", 0.021, 0.02, "holds"),
        ("not zero", 0.011, 0.02, "inconclusive"),
        ("not zero", 0.009, 0.02, "does not hold"),
    ],
)
def test_the_rules(expect: str, mean: float, half: float, said: str) -> None:
    assert outcome_of(expect, seen(mean, half)).verdict == said


@given(mean=st.floats(-0.1, 0.1), half=st.floats(1e-4, 0.1))
def test_above_and_below_are_mirror_images(mean: float, half: float) -> None:
    there, mirrored = seen(mean, half), seen(-mean, half)
    assert outcome_of("above", there).verdict == outcome_of("below", mirrored).verdict
    assert outcome_of("equal", there).verdict == outcome_of("equal", mirrored).verdict


@given(mean=st.floats(-0.1, 0.1), half=st.floats(1e-4, 0.1))
def test_a_claim_and_its_contrary_are_never_both_right(mean: float, half: float) -> None:
    there = seen(mean, half)
    assert [outcome_of(way, there).verdict for way in ("above", "below")] != ["holds", "holds"]


def test_one_pair_resolves_nothing() -> None:
    assert outcome_of("above", t_interval(np.array([0.4]))).verdict == "inconclusive"
    nothing = p_values(claim(), None)
    assert ClaimTest(claim(), "", Contrast("a", "b", (), None), 4, nothing, nothing).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("expect", "mean", "half", "is_opposite"),
    [
        ("above", -0.021, 0.02, True),
        ("above", -0.019, 0.02, False),  # three points are excluded, zero is not
        ("above", 0.009, 0.02, False),
        ("below", 0.021, 0.02, True),
        ("below", -0.009, 0.02, False),
        ("above", 0.021, 0.02, False),  # holds
    ],
)
def test_the_opposite_is_told_from_an_advantage_that_is_excluded(
    expect: str, mean: float, half: float, is_opposite: bool
) -> None:
    assert outcome_of(expect, seen(mean, half)).is_opposite is is_opposite


def row(method: str, seed: int, final: float, **fields: str) -> dict[str, str]:
    return {
        "run_id": f"{method}{seed}",
        "panel": "",
        "method": method,
        "algo": method,
        "seed": str(seed),
        "status": "FINISHED",
        "start": "0.3",
        "final": repr(float(final)),
        "final_error": "0.001",
        "starting_policy": f"policy{seed}",
        **fields,
    }


def results(*rows: dict[str, str]) -> RunTable:
    axes = tuple(key for key in rows[0] if key in ("algo", "seed", "regime", "task.steps"))
    return run_table(ResultFile("mine", axes, rows))


def planned(*rows: dict[str, str]) -> list[Planned]:
    """A plan of just the runs that were made."""
    return [Planned(each["panel"], each["method"], f"seed={each['seed']}", each) for each in rows]


def held(claims: list[Claim], *rows: dict[str, str]) -> list[ClaimTest]:
    return check_claims(claims, results(*rows), planned(*rows))


def test_differences_are_of_runs_with_one_seed_and_one_starting_policy() -> None:
    rows = [row("a", seed, 0.5 + 0.1 * seed) for seed in range(4)]
    rows += [row("b", seed, 0.4 + 0.1 * seed) for seed in range(3)]
    # The same recipe on another processor: another policy, which its accuracy tells.
    rows += [row("b", 3, 0.1, start="0.31")]
    (found,) = held([claim()], *rows)
    assert found.estimate is not None
    assert found.estimate.n == 3
    assert found.estimate.mean == pytest.approx(0.1)
    assert found.verdict == "holds"


def test_a_pretrained_policy_is_the_same_whatever_its_accuracy_was_found_to_be() -> None:
    rows = [
        row(method, seed, 0.5, starting_policy="hash (pretrained)", start=f"0.3{seed}{int(method == 'a')}")
        for seed in range(3)
        for method in "ab"
    ]
    (found,) = held([claim()], *rows)
    assert found.estimate is not None
    assert found.estimate.n == 3


def test_p_values_of_a_panel_are_adjusted_for_all_its_claims_those_without_runs_included() -> None:
    generator = np.random.default_rng(0)
    rows = [
        row(method, seed, value)
        for method, mean in (("a", 0.52), ("b", 0.5))
        for seed, value in enumerate(generator.normal(mean, 0.01, 6))
    ]
    (alone,) = held([claim()], *rows)
    with_another = [*planned(*rows), *(Planned("", "c", f"seed={seed}", {}) for seed in range(6))]
    first, second = check_claims([claim(), claim(contrast="a - c")], results(*rows), with_another)
    assert 0 < alone.adjusted.holds < 0.2
    assert first.adjusted.holds == pytest.approx(2 * alone.adjusted.holds)
    assert (second.estimate, second.planned, second.verdict) == (None, 6, "inconclusive")


def test_fewer_pairs_than_planned_are_interim() -> None:
    rows = [
        row(method, seed, 0.5 + 0.1 * (method == "a") + seed / 1000) for seed in range(4) for method in "ab"
    ]
    (whole,) = held([claim()], *rows)
    (part,) = check_claims([claim()], results(*rows[:6]), planned(*rows))
    assert (whole.is_interim, part.is_interim) == (False, True)
    assert (part.planned, part.estimate and part.estimate.n) == (4, 3)


def test_spread_is_never_smaller_than_the_evaluations_error() -> None:
    rows = [row(method, seed, 0.51 if method == "a" else 0.5) for seed in range(4) for method in "ab"]
    (found,) = held([claim()], *rows)
    assert found.estimate is not None
    assert found.estimate.sd == pytest.approx(math.hypot(0.001, 0.001))


@pytest.mark.parametrize(
    "fields",
    [
        {"contrast": "a - c"},
        {"contrast": "a-b"},
        {"at": {"regme": "hard"}},
        {"between": {"seed": ["0", "99"]}},
    ],
)
def test_a_claim_that_no_planned_run_answers_is_refused(fields: dict[str, Any]) -> None:
    rows = [row(method, seed, 0.5) for seed in range(3) for method in "ab"]
    with pytest.raises(UserError, match="the sweep plans no runs for"):
        held([claim(**fields)], *rows)


def test_a_claim_keeps_to_the_panels_it_names() -> None:
    rows = [
        row(method, seed, final, panel=f"regime={regime}", regime=regime)
        for regime in ("mild", "hard")
        for seed in range(3)
        for method, final in (("a", 0.5 + 0.01 * seed), ("b", 0.4))
    ]
    everywhere = held([claim()], *rows)
    assert [outcome.panel for outcome in everywhere] == ["regime=mild", "regime=hard"]
    there = held([claim(at={"regime": "hard"})], *rows)
    assert [outcome.panel for outcome in there] == ["regime=hard"]


def test_between_is_a_difference_of_differences_by_seed() -> None:
    rows = [
        row(
            method,
            seed,
            final,
            panel=f"steps={steps}",
            starting_policy=f"{steps}-{seed}",
            **{"task.steps": steps},
        )
        for steps, gap in (("4", 0.01), ("12", 0.06))
        for seed in range(4)
        for method, final in (("a", 0.5 + gap + 0.001 * seed), ("b", 0.5))
    ]
    (found,) = held([claim(between={"task.steps": [12, 4]})], *rows)
    assert found.estimate is not None
    assert (found.estimate.n, found.panel) == (4, "task.steps: 12 against 4")
    assert found.estimate.mean == pytest.approx(0.05)


def test_other_scores_are_read_from_their_columns() -> None:
    rows = [
        row(
            "a",
            seed,
            0.5,
            deviation_early="0.01",
            deviation_late=f"{0.02 + seed / 1000}",
            budget="1:0.04 12:0.02",
        )
        for seed in range(4)
    ]
    early = claim(contrast="a", score="deviation_early_minus_late", expect="not zero")
    spent = claim(contrast="a", score="budget_start_minus_end")
    found = held([early, spent], *rows)
    assert [outcome.estimate.mean for outcome in found if outcome.estimate] == pytest.approx(
        [-0.73, 0.02], abs=0.01
    )
    assert [outcome.verdict for outcome in found] == ["holds", "holds"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"expect": "better"}, "expect=better: unknown; allowed are above, below, equal, not zero"),
        ({"score": "finale"}, "score=finale: unknown; .*Did you mean 'final'"),
        ({"wher": {}}, "wher: unknown|=wher: unknown"),
        ({"says": 3}, "needs the text 'says'"),
        ({"between": {"k": ["12"]}}, "between=.*: must be one axis with a list of two"),
        ({"between": {"k": "12"}}, "must be one axis with a list of two"),
        ({"between": "x"}, "must be one axis with a list of two"),
        ({"at": "foo"}, "at=foo: must be a mapping"),
        ({"headline": "false"}, "headline=false: must be true or false"),
        ({"than": "x"}, "than=x: must be a number"),
    ],
)
def test_a_claim_that_is_none_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        claim(**fields)


@pytest.mark.parametrize(
    ("expect", "mean"),
    [("above", 0.012), ("above", -0.01), ("below", 0.01), ("equal", 0.0), ("equal", 0.01), ("equal", 0.05)],
)
def test_as_many_pairs_as_are_said_to_be_needed_resolve_it_four_times_in_five(
    expect: str, mean: float
) -> None:
    def outcome(values: np.ndarray) -> ClaimTest:
        return outcome_of(expect, t_interval(values))

    values = np.resize([-1.0, 1.0], 6)
    few = outcome(mean + values * 0.06 / values.std(ddof=1))
    assert few.verdict == "inconclusive"
    generator = np.random.default_rng(0)
    for needed, kind in ((few.needed_to_hold, "holds"), (few.needed_to_fail, "fails")):
        if needed is None or needed > 200:
            continue
        draws = [
            getattr(outcome(generator.normal(mean, 0.06, int(needed))).alone, kind) < ALPHA
            for _ in range(1000)
        ]
        assert np.mean(draws) == pytest.approx(0.8, abs=0.05)
    assert few.needed_to_hold or few.needed_to_fail


def test_pairs_needed_are_none_where_the_mean_speaks_against_it_and_endless_where_it_is_near_nothing() -> (
    None
):
    below, none = outcome_of("above", seen(-0.01, 0.1)), outcome_of("above", seen(1e-6, 0.1))
    assert below.needed_to_hold is None
    assert below.needed_to_fail is not None
    assert none.needed_to_hold == math.inf


def test_two_runs_of_a_method_with_one_seed_and_starting_policy_are_refused() -> None:
    rows = [row(method, seed, 0.5) for seed in range(3) for method in "ab"]
    with pytest.raises(UserError, match=r"a at seed=1: two runs \(a1, other\)"):
        held([claim()], *rows, row("a", 1, 0.6, run_id="other"))


def test_what_two_sweeps_ask_of_the_same_runs_is_tested_once_on_all_of_them() -> None:
    rows = [row(method, seed, 0.5 + (method == "a") * 0.01 * seed) for seed in range(8) for method in "ab"]
    (few,), (all_,) = held([claim()], *rows[:8]), held([claim()], *rows)
    (other,) = held([claim(score="best")], *({**each, "best": each["final"]} for each in rows))
    (twin,) = held([claim()], *rows)
    first, second, third, fourth = together([few, all_, other, twin])
    assert few.verdict == "inconclusive"
    assert all_.verdict == "holds"
    assert (first.repeats, first.verdict) == (second, "holds")
    assert (second.repeats, third.repeats, fourth.repeats) == (None, None, second)


def test_a_verdict_stands_where_it_stays_when_adjusted_for_all_tests() -> None:
    def found(mean: float, name: str) -> ClaimTest:
        values = [
            row(method, seed, 0.5 + (method == name) * (mean + 0.004 * (seed % 2)))
            for seed in range(6)
            for method in (name, "b")
        ]
        return held([claim(contrast=f"{name} - b")], *values)[0]

    clear, marginal = found(0.05, "a"), found(0.0003, "c")
    assert (clear.verdict, marginal.verdict) == ("holds", "holds")
    assert 0.02 < marginal.alone.holds < 0.05
    assert [each.stands for each in together([clear, marginal])] == [True, True]
    crowd = together([clear, marginal, *(found(-0.002, name) for name in "defgh")])
    assert [each.stands for each in crowd[:2]] == [True, False]


def tuned(axis: str | None = None, measure: str = "at_best", expect: str = "above", **fields: Any) -> Claim:
    content = {
        "measure": measure,
        "contrast": "cppo - pg",
        "expect": expect,
        **({"axis": axis} if axis else {}),
    }
    return claim(**content, **fields)


def planned_of(table: RunTable) -> list[Planned]:
    return [Planned(run.panel, run.method, run.seeds, run.axes) for run in table.runs]


def verdict_on(asked: Claim, table: RunTable) -> ClaimTest:
    (test,) = check_claims([asked], table, planned_of(table))
    return test


CURVES = {"pg": [0.66, 0.74, 0.66, 0.40], "cppo": [0.70, 0.80, 0.82, 0.70]}


@pytest.mark.parametrize("measure", ["at_best", "same_kl", "credited"])
def test_a_claim_about_methods_at_their_best_is_tested_in_the_panel_of_all_rates(measure: str) -> None:
    table = over_rates(CURVES, kl={"cppo": 0.5}, noise=0.005, seeds=10, panel="regime=mild")
    test = verdict_on(tuned(measure=measure), table)
    assert (test.panel, test.planned, test.contrast.n) == ("regime=mild", 10, 10)
    assert test.verdict == "holds"
    assert test.estimate is not None
    assert test.estimate.mean == pytest.approx(0.08, abs=0.01)


def test_credit_needs_every_control() -> None:
    # At its best cppo is level with no rule, and above it at the same KL.
    table = over_rates(
        {"pg": [0.66, 0.74, 0.66, 0.40], "cppo": [0.50, 0.66, 0.74, 0.70]},
        kl={"cppo": 0.9},
        noise=0.005,
        seeds=10,
    )
    assert verdict_on(tuned(measure="same_kl"), table).verdict == "holds"
    assert verdict_on(tuned(measure="credited"), table).verdict == "does not hold"


def test_a_claim_about_good_ranges_is_in_octaves() -> None:
    table = over_rates({"pg": [0.6, 0.7, 0.6, 0.4], "cppo": [0.6, 0.7, 0.7, 0.6]}, noise=0.003, seeds=10)
    test = verdict_on(tuned(axis="trainer.lr", measure="good_range"), table)
    assert test.verdict == "holds"
    assert test.estimate is not None
    assert test.estimate.mean == pytest.approx(1.0, abs=0.1)
    assert not test.claim.is_of_accuracy


def test_a_range_that_may_go_on_shows_only_one_side() -> None:
    table = over_rates({"pg": [0.6, 0.7, 0.6, 0.4], "cppo": [0.7, 0.7, 0.7, 0.7]}, noise=0.003, seeds=10)
    wider = tuned(axis="trainer.lr", measure="good_range")
    assert verdict_on(wider, table).verdict == "holds"
    mirrored = over_rates({"cppo": [0.6, 0.7, 0.6, 0.4], "pg": [0.7, 0.7, 0.7, 0.7]}, noise=0.003, seeds=10)
    assert verdict_on(wider, mirrored).verdict == "does not hold"
    open_too = over_rates({"cppo": [0.7, 0.7, 0.7, 0.7], "pg": [0.7, 0.7, 0.6, 0.4]}, noise=0.003, seeds=10)
    outcome = verdict_on(wider, open_too)
    assert outcome.verdict == "inconclusive"
    assert outcome.remark == "cppo and pg good up to the end of what was tried"


def test_a_measure_without_runs_waits_for_them() -> None:
    table = over_rates(CURVES)
    (test,) = check_claims([tuned()], RunTable(), planned_of(table))
    assert (test.verdict, test.planned, test.contrast.n) == ("inconclusive", 6, 0)


def test_a_measure_that_the_sweep_does_not_plan_is_refused() -> None:
    with pytest.raises(UserError, match="plans no runs for cppo - pg"):
        check_claims([tuned()], RunTable(), [Planned("", "cppo", "seed=0", {"algo": "cppo"})])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"measure": "best_of_all"}, "measure: unknown|measure=best_of_all"),
        ({"measure": "good_range"}, "axis=None: must name the axis"),
        ({"measure": "at_best", "axis": "trainer.lr"}, "axis=trainer.lr: must name the axis"),
        ({"axis": "trainer.lr"}, "axis=trainer.lr: goes with measure=good_range alone"),
        ({"measure": "at_best", "score": "best"}, "score=best: goes with a score"),
        ({"measure": "at_best", "contrast": "cppo"}, "compares two methods"),
        ({"measure": "credited", "expect": "equal"}, "can only be expected above"),
    ],
)
def test_a_malformed_measure_is_refused(fields: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        claim(**fields)
