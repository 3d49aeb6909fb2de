"""Verdicts on claims: symmetric rules on paired differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.claims import MARGIN, Claim, Outcome, outcomes, pairs_for_half_width, read_claims, verdict
from analysis.result_files import ResultFile
from analysis.stats import Estimate, paired_t_p, t_interval
from cppo_lab.errors import UserError


def claim(**fields: Any) -> Claim:
    content = {"says": "A is above B", "contrast": "a - b", "expect": "above", **fields}
    return read_claims("mine", [content])[0]


def estimate(low: float, high: float) -> Estimate:
    return Estimate((low + high) / 2, low, high, 9, 0.01)


@pytest.mark.parametrize(
    ("expect", "low", "high", "p", "said"),
    [
        ("above", 0.001, 0.02, 0.04, "agrees"),
        ("above", 0.001, 0.05, 0.06, "not resolved"),  # after Holm
        ("above", -0.01, 0.029, 0.5, "does not agree"),  # three points are excluded
        ("above", -0.01, 0.031, 0.5, "not resolved"),
        ("above", -0.09, -0.01, 0.01, "does not agree"),
        ("below", -0.02, -0.001, 0.04, "agrees"),
        ("below", -0.029, 0.01, 0.5, "does not agree"),
        ("below", -0.031, 0.01, 0.5, "not resolved"),
        ("equal", -0.029, 0.029, 0.9, "agrees"),
        ("equal", 0.001, 0.029, 0.01, "agrees"),  # different, and by less than matters
        ("equal", -0.031, 0.01, 0.9, "not resolved"),
        ("equal", 0.01, 0.05, 0.01, "does not agree"),
        ("equal", -0.05, -0.01, 0.06, "not resolved"),
        ("not zero", 0.01, 0.02, 0.01, "agrees"),
        ("not zero", -0.01, 0.02, 0.4, "not resolved"),
    ],
)
def test_the_rules(expect: str, low: float, high: float, p: float, said: str) -> None:
    assert verdict(claim(expect=expect), estimate(low, high), p) == said


@given(low=st.floats(-0.2, 0.2), width=st.floats(1e-6, 0.2), p=st.floats(0, 1))
def test_above_and_below_are_mirror_images(low: float, width: float, p: float) -> None:
    seen, mirrored = estimate(low, low + width), estimate(-low - width, -low)
    assert verdict(claim(expect="above"), seen, p) == verdict(claim(expect="below"), mirrored, p)
    assert verdict(claim(expect="equal"), seen, p) == verdict(claim(expect="equal"), mirrored, p)


def test_one_pair_resolves_nothing() -> None:
    alone = t_interval(np.array([0.4]))
    assert verdict(claim(), alone, math.nan) == "not resolved"
    assert verdict(claim(), None, math.nan) == "not resolved"


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
        "starting_policy": f"policy{seed}",
        **fields,
    }


def results(*rows: dict[str, str]) -> ResultFile:
    return ResultFile("mine", ("algo", "seed"), rows)


def test_differences_are_of_runs_with_one_seed_and_one_starting_policy() -> None:
    rows = [row("a", seed, 0.5 + 0.1 * seed) for seed in range(4)]
    rows += [row("b", seed, 0.4 + 0.1 * seed) for seed in range(3)]
    # The same recipe on another processor: another policy, which its accuracy tells.
    rows += [row("b", 3, 0.1, start="0.31")]
    (found,) = outcomes([claim()], results(*rows))
    assert found.estimate is not None
    assert found.estimate.n == 3
    assert found.estimate.mean == pytest.approx(0.1)
    assert found.verdict == "agrees"


def test_p_values_of_a_panel_are_adjusted_together() -> None:
    generator = np.random.default_rng(0)
    rows = [
        row(method, seed, value)
        for method, mean in (("a", 0.52), ("b", 0.5), ("c", 0.51))
        for seed, value in enumerate(generator.normal(mean, 0.02, 6))
    ]
    found = outcomes([claim(), claim(contrast="a - c"), claim(contrast="c - b")], results(*rows))
    raw = sorted(outcome.p for outcome in found)
    assert min(outcome.p_holm for outcome in found) == pytest.approx(min(1.0, 3 * raw[0]))
    assert all(outcome.p_holm >= outcome.p for outcome in found)


def test_a_claim_keeps_to_the_panels_it_names() -> None:
    rows = [
        row(method, seed, final, panel=f"regime={regime}", regime=regime)
        for regime in ("mild", "hard")
        for seed in range(3)
        for method, final in (("a", 0.5 + 0.01 * seed), ("b", 0.4))
    ]
    everywhere = outcomes([claim()], results(*rows))
    assert [outcome.panel for outcome in everywhere] == ["regime=mild", "regime=hard"]
    there = outcomes([claim(at={"regime": "hard"})], results(*rows))
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
    (found,) = outcomes([claim(between={"task.steps": [12, 4]})], results(*rows))
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
    found = outcomes([early, spent], results(*rows))
    assert [outcome.estimate.mean for outcome in found if outcome.estimate] == pytest.approx([-0.0115, 0.02])
    assert [outcome.verdict for outcome in found] == ["agrees", "agrees"]


def test_halves_of_one_method_are_compared_in_their_order() -> None:
    rows = [row("a", seed, final) for seed, final in enumerate((0.5, 0.6, 0.4, 0.5))]
    (found,) = outcomes(
        [claim(contrast="a", score="first_minus_second_half", expect="equal")], results(*rows)
    )
    assert found.estimate is not None
    assert (found.estimate.n, found.estimate.mean) == (2, pytest.approx(0.1))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"expect": "better"}, "expect=better: unknown; allowed are above, below, equal, not zero"),
        ({"score": "finale"}, "score=finale: unknown; .*Did you mean 'final'"),
        ({"wher": {}}, "wher: unknown|=wher: unknown"),
        ({"says": 3}, "needs the text 'says'"),
    ],
)
def test_a_claim_that_is_none_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        claim(**fields)


@pytest.mark.parametrize("sd", [0.02, 0.05])
def test_so_many_pairs_give_an_interval_as_narrow_as_the_margin(sd: float) -> None:
    n = pairs_for_half_width(sd, MARGIN)

    def half(count: int) -> float:
        # Two values each side of the mean, scaled to the wanted sample deviation.
        values = np.resize([-1.0, 1.0], count)
        seen = t_interval(values * sd / values.std(ddof=1))
        return (seen.high - seen.low) / 2

    assert half(n) <= MARGIN < half(n - 1)


@pytest.mark.parametrize(
    ("expect", "mean"),
    [("above", 0.005), ("above", -0.01), ("below", 0.01), ("equal", 0.01), ("equal", 0.05)],
)
def test_as_many_pairs_as_are_said_to_be_needed_resolve_it(expect: str, mean: float) -> None:
    def outcome(count: int) -> Outcome:
        values = np.resize([-1.0, 1.0], count)
        seen = t_interval(mean + (values - values.mean()) * 0.06 / values.std(ddof=1))
        p = paired_t_p(mean + (values - values.mean()) * 0.06 / values.std(ddof=1))
        return Outcome(claim(expect=expect), "", seen, p, p)

    few = outcome(6)
    assert few.verdict == "not resolved"
    assert few.needed is not None
    assert few.needed > 6
    assert outcome(few.needed).verdict != "not resolved"
