"""The control: no rule at a smaller step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tuned_runs import over_rates, run

from cppo_lab.analysis.controls import AT_BEST, FEWER_EPOCHS, SAME_KL, find_controls, interpolated, same_kl
from cppo_lab.analysis.coordinates import has_no_rule, named_without_rule, published
from cppo_lab.analysis.grids import grids
from cppo_lab.analysis.run_table import RunTable
from cppo_lab.analysis.step_size_text import control_sentence

# At 4e-4, cppo is 26 points above no rule; each at its best, 2. Its best moves as far as no rule's best does.
TABLE = over_rates({"pg": [0.66, 0.74, 0.66, 0.40], "cppo": [0.66, 0.74, 0.76, 0.66]}, kl={"cppo": 0.5})


def test_each_control_by_hand() -> None:
    (control,) = find_controls(grids(TABLE), {"pg"})
    assert (control.method, control.baseline, control.rate) == ("cppo", "pg", 4e-4)
    assert (control.point, control.baseline_point) == ("lr=2e-4", "lr=1e-4")
    means = {name: each.estimate.mean for name, each in control.controls.items() if each.estimate}
    assert means == {AT_BEST: pytest.approx(0.02), SAME_KL: pytest.approx(0.02)}
    assert control.at_one is not None
    assert control.at_one.estimate is not None
    assert control.at_one.estimate.mean == pytest.approx(0.26)
    assert control.credited is not None
    assert control.credited.mean == pytest.approx(0.02)


def test_the_rate_that_moves_as_far_is_named() -> None:
    (control,) = find_controls(grids(TABLE), {"pg"})
    assert control.matched == pytest.approx(1e-4)
    assert "+2.0 at the same KL (which it has at lr=1e-4)" in control_sentence(control)


def test_noise_in_kl_is_no_credit() -> None:
    """Two copies of one method, whose KL is noisy: matched within seeds, one would gain a point over the other."""
    generator = np.random.default_rng(7)
    gains = []
    for draw in range(40):
        table = over_rates(
            {"pg": [0.6, 0.74, 0.6, 0.3], "copy": [0.6, 0.74, 0.6, 0.3]}, noise=0.02, seeds=8, draw=draw
        )
        noisy = [
            replace(each, kl_median=each.kl_median * generator.lognormal(0.0, 0.15)) for each in table.runs
        ]
        found = {grid.method: grid for grid in grids(RunTable(tuple(noisy)))}
        seen = same_kl(found["copy"], found["pg"])[0].estimate
        assert seen is not None
        gains.append(seen.mean)
    assert abs(np.mean(gains)) < 0.01


def test_a_method_is_credited_with_the_least_that_is_left() -> None:
    # cppo's best moves the policy as far as no rule does between two rates, where it has 0.70.
    table = over_rates(
        {"pg": [0.66, 0.74, 0.66, 0.40], "cppo": [0.66, 0.74, 0.76, 0.66]}, kl={"cppo": 0.5 * 2**0.5}
    )
    (control,) = find_controls(grids(table), {"pg"})
    same = control.controls[SAME_KL].estimate
    assert same is not None
    assert same.mean == pytest.approx(0.76 - 0.70)
    assert control.larger == AT_BEST


@pytest.mark.parametrize(("factor", "said"), [(0.01, "less"), (100.0, "more")])
def test_a_method_that_moves_beyond_every_rate_tried_has_no_number_at_the_same_kl(
    factor: float, said: str
) -> None:
    table = over_rates({"pg": [0.66, 0.74, 0.66, 0.4], "cppo": [0.66, 0.74, 0.76, 0.66]}, kl={"cppo": factor})
    (control,) = find_controls(grids(table), {"pg"})
    assert SAME_KL not in control.controls
    assert control.why_not[SAME_KL] == f"moves {said} than any rate tried"
    assert f"no number at the same KL: it moves {said} than any rate tried" in control_sentence(control)
    assert control.larger == AT_BEST


def test_fewer_epochs_are_a_control_where_there_are_such_runs() -> None:
    runs = [
        run(method, seed, final, kl=rate, trainer__epochs=epochs, trainer__lr=rate)
        for method, epochs, finals in (
            ("pg", 4, (0.66, 0.74, 0.60)),
            ("pg", 1, (0.60, 0.70, 0.75)),
            ("cppo", 4, (0.66, 0.74, 0.76)),
        )
        for rate, final in zip((5e-5, 1e-4, 2e-4), finals, strict=True)
        for seed in range(4)
    ]
    (control,) = find_controls(grids(RunTable(tuple(runs))), {"pg"})
    fewer = control.controls[FEWER_EPOCHS].estimate
    assert fewer is not None
    assert fewer.mean == pytest.approx(0.01)
    assert "+1.0 over its best with fewer epochs" in control_sentence(control)


def test_without_plain_policy_gradient_there_is_no_control() -> None:
    assert find_controls(grids(TABLE), {"reinforce"}) == []


def test_above_is_said_only_of_a_method_above_every_control() -> None:
    noisy = over_rates(
        {"pg": [0.66, 0.74, 0.66, 0.40], "cppo": [0.70, 0.80, 0.82, 0.70]},
        kl={"cppo": 0.5},
        noise=0.005,
        seeds=10,
    )
    (control,) = find_controls(grids(noisy), {"pg"})
    assert control.verdict == "higher"
    assert "credited: +8" in control_sentence(control) or "credited: +7" in control_sentence(control)
    (equal,) = find_controls(
        grids(
            over_rates({"pg": [0.66, 0.74, 0.66, 0.4], "cppo": [0.66, 0.74, 0.66, 0.4]}, noise=0.02, seeds=10)
        ),
        {"pg"},
    )
    assert equal.verdict == "inconclusive"


def test_accuracy_between_two_rates_is_on_a_line_in_log_kl() -> None:
    kl, finals = np.array([0.04, 0.01]), np.array([0.5, 0.7])
    np.testing.assert_allclose(
        interpolated(np.array([0.02, 0.01, 0.005, 0.0]), kl, finals), [0.6, 0.7, np.nan, np.nan]
    )


def test_plain_policy_gradient_is_known_by_its_coordinates() -> None:
    assert named_without_rule(["pg", "grpo", "cppo", "cispo", "grpo_tis", "reinforce", "nobody"]) == {"pg"}
    assert has_no_rule({"name": "mine", "regulariser.kl_coefficient": 0.0})
    assert not has_no_rule({"name": "mine", "regulariser.kl_coefficient": 0.1})
    assert not has_no_rule({"trust_region.kind": "prefix_budget"})


def test_published_settings_are_read_from_the_methods_files() -> None:
    assert published("cppo", "algo.trust_region.delta") == 0.15
    assert published("dppo_topk_tv", "algo.trust_region.delta") == 0.15
    assert published("pg", "algo.trust_region.delta") is None
    assert published("cppo", "threshold") == 1.0
