"""`reproduce`: fresh seeds are run and compared with the committed rows, which nothing touches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tiny_runs import TINY, files_with_times

Invoke = Callable[..., tuple[int, str, str]]


def write_sweep(tmp_path: Path, **extra: object) -> str:
    content = {
        "title": "Two",
        "question": "Which?",
        "overrides": [*TINY, "trainer.steps=1"],
        "axes": {"seed": [0, 1, 2], "algo": ["grpo", "cppo"]},
        "baseline": "grpo",
        "claims": [{"says": "CPPO is above GRPO", "contrast": "cppo - grpo", "expect": "above"}],
    }
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(content | extra), encoding="utf-8")
    return str(path)


@pytest.fixture
def committed(invoke: Invoke, output: Path, tmp_path: Path) -> Path:
    """The folder of the sweep's committed rows."""
    asked = [write_sweep(tmp_path), "-o", str(output)]
    code, _, err = invoke("sweep", *asked, "--no-report", "-j", "1")
    assert code == 0, err
    assert invoke("results", *asked, "--to", str(tmp_path / "results"))[0] == 0
    return tmp_path / "results"


def test_fresh_seeds_are_run_and_compared_and_committed_rows_stay(
    invoke: Invoke, output: Path, tmp_path: Path, committed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [str(tmp_path / "two.yaml"), "-o", str(output), "--results", str(committed), "--seeds", "2"]
    before = files_with_times(committed)
    code, out, err = invoke("reproduce", *asked, "--dry-run")
    assert code == 0, err
    assert "Fresh seeds of two: 1000, 1001; 6 committed runs to compare with." in out
    assert "is detected with 80% probability" in out
    assert len(list((output / "runs").iterdir())) == 6, "nothing was run"

    code, out, err = invoke("reproduce", *asked, "-j", "1")
    assert code in (0, 3), err
    assert "CPPO is above GRPO: " in out
    assert "Of 1 contrast, " in out
    assert len([path for path in (output / "runs").iterdir() if path.is_dir()]) == 10
    assert files_with_times(committed) == before
    (kept,) = (output / "sweeps").glob("two-*/reproduction.json")
    record = json.loads(kept.read_text(encoding="utf-8"))
    assert record["seeds"] == [1000, 1001]
    assert record["contrasts"][0]["fresh"]["n"] == 2
    assert record["contrasts"][0]["committed"]["n"] == 3

    code, out, err = invoke("reproduce", *asked, "--margin", "100")
    assert code == 0, err
    assert "nothing to do" in " ".join(out.split()), "the same seeds are finished"
    assert "CPPO is above GRPO: agrees within 100.0 points: " in out

    monkeypatch.setattr("cppo_lab.cli.sweep_runs.run_sweep", lambda *_, **__: False)
    code, out, _ = invoke("reproduce", *asked, "--margin", "100")
    assert code == 1, "a run failed"
    assert "CPPO is above GRPO: agrees" in out, "and those that are there are compared all the same"

    write_opposite(committed / "two.csv")
    code, out, err = invoke("reproduce", *asked)
    assert code == 3, err
    assert "CPPO is above GRPO: DISAGREES (p" in out
    assert "Of 1 contrast, 1 DISAGREE with them." in out


def write_opposite(path: Path) -> None:
    """Committed rows in which one method is far above the other."""
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    columns = header.split(",")
    for number, line in enumerate(lines):
        cells = line.split(",")
        final = (0.99 if "cppo" in cells else 0.01) + 0.001 * (number // 2)
        cells[columns.index("final")], cells[columns.index("final_error")] = str(final), "0.001"
        lines[number] = ",".join(cells)
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["seed=5"], "seed=5: reproduce chooses seeds that are new; give --seeds or --first-seed."),
        (["trainer.lr=1e-9"], "has no row of the 6 planned runs; overrides may choose among"),
        (["--results", "nowhere"], "holds no committed row to compare with"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(
    extra: list[str], said: str, invoke: Invoke, tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    source = Path(__file__).parents[2] / "results" / "fig7_budget.csv"
    (folder / "two.csv").write_bytes(source.read_bytes())
    asked = [write_sweep(tmp_path), "-o", str(tmp_path / "out"), "--results", str(folder), *extra]
    code, _, err = invoke("reproduce", *asked)
    assert code == 2
    assert said in " ".join(err.split())
    assert not (tmp_path / "out" / "runs").exists()


def test_a_sweep_without_seeds_is_refused(invoke: Invoke, tmp_path: Path) -> None:
    file = write_sweep(tmp_path, axes={"algo": ["grpo", "cppo"]}, claims=[])
    code, _, err = invoke("reproduce", file, "-o", str(tmp_path / "out"))
    assert code == 2
    assert "sets no seed for its runs" in err
