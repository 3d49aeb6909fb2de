"""The report of a tuned sweep: the table "Tuned at", the error of the choice, and when its claims were frozen."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from run_folders import write_sweep
from tuning_studies import point

from cppo_lab.analysis.page.report import ReportFiles, write_report

FROZEN = {
    "sweep": "quickstart",
    "frozen_at": "2020-01-01T10:00:00+00:00",
    "claims_sha256": "abcdef" * 10,
    "file_sha256": "b",
    "tuned": "rates",
    "tuned_sha256": "c",
    "first_run_at": None,
    "changed": [],
}


def report(output: Path, **manifest: Any) -> ReportFiles:
    write_sweep(output, algos=("pg", "dppo_tv"), profiles=False)
    path = output / "sweeps" / "quickstart" / "sweep.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(known | manifest), encoding="utf-8")
    return write_report(output, "quickstart", formats=("html", "md", "csv"))


def tuned(choice_error: float) -> dict[str, Any]:
    points = [asdict(point(name, 1e-4, notes=("at the edge: told",))) for name in ("pg", "dppo_tv")]
    for each in points:
        each["choice_error"] = choice_error
        del each["tried"]
    return {"study": "rates", "sha256": "d", "seeds": [1, 2], "points": points}


def row(files: ReportFiles, method: str) -> str:
    text = next(path for path in files.tables if path.stem == "contrasts").read_text(encoding="utf-8")
    return next(line for line in text.splitlines() if line.startswith(method))


def test_what_each_method_was_tuned_at_is_shown(tmp_path: Path) -> None:
    files = report(tmp_path, tuned=tuned(0.0))
    assert files.markdown
    text = files.markdown.read_text(encoding="utf-8")
    assert "chosen by the study rates on 2 seeds that no run here has" in text
    (line,) = (each for each in text.replace("\\", "").splitlines() if each.startswith("| pg | regime="))
    assert "| trainer.lr=0.0001 | 3 | 70.0 ± 1.0 | trainer.lr=0.0004 | 40.0 | 30.0 ± 2.0 |" in line
    assert "at the edge: told" in text


def test_the_error_of_the_choice_is_in_the_intervals(tmp_path: Path) -> None:
    plain = row(report(tmp_path / "plain"), "pg")
    exact = row(report(tmp_path / "exact", tuned=tuned(0.0)), "pg")
    doubtful = row(report(tmp_path / "doubtful", tuned=tuned(0.2)), "pg")
    assert plain == exact
    assert exact != doubtful
    said = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "doubtful").rglob("*.md"))
    assert "cannot be detected by more test seeds alone: tuning on more seeds would be needed" in said
    assert "tune on more" in said


def test_frozen_claims_are_said_and_a_change_is_a_caveat(tmp_path: Path) -> None:
    files = report(tmp_path / "kept", frozen=FROZEN)
    assert files.markdown
    text = files.markdown.read_text(encoding="utf-8")
    assert "claims frozen at 2020-01-01 10:00 UTC, hash abcdefabcdef, before the first test run at" in text
    assert "CHANGED" not in text
    files = report(tmp_path / "changed", frozen=FROZEN | {"changed": ["the claims"]})
    assert files.markdown
    assert "CHANGED SINCE THEY WERE FROZEN: the claims" in files.markdown.read_text(encoding="utf-8")
