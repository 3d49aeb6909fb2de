"""Sweep files: scales, several grids, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cppo_lab.errors import UserError
from cppo_lab.sweeps.sweep import Sweep, find_sweep
from cppo_lab.sweeps.sweep_file import read_sweep, split_scale

LADDER = """
title: Ladder
question: Which?
overrides: [trainer.steps=2]
axes: {algo: [grpo, cppo]}
scales:
  lab:
    overrides: [regime=many_updates]
    axes:
      - {model: s, seed: "range(0,3)"}
      - {model: m, seed: 0, overrides: [trainer.lr=2.0e-4]}
  long:
    overrides: [trainer.steps=20]
    axes: {model: s, seed: 0}
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "ladder.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def planned(tmp_path: Path, *overrides: str, text: str = LADDER) -> Sweep:
    return find_sweep(written(tmp_path, text), [*overrides, f"paths.output='{tmp_path / 'out'}'"], None)[0]


def test_runs_are_those_of_every_grid_and_each_grid_sets_its_own(tmp_path: Path) -> None:
    sweep = planned(tmp_path)
    found = [
        (r.config.model.name, r.config.algo.name, r.config.seed, r.config.trainer.lr) for r in sweep.runs
    ]
    assert found == [
        *[("s", algo, seed, 1e-4) for seed in range(3) for algo in ("grpo", "cppo")],
        ("m", "grpo", 0, 2e-4),
        ("m", "cppo", 0, 2e-4),
    ]
    assert sweep.axes == {"model": ["s", "m"], "seed": ["0", "1", "2"], "algo": ["grpo", "cppo"]}
    assert all(run.axes.keys() == sweep.axes.keys() for run in sweep.runs)


def test_a_scale_adds_to_what_holds_at_every_scale(tmp_path: Path) -> None:
    assert {run.config.trainer.steps for run in planned(tmp_path).runs} == {2}
    long = planned(tmp_path, "scale=long")
    assert [run.config.trainer.steps for run in long.runs] == [20, 20]
    assert long.name == "ladder-long"
    assert planned(tmp_path, "scale=lab").name == "ladder"


def test_the_command_line_speaks_last_in_every_grid(tmp_path: Path) -> None:
    sweep = planned(tmp_path, "seed=7", "trainer.lr=1e-3")
    assert [(run.config.seed, run.config.trainer.lr) for run in sweep.runs] == [(7, 1e-3)] * 4


def test_an_axis_that_another_grid_varies_is_read_off_the_configuration(tmp_path: Path) -> None:
    text = "axes:\n  - {trainer.epochs: [1, 2]}\n  - {trainer.staleness: [1, 2]}\n"
    sweep = planned(tmp_path, "trainer.steps=2", text=text)
    values = [(run.axes["trainer.epochs"], run.axes["trainer.staleness"]) for run in sweep.runs]
    assert values == [("1", "0"), ("2", "0"), ("4", "1"), ("4", "2")]


def test_a_grid_without_the_rule_that_reads_an_axis_has_no_value_on_it(tmp_path: Path) -> None:
    text = "axes:\n  - {algo: pg}\n  - {algo: [dppo_tv], algo.trust_region.delta: [0.1, 0.2]}\n"
    sweep = planned(tmp_path, "trainer.steps=2", text=text)
    assert [run.axes["algo.trust_region.delta"] for run in sweep.runs] == ["none", "0.1", "0.2"]


def test_a_grid_of_a_scale_narrows_an_axis_of_the_file(tmp_path: Path) -> None:
    text = """
axes:
  - {algo: [grpo, cppo], overrides: [trainer.steps=2]}
  - {algo: ppo, overrides: [trainer.steps=3]}
scales:
  lab:
    axes:
      - {seed: 0}
      - {seed: [1, 2], algo: [cppo]}
"""
    found = [
        (r.config.algo.name, r.config.seed, r.config.trainer.steps) for r in planned(tmp_path, text=text).runs
    ]
    assert found == [("grpo", 0, 2), ("cppo", 0, 2), ("ppo", 0, 3), ("cppo", 1, 2), ("cppo", 2, 2)]


TWO_SETTINGS = """
axes:
  - {algo: [grpo, cppo], overrides: [algo.dynamic_sampling.kind=skip]}
  - {algo: [ppo], overrides: [algo.dynamic_sampling.kind=none]}
scales:
  lab:
    axes: {seed: [0, 1]}
"""


def test_a_method_that_two_grids_would_set_differently_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refusal:
        planned(tmp_path, "algo=gspo", text=TWO_SETTINGS)
    said = str(refusal.value)
    assert "sweep ladder: seed=0 algo=gspo: two grids of the file set" in said
    assert "algo.dynamic_sampling.kind to skip and to none for it" in said
    assert "give algo.dynamic_sampling.kind=… as well" in said
    given = planned(tmp_path, "algo=gspo", "algo.dynamic_sampling.kind=skip", text=TWO_SETTINGS)
    assert [(run.config.algo.name, run.config.seed) for run in given.runs] == [("gspo", 0), ("gspo", 1)]


def test_what_one_grid_sets_and_another_leaves_is_named_as_well(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"set trainer\.lr to 0\.0001 and to 0\.0002 for it; give trainer\.lr=…"
    ):
        planned(tmp_path, "model=moe")


TWO_REGIMES = """
title: Two regimes
question: Which?
overrides: [trainer.steps=2]
axes: {algo: [grpo, cppo], seed: 0}
scales:
  lab:
    axes:
      - {model: s, regime: mild}
      - {model: m, regime: many_updates, overrides: [trainer.lr=2.0e-4]}
"""


def test_grids_are_not_chosen_by_the_order_of_the_command_line(tmp_path: Path) -> None:
    for asked in (["model=m", "regime=mild"], ["regime=mild", "model=m"]):
        said = rf"{' '.join(asked)}: no grid of the file has all of these.*give trainer\.lr=… as well"
        with pytest.raises(UserError, match=said):
            planned(tmp_path, *asked, text=TWO_REGIMES)
        sweep = planned(tmp_path, *asked, "trainer.lr=3e-4", text=TWO_REGIMES)
        assert {(run.config.model.name, run.config.trainer.lr) for run in sweep.runs} == {("m", 3e-4)}
        assert len(sweep.runs) == 2


def test_each_grid_takes_those_of_the_values_asked_for_that_it_has(tmp_path: Path) -> None:
    sweep = planned(tmp_path, "algo=ppo,cppo", "seed=0", text=TWO_SETTINGS)
    found = [(run.config.algo.name, run.config.algo.dynamic_sampling.kind) for run in sweep.runs]
    assert found == [("cppo", "skip"), ("ppo", "none")]
    # One that no grid has goes with the others.
    sweep = planned(tmp_path, "algo=cppo,gspo", "seed=0", text=TWO_SETTINGS)
    found = [(run.config.algo.name, run.config.algo.dynamic_sampling.kind) for run in sweep.runs]
    assert found == [("cppo", "skip"), ("gspo", "skip")]
    sweep = planned(tmp_path, "model=m,s", "algo=cppo")
    found_sizes = [(run.config.model.name, run.config.seed, run.config.trainer.lr) for run in sweep.runs]
    assert found_sizes == [("s", 0, 1e-4), ("s", 1, 1e-4), ("s", 2, 1e-4), ("m", 0, 2e-4)]


def test_runs_of_one_identity_that_two_grids_plan_are_one(tmp_path: Path) -> None:
    asked = ["model=s", "regime=mismatch", "algo=cppo,grpo", "seed=range(16,18)"]
    sweep = find_sweep("table1", [*asked, f"paths.output='{tmp_path}'"], None)[0]
    assert [(run.config.algo.name, run.config.seed) for run in sweep.runs] == [
        *[("cppo", 16), ("grpo", 16)],
        *[("cppo", 17), ("grpo", 17)],
    ]


def test_null_in_a_file_is_hydras_null(tmp_path: Path) -> None:
    text = "axes: {warmup.band: [null, [0.1, 0.2]], trainer.evaluation_problems: null}\n"
    runs = planned(tmp_path, text=text).runs
    assert [run.config.warmup.band for run in runs] == [None, (0.1, 0.2)]
    assert {run.config.trainer.evaluation_problems for run in runs} == {None}


def test_where_a_sweep_is_tracked_and_what_does_its_runs_make_it_no_other_one(tmp_path: Path) -> None:
    names = {
        find_sweep("seed=0,1", ["trainer.steps=2", *more], None)[0].name
        for more in ([], ["tracking=none"], [f"paths.output='{tmp_path}'"], ["hydra/launcher=basic"])
    }
    assert len(names) == 1
    assert find_sweep("tracking=none", ["seed=0,1", "trainer.steps=2"], None)[0].name in names


def test_a_choice_that_only_some_grids_make_is_refused(tmp_path: Path) -> None:
    text = "axes:\n  - {regime: [mild, mismatch]}\n  - {seed: [1, 2]}\n"
    with pytest.raises(UserError, match="regime: must be set in every grid of the sweep"):
        planned(tmp_path, text=text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "needs 'axes', or 'scales'"),
        ("title: x", "needs 'axes'"),
        ("axes: {seed: 0}\nscales: [lab]", "scales: must be a mapping"),
        ("axes: {seed: 0}\nscales: {lab: {seeds: 1}}", r"scales\.lab\.seeds: unknown key; allowed are"),
        ("axes: [1]", "axes: must be a mapping from keys to values, or a list of such"),
        ("axes: {seed: 0, overrides: 1}", r"axes\.overrides: must be a list of overrides"),
        ("axes: {seed: 0}\noverrides: trainer.lr=1", "overrides: must be a list of overrides"),
        (
            "axes: {algo: [grpo, cppo]}\nscales: {lab: {axes: {algo: [ccpo]}}}",
            r"scales\.lab\.axes: algo=ccpo: unknown; allowed are cppo, grpo\. Did you mean 'cppo'",
        ),
        (
            "axes: {seed: [0, 1]}\nscales: {lab: {axes: {seed: 'range(0,1)'}}}",
            r"axes: seed: range\(0,1\): must be a list of plain values, since a scale narrows it",
        ),
        ("axes: {seed: 0}\nclaims: {a: b}", "claims: must be a list of mappings"),
        ("axes: {seed: 0}\nscales: {}", r"scales=\{\}: must name a scale such as lab"),
        ("axes: {seed: 0, algo: []}", r"axes: algo=\[\]: must have at least one value"),
        ("axes: {seed: 0}\nbaseline: [1]", r"baseline=\[1\]: must be a text"),
        ("axes: {seed: 0}\npaper: yes", "paper=True: must be a text"),
        ("axes: {seed: 0}\nfigure: [1]", r"figure=\[1\]: must be a text"),
        ("axes: {seed: 0}\nscales: {lab: {window: 0}}", "window=0: must be a number of training steps"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        read_sweep(written(tmp_path, text))


def test_an_unknown_scale_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"scale=lng: unknown; allowed are lab, long\. Did you mean 'long'\?"):
        read_sweep(written(tmp_path, LADDER), "lng")
    with pytest.raises(UserError, match="scale=paper: unknown; allowed are lab"):
        read_sweep("quickstart", "paper")
    with pytest.raises(UserError, match="only sweep files have scales"):
        find_sweep("seed=0,1", ["scale=paper"], None)


def test_the_last_scale_named_holds() -> None:
    assert split_scale(["scale=paper", "seed=1", "scale=lab"]) == ("lab", ["seed=1"])
    assert split_scale(["seed=1"]) == ("lab", ["seed=1"])
