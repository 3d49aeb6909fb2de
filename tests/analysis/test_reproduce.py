"""Agreement of fresh seeds with committed rows: error rates by simulation, three verdicts, three sentences."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from tiny_runs import ROOT

from cppo_lab.analysis.claims import read_claims
from cppo_lab.analysis.contrasts import ALPHA, POWER, Contrast, Pair, contrast
from cppo_lab.analysis.load.result_files import read_results, run_table
from cppo_lab.analysis.reproduce import (
    AGREES,
    CANNOT_TELL,
    DISAGREES,
    Replication,
    adjusted,
    detectable,
    moved,
    replications,
    seeds_to_agree,
)
from cppo_lab.analysis.reproduce_text import conclusion, power, sentence
from cppo_lab.analysis.run_table import RunTable
from cppo_lab.sweeps.expansion import combinations, values_set
from cppo_lab.sweeps.fresh_seeds import FIRST_FRESH_SEED, fresh_seeds
from cppo_lab.sweeps.sweep_file import read_sweep, sweep_names

SPREAD, MARGIN = 0.08, 0.03


def of(values: np.ndarray) -> Contrast:
    pairs = (Pair(float(value), math.nan, frozenset([str(place)])) for place, value in enumerate(values))
    return contrast("a", "b", pairs)


def drawn(
    generator: np.random.Generator, shift: float, committed: int, fresh: int, spread: float = SPREAD
) -> Replication:
    """One simulated reproduction whose true difference is `shift`."""
    known = of(generator.normal(0.05, spread, committed))
    new = of(generator.normal(0.05 + shift, spread, fresh))
    return adjusted([Replication("a is above b", "", known, new, MARGIN)])[0]


def rate(verdict: str, shift: float, committed: int, fresh: int, spread: float = SPREAD) -> float:
    """How often simulated reproductions come to a verdict."""
    generator = np.random.default_rng(17)
    found = [drawn(generator, shift, committed, fresh, spread).verdict for _ in range(600)]
    return found.count(verdict) / len(found)


@pytest.mark.parametrize(("committed", "fresh"), [(28, 2), (48, 1), (8, 8)])
def test_disagreement_is_found_in_at_most_five_percent_where_there_is_none(
    committed: int, fresh: int
) -> None:
    assert 0.02 < rate(DISAGREES, 0.0, committed, fresh) < 0.07


@pytest.mark.parametrize("spread", [SPREAD, 0.01])
def test_agreement_is_found_in_at_most_five_percent_where_the_means_differ_by_the_margin(
    spread: float,
) -> None:
    assert rate(AGREES, MARGIN, 28, 2, spread) < 0.05
    assert rate(AGREES, -MARGIN, 28, 16, spread) < 0.05


def test_what_is_called_detectable_is_found_with_that_probability() -> None:
    shift = detectable(SPREAD, 28, 2, ALPHA)
    assert rate(DISAGREES, shift, 28, 2) == pytest.approx(POWER, abs=0.05)


def test_seeds_called_enough_show_agreement_with_that_probability() -> None:
    spread = 0.03
    needed = seeds_to_agree(spread, 60, MARGIN, ALPHA)
    assert 5 < needed < 60
    assert rate(AGREES, 0.0, 60, int(needed), spread) == pytest.approx(POWER, abs=0.06)
    assert math.isinf(seeds_to_agree(SPREAD, 28, MARGIN, ALPHA)), "28 committed pairs alone leave more"


def test_each_verdict_has_a_sentence_of_its_own() -> None:
    known = of(np.linspace(0.04, 0.06, 30))
    found = adjusted(
        Replication("a is above b", "model=s", known, new, MARGIN)
        for new in (of(np.array([0.05, 0.052])), of(np.array([-0.2, -0.21])), of(np.array([])))
    )
    wide = adjusted([Replication("c", "", of(np.linspace(-0.2, 0.3, 30)), of(np.array([0.1, 0.0])), MARGIN)])
    assert [each.verdict for each in (*found, *wide)] == [AGREES, DISAGREES, CANNOT_TELL, CANNOT_TELL]
    agrees, disagrees, nothing, unclear = map(sentence, (*found, *wide))
    assert agrees.startswith(
        "a is above b (model=s): agrees within 3.0 points: +5.1 points on 2 fresh pairs and "
    )
    assert "(model=s): DISAGREES (p < 0.001): " in disagrees
    assert "no fresh pair of runs has finished" in nothing
    assert unclear.startswith("c: cannot tell at n = 2: ")
    assert "is detected with 80% probability" in unclear
    assert conclusion(found).startswith("Of 3 contrasts, 1 agree")


def test_power_is_known_before_any_fresh_run() -> None:
    planned = Replication("c", "", of(np.linspace(-0.2, 0.3, 30)), of(np.array([])), MARGIN)
    assert planned.verdict == CANNOT_TELL
    assert "points is detected with 80% probability" in power(planned, 2)


def halves() -> tuple[RunTable, RunTable, list[dict[str, object]], str | None]:
    """The committed rows of a sweep as if a part of the seeds were fresh."""
    sweep = read_sweep("fig5_soft")
    table = run_table(read_results(ROOT / "results" / "fig5_soft.csv"))
    known = tuple(run for run in table.runs if run.axes["seed"] != "3")
    fresh = tuple(
        moved(run, replace(run, axes={**run.axes, "seed": "0"}), "seed", "3")
        for run in table.runs
        if run.axes["seed"] == "3"
    )
    return RunTable(known), RunTable(fresh), [dict(each) for each in sweep.claims], sweep.baseline


def test_claims_come_first_and_then_the_contrasts_with_the_baseline_that_are_no_claim() -> None:
    known, fresh, claims, baseline = halves()
    found = replications(read_claims("fig5_soft", claims), baseline, known, fresh)
    assert [each.says for each in found] == [
        "The soft gate stays in the range of the hard mask",
        "The soft gate is above DPPO",
        "dppo_topk_tv − cppo",
    ]
    assert [each.committed.n for each in found] == [47, 27, 27]
    assert [each.fresh.n for each in found] == [1, 1, 1]
    assert all(each.family == 3 for each in found)


def test_claims_about_methods_at_their_best_are_left_out() -> None:
    known, fresh, claims, baseline = halves()
    best = {
        "says": "Each at its best",
        "contrast": "cppo_soft - cppo",
        "expect": "above",
        "measure": "at_best",
    }
    found = replications(read_claims("fig5_soft", [*claims, best]), baseline, known, fresh)
    assert "Each at its best" not in [each.says for each in found]
    assert len(found) == 3


def test_a_method_that_was_not_run_again_cannot_be_told() -> None:
    known, fresh, claims, baseline = halves()
    fewer = RunTable(tuple(run for run in fresh.runs if run.method != "dppo_topk_tv"))
    verdicts = replications(read_claims("fig5_soft", claims), baseline, known, fewer)
    assert [each.fresh.n for each in verdicts] == [1, 0, 0]
    assert verdicts[1].verdict == CANNOT_TELL


def test_fresh_seeds_are_the_first_that_nobody_used() -> None:
    assert fresh_seeds({"1000", "1002", "7"}, 3) == [1001, 1003, 1004]
    assert fresh_seeds(set(), 2, first=5) == [5, 6]


def test_no_committed_row_uses_a_seed_that_is_kept_for_reproductions() -> None:
    for path in (ROOT / "results").glob("*.csv"):
        known = read_results(path)
        seeds = {int(row["seed"]) for row in (*known.rows, *known.set_aside) if row.get("seed")}
        assert max(seeds, default=0) < FIRST_FRESH_SEED, path.name


def test_no_sweep_plans_a_seed_that_is_kept_for_reproductions() -> None:
    for name in sweep_names():
        for scale in read_sweep(name).scales:
            runs = combinations(read_sweep(name, scale), [])
            seeds = {int(values_set(run.overrides).get("seed", 0)) for run in runs}
            assert max(seeds) < FIRST_FRESH_SEED, (name, scale)
