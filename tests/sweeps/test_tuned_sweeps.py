"""Sweeps that say `tuned: NAME`: each method runs at its tuned point, on seeds that it was not tuned on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tuning_studies import POINTS, TEST, point, points_in

from cppo_lab.analysis.reproductions.planned import planned_runs
from cppo_lab.errors import UserError
from cppo_lab.sweeps.sweep import Sweep, find_sweep

Invoke = Callable[..., tuple[int, str, str]]


def planned(folder: Path, *overrides: str, text: str = TEST) -> Sweep:
    path = folder / "best.yaml"
    path.write_text(text, encoding="utf-8")
    return find_sweep(str(path), [*overrides, f"paths.output='{folder / 'out'}'"], None)[0]


def settings(sweep: Sweep) -> dict[str, tuple[float, float]]:
    return {
        run.config.algo.name: (run.config.trainer.lr, run.config.algo.trust_region.delta)
        for run in sweep.runs
    }


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    assert points_in(tmp_path, *POINTS).points == POINTS


def test_every_method_runs_at_its_own_point(tmp_path: Path) -> None:
    points_in(tmp_path, *POINTS)
    sweep = planned(tmp_path)
    assert settings(sweep) == {"pg": (1e-4, None), "cppo": (2e-4, 0.3)}
    # The axes are those of the file: methods with points of their own are compared in one panel.
    assert set(sweep.axes) == {"algo", "seed"}
    tuned = sweep.manifest()["tuned"]
    assert tuned["study"] == "rates"
    assert [each["method"] for each in tuned["points"]] == ["pg", "cppo"]


CONTROLS = """
title: At its best, with controls
question: Which?
tuned: rates
overrides: [trainer.steps=2, tracking=none, regime=many_updates]
axes:
  - {algo: [pg, cppo], trainer.epochs: 4, seed: [11, 12]}
  - {algo: pg, trainer.epochs: [1, 2], seed: [11, 12]}
  - {algo: pg, trainer.epochs: 4, trainer.lr: [2.5e-5, 5.0e-5], seed: [11, 12]}
"""


def test_beside_tuned_runs_a_grid_may_set_rates_of_its_own(tmp_path: Path) -> None:
    points_in(tmp_path, *POINTS)
    sweep = planned(tmp_path, text=CONTROLS)
    assert sweep.axes["trainer.lr"][0] == "tuned"
    found = {
        (run.config.algo.name, run.config.trainer.epochs, run.axes["trainer.lr"]): run.config.trainer.lr
        for run in sweep.runs
    }
    assert len(sweep.runs) == 2 * len(found) == 12
    assert {found["pg", epochs, "tuned"] for epochs in (1, 2, 4)} == {1e-4}
    assert found["cppo", 4, "tuned"] == 2e-4
    assert sorted(rate for (_, _, axis), rate in found.items() if axis != "tuned") == [2.5e-5, 5e-5]
    listed = planned_runs(sweep.file)
    assert [each.axes["trainer.lr"] for each in listed] == [run.axes["trainer.lr"] for run in sweep.runs]
    assert [each.is_tuned for each in listed] == [run.axes["trainer.lr"] == "tuned" for run in sweep.runs]


def test_a_run_at_a_tuned_point_is_the_run_with_its_overrides(tmp_path: Path) -> None:
    points_in(tmp_path, *POINTS)
    tuned = planned(tmp_path)
    plain = planned(tmp_path, "trainer.lr=1e-4", "algo=pg", text=TEST.replace("tuned: rates\n", ""))
    assert [run.run_id for run in plain.runs] == [
        run.run_id for run in tuned.runs if run.config.algo.name == "pg"
    ]


def test_what_the_sweep_sets_itself_wins_and_is_said(tmp_path: Path, invoke: Invoke) -> None:
    points_in(tmp_path, *POINTS)
    assert settings(planned(tmp_path, "trainer.lr=3e-4"))["cppo"] == (3e-4, 0.3)
    code, out, _ = invoke("plan", str(tmp_path / "best.yaml"), "trainer.lr=3e-4")
    assert code == 0
    assert "cppo (regime=many_updates): trainer.lr=0.0002 algo.trust_region.delta=0.3" in out
    assert "trainer.lr=0.0002 is not used, since the sweep sets trainer.lr itself" in out


def test_an_edge_is_said_in_the_plan(tmp_path: Path, invoke: Invoke) -> None:
    points_in(tmp_path, point("pg", 1e-4, notes=("at the edge: trainer.lr is the lowest",)), POINTS[1])
    planned(tmp_path)
    _, out, _ = invoke("plan", str(tmp_path / "best.yaml"))
    assert "trainer.lr=0.0001 (at the edge: trainer.lr is the lowest)" in out


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["seed=2,11"], r"seed=2: the points of rates were tuned on these seeds; test on others"),
        (["algo=grpo"], r"has no tuned point of grpo at regime=many_updates; it has those of pg, cppo"),
        (
            ["regime=mismatch"],
            r"no tuned point of pg at regime=mismatch; its points are for regime=many_updates",
        ),
        (["model=m"], r"no tuned point of pg at .*model=m"),
        (["task=gsm8k", "warmup=gsm8k"], r"no tuned point of pg at .*task=gsm8k"),
    ],
)
def test_what_a_point_was_not_tuned_for_is_refused(overrides: list[str], said: str, tmp_path: Path) -> None:
    points_in(tmp_path, *POINTS)
    with pytest.raises(UserError, match=said):
        planned(tmp_path, *overrides)


def test_a_method_without_a_point_may_set_the_tuned_keys_itself(tmp_path: Path) -> None:
    points_in(tmp_path, *POINTS)
    text = TEST.replace(
        "axes: {algo: [pg, cppo], seed: [11, 12]}",
        "axes:\n  - {algo: [pg, cppo], seed: 11}\n  - {algo: grpo, seed: 11, overrides: [trainer.lr=3e-4]}",
    )
    assert {name: rate for name, (rate, _) in settings(planned(tmp_path, text=text)).items()} == {
        "pg": 1e-4,
        "cppo": 2e-4,
        "grpo": 3e-4,
    }


def test_a_name_without_a_file_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"tuned: rates: there is no tuned/rates\.yaml; cppo-lab tune rates writes it"
    ):
        planned(tmp_path)


def test_a_file_that_is_damaged_is_refused_in_a_sentence(tmp_path: Path) -> None:
    points_in(tmp_path, *POINTS)
    (tmp_path / "tuned" / "rates.yaml").write_text("points: [1]", encoding="utf-8")
    with pytest.raises(UserError, match="is no file of tuned points"):
        planned(tmp_path)


def test_hydras_launchers_are_refused(tmp_path: Path, invoke: Invoke) -> None:
    points_in(tmp_path, *POINTS)
    planned(tmp_path)
    code, _, error = invoke("sweep", str(tmp_path / "best.yaml"), "hydra/launcher=joblib")
    assert code == 2
    assert "Hydra's launchers cannot start tuned or tuning runs" in error
