"""Several sweeps and chosen runs as one study: joined axes, panels, seeds, headings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from run_folders import write_sweep

from cppo_lab.analysis.load.axes import canonical
from cppo_lab.analysis.load.sources import NothingToReport, load_study
from cppo_lab.analysis.page.report import collect, write_report
from cppo_lab.analysis.page.run_tables import runs_table
from cppo_lab.analysis.summary import summarise

BOTH = ("pg", "grpo")


def edit_manifest(output: Path, name: str, **changes: Any) -> dict[str, Any]:
    path = output / "sweeps" / name / "sweep.json"
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return manifest


def test_run_of_two_sweeps_counts_once(tmp_path: Path) -> None:
    write_sweep(tmp_path, name="one", algos=BOTH, seeds=(0, 1), baseline="pg")
    write_sweep(tmp_path, name="two", algos=("grpo", "cppo"), seeds=(0, 1), baseline=None)
    study = load_study(tmp_path, ["one", "two"])
    assert study.runs.groupby("method", sort=False).size().to_dict() == {"pg": 2, "grpo": 2, "cppo": 2}
    assert study.grouping.panels == ("",)
    assert {contrast.n for contrast in summarise(study).contrasts} == {2}


def test_sweeps_of_the_same_configuration_add_their_seeds(tmp_path: Path) -> None:
    write_sweep(tmp_path, name="one", algos=BOTH, seeds=(0, 1))
    write_sweep(tmp_path, name="two", algos=BOTH, seeds=(2, 3))
    study = load_study(tmp_path, ["one", "two"])
    assert {result.n for result in summarise(study).results} == {4}
    assert study.grouping.panels == ("",)


def test_sweeps_of_one_seed_each_have_it_as_an_axis_together(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_sweep(tmp_path, name=f"seed{seed}", algos=BOTH, seeds=(seed,))
        manifest = edit_manifest(tmp_path, f"seed{seed}", axes={"algo": list(BOTH)})
        runs = [entry | {"axes": {"algo": entry["axes"]["algo"]}} for entry in manifest["runs"]]
        edit_manifest(tmp_path, f"seed{seed}", runs=runs)
    study = load_study(tmp_path, ["seed0", "seed1"])
    assert study.grouping.seed_axes == ("seed",)
    assert {result.n for result in summarise(study).results} == {2}


@pytest.mark.parametrize(
    ("settings", "panels"),
    [
        ({"trainer.lr": 2e-4}, ("lr=4e-4", "lr=2e-4")),
        ({"engine.weights": "int4"}, ("weights=same", "weights=int4")),
        ({"model.name": "m", "model.layers": 4}, ("model=s", "model=m")),
    ],
)
def test_setting_that_two_sweeps_do_not_share_makes_panels(
    settings: dict[str, Any], panels: tuple[str, ...], tmp_path: Path
) -> None:
    write_sweep(tmp_path, name="one", algos=BOTH, seeds=(0, 1), baseline="pg")
    write_sweep(tmp_path, name="two", algos=BOTH, seeds=(0, 1), settings=settings, baseline="pg")
    study = load_study(tmp_path, ["one", "two"])
    assert study.grouping.panels == panels
    assert study.grouping.methods == BOTH
    assert {contrast.n for contrast in summarise(study).contrasts} == {2}


def test_axis_of_one_sweep_and_setting_of_the_other_are_one_axis_however_written(tmp_path: Path) -> None:
    write_sweep(tmp_path, name="one", algos=BOTH, seeds=(0,), learning_rates=(2e-4, 1e-4))
    manifest = edit_manifest(tmp_path, "one")
    for entry in manifest["runs"]:
        entry["axes"]["trainer.lr"] = f"{float(entry['axes']['trainer.lr']):.0e}"
    edit_manifest(
        tmp_path, "one", runs=manifest["runs"], axes=manifest["axes"] | {"trainer.lr": ["2e-04", "1e-04"]}
    )
    write_sweep(tmp_path, name="two", algos=("cppo",), seeds=(0,), settings={"trainer.lr": 0.0002})
    study = load_study(tmp_path, ["one", "two"])
    assert study.grouping.panels == ("lr=2e-4", "lr=1e-4")
    first = study.runs[study.runs["panel"] == "lr=2e-4"]
    assert sorted(first["method"]) == ["cppo", "grpo", "pg"]


def test_choice_of_a_group_is_recognised_in_runs_that_do_not_say_it(tmp_path: Path) -> None:
    regimes = {"mild": 1, "many_updates": 4}
    entries: list[dict[str, Any]] = []
    for regime, epochs in regimes.items():
        write_sweep(tmp_path, name="part", algos=("grpo",), seeds=(0, 1), settings={"trainer.epochs": epochs})
        for entry in edit_manifest(tmp_path, "part")["runs"]:
            entries.append(entry | {"axes": {"regime": regime, **entry["axes"]}})
    axes = {"regime": list(regimes), "algo": ["grpo"], "seed": [0, 1]}
    edit_manifest(tmp_path, "part", runs=entries, axes=axes)
    # Its runs are of many_updates, by the default of the configuration: nothing in the manifest says so.
    write_sweep(tmp_path, name="other", algos=("cppo",), seeds=(0, 1))
    study = load_study(tmp_path, ["part", "other"])
    assert study.grouping.panels == ("regime=mild", "regime=many_updates")
    assert set(study.runs.loc[study.runs["method"] == "cppo", "panel"]) == {"regime=many_updates"}
    assert not study.incomparable, "the first sweep chose to vary the regime"


def test_setting_that_goes_with_the_algorithm_is_said_and_makes_no_panels(tmp_path: Path) -> None:
    write_sweep(tmp_path, name="one", algos=BOTH, seeds=(0, 1))
    write_sweep(tmp_path, name="two", algos=("cppo",), seeds=(0, 1), settings={"trainer.lr": 2e-4})
    study = load_study(tmp_path, ["one", "two"])
    assert study.grouping.panels == ("",)
    assert study.notes == (
        "The runs differ in more than the algorithm: trainer.lr (0.0004, 0.0002). The names of the methods do not show "
        "this.",
    )


def test_settings_of_the_algorithm_are_part_of_it(tmp_path: Path) -> None:
    write_sweep(tmp_path, name="one", algos=("cppo",), seeds=(0, 1))
    tight = {"algo.trust_region.delta": 0.05}
    write_sweep(tmp_path, name="two", algos=("cppo",), seeds=(0, 1), settings=tight)
    study = load_study(tmp_path, ["one", "two"])
    assert study.grouping.methods == ("delta=0.15", "delta=0.05")
    assert study.notes == ()


def test_run_that_has_not_started_is_placed_with_its_sweep(tmp_path: Path) -> None:
    write_sweep(tmp_path, name="one", algos=BOTH, seeds=(0, 1))
    write_sweep(
        tmp_path, name="two", algos=BOTH, seeds=(0, 1), settings={"trainer.lr": 2e-4}, absent=[("grpo", 1)]
    )
    study = load_study(tmp_path, ["one", "two"])
    (pending,) = study.runs[study.runs["status"] == "PENDING"].to_dict("records")
    assert (pending["method"], pending["panel"], pending["seeds"]) == ("grpo", "lr=2e-4", "seed=1")


def test_chosen_runs_have_the_tables_of_their_sweep(tmp_path: Path) -> None:
    folders = write_sweep(tmp_path, algos=("dppo_tv", "grpo"), seeds=(0, 1))
    swept = collect(load_study(tmp_path, "quickstart"), set())
    chosen = collect(load_study(tmp_path, run_folders=folders), set())
    assert {name: table.frame().to_csv() for name, table in chosen.tables.items()} == {
        name: table.frame().to_csv() for name, table in swept.tables.items()
    }
    assert chosen.study.title == "4 runs"


def test_chosen_runs_have_a_folder_of_their_own_in_any_order(tmp_path: Path) -> None:
    folders = write_sweep(tmp_path, algos=BOTH, seeds=(0, 1))
    names = [
        load_study(tmp_path, run_folders=chosen).name for chosen in (folders, folders[::-1], folders[:2])
    ]
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("runs-")


def test_run_given_twice_counts_once(tmp_path: Path) -> None:
    folders = write_sweep(tmp_path, algos=BOTH, seeds=(0,))
    assert len(load_study(tmp_path, run_folders=[*folders, folders[0]]).runs) == 2


def test_run_is_added_to_a_sweep(tmp_path: Path) -> None:
    write_sweep(tmp_path, name="one", algos=BOTH, seeds=(0, 1))
    (extra, _) = write_sweep(tmp_path, name="two", algos=("cppo",), seeds=(0, 1))
    study = load_study(tmp_path, "one", [extra])
    assert study.runs.groupby("method", sort=False).size().to_dict() == {"pg": 2, "grpo": 2, "cppo": 1}
    assert study.source == "sweep one, 1 selected run"
    assert study.name.startswith("one+runs-")


def test_heading_joins_those_of_the_sweeps_and_says_where_they_disagree(tmp_path: Path) -> None:
    for number, name in enumerate(("one", "two")):
        write_sweep(tmp_path, name=name, algos=BOTH, seeds=(number,))
        edit_manifest(
            tmp_path,
            name,
            title=f"Title {name}",
            question=f"Question {name}?",
            baseline=BOTH[number],
            window=6 + number,
            created_at=f"2026-09-0{number + 1}T10:00:00+00:00",
        )
    study = load_study(tmp_path, ["one", "two"])
    assert (study.name, study.title) == ("one+two", "Title one · Title two")
    assert study.question == "Question one? Question two?"
    assert (study.baseline, study.window) == ("pg", 6)
    assert study.created_at == "2026-09-02T10:00:00+00:00"
    assert study.notes == (
        "The sweeps have different baselines (pg, grpo); this report uses pg.",
        "The sweeps select the best accuracy within different windows (6, 7 steps); this report uses 6.",
    )
    assert study.source == "sweeps one and two"


def test_many_sweeps_make_a_folder_name_that_a_disk_takes(tmp_path: Path) -> None:
    names = [f"a-sweep-with-a-rather-long-name-{number}" for number in range(9)]
    for number, name in enumerate(names):
        write_sweep(tmp_path, name=name, algos=("grpo",), seeds=(number,))
    files = write_report(tmp_path, names, formats=("csv",))
    assert len(files.folder.name) < 100
    assert files.folder.name != write_report(tmp_path, names[:-1], formats=("csv",)).folder.name


def test_one_unknown_sweep_among_several_is_refused(tmp_path: Path) -> None:
    write_sweep(tmp_path, name="one", algos=BOTH, seeds=(0,))
    with pytest.raises(NothingToReport, match=r"sweep = tow: no such sweep .* known sweeps are one\."):
        load_study(tmp_path, ["one", "tow"])


def test_sweep_without_a_step_stays_beside_one_that_has_some(tmp_path: Path) -> None:
    write_sweep(tmp_path, name="one", algos=BOTH, seeds=(0,))
    absent = [(algo, seed) for algo in BOTH for seed in (1, 2)]
    write_sweep(tmp_path, name="two", algos=BOTH, seeds=(1, 2), absent=absent)
    study = load_study(tmp_path, ["one", "two"])
    statuses = [row[3].text for row in runs_table(study, summarise(study)).rows]
    assert statuses == ["finished", "finished", "pending", "pending", "pending", "pending"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("4e-4", "0.0004"), (0.0004, "0.0004"), ("1e6", "1000000"), (1000000, "1000000"), (12, "12"), ("12.0", "12"),
        (None, "null"), ("null", "null"), (True, "true"), ("true", "true"), ("cppo", "cppo"), ("12e4567", "12e4567"),
        (2**60 + 1, str(2**60 + 1)), ("[0.9, 0.99]", "[0.9, 0.99]"), ("nan", "nan"),
    ],
)  # fmt: skip
def test_value_has_one_text_however_it_was_written(value: object, text: str) -> None:
    assert canonical(value) == text
