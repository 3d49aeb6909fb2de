"""Ad-hoc sweeps: settings of single methods, and the name by which they are found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from cppo_lab.errors import UserError
from cppo_lab.sweeps.adhoc import Naming, split_methods
from cppo_lab.sweeps.sweep import Sweep, find_sweep

DELTA = "algo.trust_region.delta"


def found(tmp_path: Path, *given: str, naming: Naming | None = None) -> Sweep:
    first, *rest = given
    return find_sweep(first, [*rest, f"paths.output='{tmp_path}'"], None, naming)[0]


def test_settings_of_one_method_leave_the_others_alone(tmp_path: Path) -> None:
    sweep = found(
        tmp_path, "algo=grpo,cppo,dppo_topk_tv", f"cppo:{DELTA}=0.1,0.2", "trainer.lr=1e-4,2e-4", "seed=0,1"
    )
    runs = {(run.config.algo.name, run.axes[DELTA]) for run in sweep.runs}
    assert runs == {("grpo", "none"), ("cppo", "0.1"), ("cppo", "0.2"), ("dppo_topk_tv", "0.15")}
    assert len(sweep.runs) == 4 * 2 * 2
    assert {run.config.algo.trust_region.delta for run in sweep.runs if run.config.algo.name == "cppo"} == {
        0.1,
        0.2,
    }


def test_a_setting_of_one_method_wins_over_that_of_all(tmp_path: Path) -> None:
    sweep = found(tmp_path, "algo=grpo,cppo", "trainer.lr=1e-4", "cppo:trainer.lr=2e-4")
    assert {run.config.algo.name: run.config.trainer.lr for run in sweep.runs} == {"grpo": 1e-4, "cppo": 2e-4}
    assert {run.axes["trainer.lr"] for run in sweep.runs} == {"0.0001", "0.0002"}


def test_a_run_is_the_same_however_it_is_typed(tmp_path: Path) -> None:
    plain = found(tmp_path, "algo=cppo", f"{DELTA}=0.1,0.2")
    prefixed = found(tmp_path, "algo=grpo,cppo", f"cppo:{DELTA}=0.1,0.2")
    assert {run.run_id for run in plain.runs} < {run.run_id for run in prefixed.runs}


def test_hydras_own_colons_are_no_methods() -> None:
    given = ["+models@a.b:c=x", "task.answer_format='a: b=c'", "algo=grpo"]
    assert split_methods(given) == (given, {})


def test_named_sweep_is_found_by_its_name(tmp_path: Path) -> None:
    naming = Naming("mine", "grpo", "Two rates")
    sweep = found(tmp_path, "algo=grpo,cppo", f"cppo:{DELTA}=0.1", "seed=0,1", naming=naming)
    assert sweep.name == "mine"
    sweep.write_manifest()
    again = found(tmp_path, "mine")
    assert [run.run_id for run in again.runs] == [run.run_id for run in sweep.runs]
    assert again.manifest() == sweep.manifest()
    assert (again.file.title, again.file.baseline) == ("Two rates", "grpo")


def test_unnamed_sweep_is_found_by_the_name_that_it_got(tmp_path: Path) -> None:
    sweep = found(tmp_path, "algo=grpo,cppo", "seed=0,1")
    assert sweep.name.startswith("adhoc-")
    sweep.write_manifest()
    assert [run.run_id for run in found(tmp_path, sweep.name).runs] == [run.run_id for run in sweep.runs]


def test_a_name_stands_for_one_sweep(tmp_path: Path) -> None:
    found(tmp_path, "algo=grpo,cppo", naming=Naming("mine")).write_manifest()
    found(tmp_path, "algo=grpo,cppo", naming=Naming("mine"))
    with pytest.raises(UserError, match=r"--name mine: .* has another sweep of this name \(algo=grpo,cppo\)"):
        found(tmp_path, "algo=grpo,pg", naming=Naming("mine"))
    with pytest.raises(UserError, match=r"sweep mine: seed=5: an ad-hoc sweep is what it was started as"):
        found(tmp_path, "mine", "seed=5")


@pytest.mark.parametrize(
    ("given", "naming", "said"),
    [
        (["algo=grpo", "ppo:trainer.lr=1e-3"], None, r"ppo:trainer\.lr=1e-3: must be for a method of .* grpo"),
        (["seed=0,1", "cppo:trainer.lr=1e-3"], None, r"none: give algo=…"),
        (["algo=grpo,cppo", "cppo:algo=pg"], None, r"must be a setting of cppo"),
        (["algo=grpo,cppo", "cppo:trainer.lr=[1"], None, r"not an override in Hydra's grammar"),
        (["algo=grpo,cppo:trainer.lr=1e-3"], None, r"of its own: cppo in the list, and cppo:trainer\.lr=1e-3 behind"),
        (["quickstart", "cppo:trainer.lr=1e-3"], None, r"only an ad-hoc sweep takes settings of one method"),
        (["quickstart"], Naming("mine"), r"--name mine: only applies to an ad-hoc sweep; quickstart has its own"),
        (["algo=grpo,cppo"], Naming("quickstart"), r"--name quickstart: is the name of a sweep file"),
        (["algo=grpo,cppo"], Naming("../mine"), r"--name \.\./mine: must be letters"),
        (["algo=grpo,cppo"], Naming("x" * 81), r"--name x{81}: must be letters, .*, at most 80"),
    ],
)  # fmt: skip
def test_refusals(given: list[str], naming: Naming | None, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        found(tmp_path, *given, naming=naming)


def test_baseline_must_be_one_of_the_methods(tmp_path: Path) -> None:
    from cppo_lab.cli.checked_sweep import checked_sweep

    given = ["algo=grpo,cppo", f"paths.output='{tmp_path}'"]
    assert checked_sweep(given[0], given[1:], None, Naming(baseline="grpo"))[0].file.baseline == "grpo"
    with pytest.raises(UserError, match=r"--baseline=pg: unknown; allowed are cppo, grpo"):
        checked_sweep(given[0], given[1:], None, Naming(baseline="pg"))
