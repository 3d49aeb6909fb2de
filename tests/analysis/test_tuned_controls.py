"""The controls in a sweep whose methods run at tuned points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cppo_lab.analysis.claim_tests import HOLDS, ClaimTest, check_claims
from cppo_lab.analysis.claims import Planned, read_claims
from cppo_lab.analysis.contrasts import compare
from cppo_lab.analysis.controls import AT_BEST, FEWER_EPOCHS, SAME_KL
from cppo_lab.analysis.formatting import tidy
from cppo_lab.analysis.run_table import Run, RunTable
from cppo_lab.analysis.step_size import step_size
from cppo_lab.analysis.step_size_text import control_sentence, explained
from cppo_lab.analysis.tuned import at_tuned_points, point_of

SEEDS = range(200, 212)
REGIMES = ("many_updates", "mismatch")


def points(error: float = 0.0) -> list[dict[str, Any]]:
    return [
        {
            "method": name,
            "panel": {"regime": regime, "model": "s", "task": "chain"},
            "setting": {"trainer.lr": rate},
            "choice_error": error,
        }
        for name, rate in (("pg", 1e-4), ("cppo", 2e-4))
        for regime in REGIMES
    ]


def rows() -> list[Run]:
    """Policy gradient at its tuned rate, with fewer epochs, and at two smaller rates; CPPO at its tuned rate."""
    generator = np.random.default_rng(0)
    of_seed = {seed: generator.normal(0, 0.02) for seed in SEEDS}
    return [
        Run(
            run_id=f"{method} {regime} {epochs} {rate} {seed}",
            panel=f"regime={regime}, epochs={epochs}, lr={tidy(rate)}",
            method=method,
            seeds=f"seed={seed}",
            policy=f"policy {seed}",
            axes={"algo": method, "regime": regime, "trainer.epochs": epochs, "trainer.lr": rate},
            final=final + of_seed[seed] + generator.normal(0, 0.01),
            kl_median=kl,
        )
        for regime in REGIMES
        for method, epochs, rate, kl, final in (
            ("pg", "4", "tuned", 0.02, 0.74),
            ("pg", "4", "2.5e-05", 0.002, 0.64),
            ("pg", "4", "5e-05", 0.008, 0.70),
            ("pg", "1", "tuned", 0.01, 0.70),
            ("pg", "2", "tuned", 0.015, 0.72),
            ("cppo", "4", "tuned", 0.008, 0.80),
        )
        for seed in SEEDS
    ]


def table(error: float = 0.0) -> RunTable:
    return at_tuned_points(RunTable(tuple(rows())), points(error))


def on_claims(error: float, *claims: dict[str, Any]) -> list[ClaimTest]:
    made = table(error)
    planned = [
        Planned(
            run.panel,
            run.method,
            run.seeds,
            run.axes,
            point_of(run.method, run.axes, points()) is not None,
        )
        for run in made.runs
    ]
    return check_claims(read_claims("tuned_table1", claims), made, planned)


def of(found: Sequence[Run], method: str, regime: str) -> list[Run]:
    return [
        run for run in found if run.setting and run.axes["trainer.epochs"] == "4"
        and (run.method, run.axes["regime"]) == (method, regime)
    ]  # fmt: skip


def test_a_rate_of_its_own_is_no_tuned_point() -> None:
    assert {run.axes["trainer.lr"] for run in table(0.01).runs if run.setting} == {"tuned"}
    assert {run.axes["trainer.lr"] for run in table(0.01).runs if not run.choice} == {"2.5e-05", "5e-05"}


@pytest.mark.parametrize("error", [0.0, 0.01])
def test_each_at_its_best_is_the_paired_contrast_with_the_error_of_both_choices(error: float) -> None:
    made = table(error)
    known = step_size(made, {"pg"})
    assert known is not None
    assert known.curves == ()
    assert [(each.method, each.panel) for each in known.controls] == [
        ("cppo", "regime=many_updates, epochs=4"),
        ("cppo", "regime=mismatch, epochs=4"),
    ]
    for control, regime in zip(known.controls, REGIMES, strict=True):
        sides = (of(made.runs, method, regime) for method in ("cppo", "pg"))
        plain = compare(*sides, ("cppo", "pg"))
        assert control.controls[AT_BEST].estimate == plain.estimate
        assert plain.estimate is not None
        assert plain.estimate.shared == pytest.approx(error * math.sqrt(2))
        assert (control.point, control.baseline_point) == ("lr=2e-4", "lr=1e-4")


def test_the_same_kl_is_found_among_the_rates_that_were_run() -> None:
    known = step_size(table(0.01), {"pg"})
    assert known is not None
    control = known.controls[0]
    # CPPO moves as far as no rule at 5e-5, which reaches 0.70.
    same, fewer = (control.controls[name].estimate for name in (SAME_KL, FEWER_EPOCHS))
    assert same is not None
    assert fewer is not None
    assert same.mean == pytest.approx(0.10, abs=0.02)
    assert same.shared == pytest.approx(0.01)
    assert control.matched == pytest.approx(5e-5, rel=0.05)
    assert fewer.mean == pytest.approx(0.08, abs=0.02)
    assert control.larger == AT_BEST
    assert control.verdict == "higher"
    said = control_sentence(control)
    assert "over plain policy gradient at its best (lr=1e-4)" in said
    assert "at the same KL (which it has at lr=5e-5)" in said
    assert "over its best with fewer epochs" in said
    assert "tuned on other seeds" in " ".join(explained(known))


def test_without_other_rates_and_epochs_only_the_best_are_compared() -> None:
    alone = [
        replace(run, panel=f"regime={run.axes['regime']}", axes={k: run.axes[k] for k in ("algo", "regime")})
        for run in rows()
        if run.axes["trainer.lr"] == "tuned" and run.axes["trainer.epochs"] == "4"
    ]
    known = step_size(at_tuned_points(RunTable(tuple(alone)), points()), {"pg"})
    assert known is not None
    assert [set(each.controls) for each in known.controls] == [{AT_BEST}, {AT_BEST}]


@pytest.mark.parametrize("measure", ["at_best", "same_kl", "fewer_epochs", "credited"])
def test_a_claim_about_a_measure_is_tested_in_every_regime(measure: str) -> None:
    claim = {"says": "more", "contrast": "cppo - pg", "measure": measure, "expect": "above"}
    found = on_claims(0.005, claim)
    assert [test.panel for test in found] == [f"regime={regime}, epochs=4" for regime in REGIMES]
    assert {test.verdict for test in found} == {HOLDS}
    assert {test.planned for test in found} == {len(SEEDS)}
    # A doubtful choice is enough to leave it open.
    assert HOLDS not in {test.verdict for test in on_claims(0.1, claim)}


def test_rates_of_another_machine_leave_the_control_out() -> None:
    """Its starting policies are others, so that no seed has all rates."""
    made = [
        replace(run, policy=f"{run.policy} elsewhere")
        if run.axes["trainer.lr"] in ("2.5e-05", "5e-05")
        else run
        for run in rows()
    ]
    found = step_size(at_tuned_points(RunTable(tuple(made)), points()), {"pg"})
    assert found is not None
    assert len(found.controls) == 2
    for control in found.controls:
        assert set(control.controls) == {AT_BEST, FEWER_EPOCHS}
        assert control.why_not[SAME_KL] == "no run shares its seeds and starting policy"
        assert math.isnan(control.matched)
