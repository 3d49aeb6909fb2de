"""`report` and `compare`: which runs they mean, what they refuse, and every command that docs/report.md shows."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_folders import write_run, write_sweep

from cppo_lab.analysis.load.mlflow_runs import Selection
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.load.study import Study

Invoke = Callable[..., tuple[int, str, str]]
DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for line in (DOCS / "report.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("cppo-lab ")
]
RUNS = {"cppo": "0123456789ab", "grpo": "ba9876543210", "pg": "00112233aabb"}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with the sweeps and runs that the documentation speaks of."""
    output = tmp_path_factory.mktemp("filled")
    write_sweep(output, algos=("dppo_tv", "grpo"), seeds=(0, 1))
    write_sweep(output, name="quickstart-0a1b2c", algos=("dppo_tv", "grpo"), seeds=(2, 3))
    longer = {"trainer.steps": 24}
    write_sweep(output, name="longer", algos=("dppo_tv", "grpo"), seeds=(0, 1), steps=24, settings=longer)
    for algo, run_id in RUNS.items():
        write_run(output / "runs" / f"{algo}-{run_id}", run_id=run_id, algo=algo, seed=0)
    return output


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, filled: Path) -> list[Selection]:
    """What was asked of a tracking server, which answers with a sweep of `filled`."""
    requests: list[Selection] = []

    def answer(wanted: Selection, cache: Path, *, force: bool) -> Study:
        requests.append(wanted)
        return load_study(filled, "quickstart", force=force)

    monkeypatch.setattr("cppo_lab.analysis.load.mlflow_runs.load_experiment", answer)
    return requests


def refused(result: tuple[int, str, str], *parts: str) -> None:
    code, _, err = result
    assert code == 2
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err


def rows(result: tuple[int, str, str]) -> list[dict[str, Any]]:
    code, out, err = result
    assert code == 0, err
    found: list[dict[str, Any]] = json.loads(out)
    return found


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_of_the_documentation_does_what_it_says(
    command: list[str], filled: Path, asked: list[Selection], invoke: Invoke, tmp_path: Path
) -> None:
    quick = [] if {"--terminal", "--aa"} & {*command} or command[0] == "compare" else ["--terminal", "--json"]
    code, out, err = invoke(*command, *quick, "-o", str(filled))
    assert code == 0, err
    assert out.strip()
    assert bool(asked) == bool({"--mlflow", "--experiment"} & {*command})


def test_documentation_shows_every_source() -> None:
    words = {word for command in COMMANDS for word in command}
    assert {"--run", "--mlflow", "--experiment", "--terminal", "--aa", "compare"} <= words
    assert "--force" in (DOCS / "report.md").read_text(encoding="utf-8")


def test_report_of_several_sweeps_lies_under_their_names(filled: Path, invoke: Invoke) -> None:
    arguments = ["report", "quickstart", "quickstart-0a1b2c", "--json", "-o", str(filled)]
    code, out, err = invoke(*arguments)
    assert code == 0, err
    files = json.loads(out)
    assert files["folder"] == str(filled / "reports" / "quickstart+quickstart-0a1b2c")
    page = Path(files["html"]).read_text(encoding="utf-8")
    assert "sweeps quickstart and quickstart-0a1b2c" in page
    shutil.rmtree(files["folder"])


def test_seeds_of_several_sweeps_are_counted_together(filled: Path, invoke: Invoke) -> None:
    found = rows(
        invoke("report", "quickstart", "quickstart-0a1b2c", "--terminal", "--json", "-o", str(filled))
    )
    assert [row["n"] for row in found] == [4, 4]


def test_runs_are_chosen_by_name_id_or_path(filled: Path, invoke: Invoke) -> None:
    names = [
        "cppo-0123456789ab",
        "ba9876543210",
        str(filled / "runs" / "pg-00112233aabb"),
        "cppo-0123456789ab",
    ]
    options = [part for name in names for part in ("--run", name)]
    found = rows(invoke("report", *options, "--terminal", "--json", "-o", str(filled)))
    assert sorted(row["method"] for row in found) == ["cppo", "grpo", "pg"]


def test_mixture_is_refused_by_every_form_of_the_report_and_by_compare(filled: Path, invoke: Invoke) -> None:
    said = ("trainer.steps is 12 in sweep quickstart and 24 in sweep longer", "--force reports them anyway")
    for form in ([], ["--terminal"], ["--aa"], ["--json"]):
        refused(invoke("report", "quickstart", "longer", *form, "-o", str(filled)), *said)
    assert not (filled / "reports" / "quickstart+longer").exists()
    long = next(p.name for p in (filled / "runs").iterdir() if '"steps": 24' in (p / "run.json").read_text())
    both = ("cppo-0123456789ab", long)
    refused(
        invoke("compare", *both, "-o", str(filled)),
        f"trainer.steps is 12 in {both[0]} and 24 in {both[1]}",
        "--force reports them anyway",
    )


def test_force_shows_the_mixture_with_a_mark(filled: Path, invoke: Invoke) -> None:
    code, out, err = invoke("report", "quickstart", "longer", "--terminal", "--force", "-o", str(filled))
    assert code == 0, err
    assert out.startswith("Not comparable: budget differs. ")
    found = rows(
        invoke("report", "quickstart", "longer", "--terminal", "--json", "--force", "-o", str(filled))
    )
    assert {row["mark"] for row in found} == {"not comparable: budget differs"}
    assert invoke("report", "quickstart", "longer", "--aa", "--force", "-o", str(filled))[0] == 0
    long = next(p.name for p in (filled / "runs").iterdir() if '"steps": 24' in (p / "run.json").read_text())
    code, out, _ = invoke("compare", "cppo-0123456789ab", long, "--force", "-o", str(filled))
    assert code == 0
    assert "trainer.steps" in out
    assert "Not comparable: budget differs. " in out


def test_comparable_runs_bear_no_mark_with_force(filled: Path, invoke: Invoke) -> None:
    found = rows(invoke("report", "quickstart", "--terminal", "--json", "--force", "-o", str(filled)))
    assert "mark" not in found[0]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--experiment", "mine"], Selection("sqlite:///{output}/mlflow.db", "mine")),
        (["--mlflow", "http://there:5000"], Selection("http://there:5000", "cppo-lab")),
        (
            ["a", "b", "--run", "c", "--mlflow", "http://there:5000", "--experiment", "mine"],
            Selection("http://there:5000", "mine", ("a", "b"), ("c",)),
        ),
    ],
)
def test_server_is_asked_for_what_was_given(
    arguments: list[str], wanted: Selection, filled: Path, asked: list[Selection], invoke: Invoke
) -> None:
    code, _, err = invoke("report", *arguments, "--terminal", "-o", str(filled))
    assert code == 0, err
    uri = wanted.uri.format(output=filled.resolve())
    assert asked == [Selection(uri, wanted.experiment, wanted.sweeps, wanted.runs)]


def test_environment_names_the_server(
    filled: Path, asked: list[Selection], invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    invoke("report", "--experiment", "mine", "--terminal", "-o", str(filled))
    assert asked == [Selection("http://elsewhere:5000", "mine")]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["report", "quickstrat"], ["sweep = quickstrat", "'quickstart'"]),
        (["report", "quickstart", "longr"], ["sweep = longr", "'longer'"]),
        (["report", "--run", "cppo-0123456789ac"], ["--run cppo-0123456789ac", "'cppo-0123456789ab'"]),
        (["report", "--mlflow", "nowhere"], ["--mlflow nowhere", "http://"]),
        (["report", "--experiment", "cppo-lab"], ["mlflow.db", "no such store"]),
        (["compare", "cppo-0123456789ab", "0123456789ab"], ["at least two different runs"]),
    ],
)
def test_what_cannot_be_found_is_refused(
    arguments: list[str], parts: list[str], filled: Path, invoke: Invoke
) -> None:
    refused(invoke(*arguments, "-o", str(filled)), *parts)


def test_links_of_the_documentation_lead_somewhere() -> None:
    for link in re.findall(r"\]\(((?!https?:)[^)#]+)\)", (DOCS / "report.md").read_text(encoding="utf-8")):
        assert (DOCS / link).is_file(), link
