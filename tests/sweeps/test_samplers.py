"""Where settings come from: seeded draws, Optuna's samplers as functions of what was tried, and grids that grow."""

from __future__ import annotations

from pathlib import Path

import pytest

from cppo_lab.errors import UserError
from cppo_lab.sweeps.samplers import next_setting, random_settings
from cppo_lab.sweeps.trials import Place, Setting, filled
from cppo_lab.sweeps.tune_choice import beyond, edge_of, pruned
from cppo_lab.sweeps.tune_rounds import seeds_wanted
from cppo_lab.sweeps.tune_section import Prune, TuneSection, read_tune

PLACE = Place((("regime", "mild"),), "cppo")
LOW, HIGH = (("trainer.lr", 1e-4),), (("trainer.lr", 4e-4),)


def section(sampler: str, trials: int = 6, **more: object) -> TuneSection:
    space = {"trainer.lr": {"low": 1e-5, "high": 1e-3, "log": True}, "threshold": [0.5, 1, 2]}
    made = read_tune(Path("study.yaml"), {"sampler": sampler, "trials": trials, "space": space} | more)
    assert made
    return made


def test_random_draws_are_distinct_seeded_and_of_the_space() -> None:
    drawn = random_settings(section("random"), lacks_threshold=False)
    assert drawn == random_settings(section("random"), lacks_threshold=False)
    assert drawn != random_settings(section("random", seed=1), lacks_threshold=False)
    assert len(set(drawn)) == 6
    for setting in map(dict, drawn):
        assert 1e-5 <= setting["trainer.lr"] <= 1e-3
        assert setting["threshold"] in (0.5, 1, 2)


def test_a_method_without_a_threshold_draws_the_same_rates() -> None:
    rates = [
        dict(setting)["trainer.lr"] for setting in random_settings(section("random"), lacks_threshold=False)
    ]
    alone = random_settings(section("random"), lacks_threshold=True)
    assert [dict(setting) for setting in alone] == [{"trainer.lr": rate} for rate in rates]


def test_a_space_that_is_too_small_is_refused() -> None:
    small = read_tune(Path("s.yaml"), {"sampler": "random", "trials": 4, "space": {"threshold": [1, 2]}})
    assert small
    with pytest.raises(UserError, match="trials=4: the space has only 2 settings"):
        random_settings(small, lacks_threshold=False)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_optunas_samplers_depend_on_what_was_tried_alone(sampler: str) -> None:
    pytest.importorskip("optuna")
    made = section(sampler, 8)
    tried: list[tuple[Setting, float]] = []
    for _ in range(6):
        setting = next_setting(made, PLACE, tried, lacks_threshold=False)
        assert setting == next_setting(made, PLACE, list(tried), lacks_threshold=False)
        values = dict(setting)
        assert 1e-5 <= values["trainer.lr"] <= 1e-3
        assert values["threshold"] in (0.5, 1, 2)
        tried.append((setting, -abs(values["trainer.lr"] - 1e-4)))
    assert len({setting for setting, _ in tried}) > 4
    assert list(dict(next_setting(made, PLACE, [], lacks_threshold=True))) == ["trainer.lr"]


def test_the_widest_gaps_are_halved_first() -> None:
    assert filled([1e-4, 2e-4, 8e-4], 4) == [1e-4, 2e-4, 4e-4, 8e-4]
    assert filled([0, 1, 4], 4) == [0, 1, 2.5, 4]
    assert filled([1e-4, 2e-4], 2) == [1e-4, 2e-4]


def test_a_grid_grows_by_as_much_again() -> None:
    assert beyond([1e-4, 2e-4, 4e-4], 1) == 8e-4
    assert beyond([1e-4, 2e-4, 4e-4], -1) == 5e-5
    assert beyond([0, 1, 3], 1) == 5
    assert [edge_of([1, 2, 3], value) for value in (1, 2, 3)] == [-1, 0, 1]
    assert edge_of([1], 1) == 0


def test_racing_drops_what_is_surely_and_clearly_worse() -> None:
    best = {str(seed): 0.7 + 0.01 * seed for seed in range(4)}
    clearly = {seed: value - 0.1 - 0.001 * int(seed) for seed, value in best.items()}
    barely = {seed: value - 0.02 - 0.001 * int(seed) for seed, value in best.items()}
    doubtful = {seed: value - 0.1 * int(seed) for seed, value in best.items()}
    prune = Prune(every=4, margin=0.03)
    for worse, expected in ((clearly, [HIGH]), (barely, []), (doubtful, [])):
        assert pruned({LOW: best, HIGH: worse}, prune) == expected
    seeds = [str(seed) for seed in range(8)]
    assert seeds_wanted([LOW, HIGH], {}, seeds, prune) == {LOW: 4, HIGH: 4}
    assert seeds_wanted([LOW, HIGH], {LOW: best, HIGH: clearly}, seeds, prune) == {LOW: 8, HIGH: 4}
    assert seeds_wanted([LOW, HIGH], {}, seeds, None) == {LOW: 8, HIGH: 8}
