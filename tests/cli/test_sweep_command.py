"""`sweep`: when a finished sweep has something to do after all, and what is said where there can be no report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cppo_lab.analysis.load.comparability import NotComparable
from cppo_lab.analysis.page import report
from cppo_lab.cli import sweep_runs
from cppo_lab.sweeps.failures import FailurePolicy
from cppo_lab.sweeps.jobs import Outcome
from cppo_lab.sweeps.sweep import PlannedRun, Sweep, find_sweep

Invoke = Callable[..., tuple[int, str, str]]


class Reports:
    """Stands for the writing of reports, which takes seconds: counts them, and leaves a page."""

    def __init__(self) -> None:
        self.written = 0

    def write(self, output: Path, name: str) -> None:
        self.written += 1
        page = output / "reports" / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("", encoding="utf-8")


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Reports:
    made = Reports()
    monkeypatch.setattr(report, "write_report", made.write)
    return made


def write_sweep(tmp_path: Path, title: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(f"title: {title}\noverrides: [tracking=none]\naxes: {{seed: [0, 1]}}\n", encoding="utf-8")
    return str(path)


def finished(tmp_path: Path) -> Sweep:
    """A sweep whose runs say that they are done."""
    sweep = find_sweep(write_sweep(tmp_path, "Mine"), [f"paths.output='{tmp_path / 'out'}'"], None)[0]
    for run in sweep.runs:
        run.folder.path.mkdir(parents=True)
        run.folder.append("metrics.jsonl", {"step": 1})
        run.folder.update_info(status="FINISHED")
    return sweep


def test_report_of_a_finished_sweep_follows_its_file(
    tmp_path: Path, invoke: Invoke, reports: Reports
) -> None:
    sweep = finished(tmp_path)
    asked = ["sweep", write_sweep(tmp_path, "Mine"), "-o", str(sweep.output)]
    for _ in range(2):
        code, out, err = invoke(*asked)
        assert code == 0, err
        assert "nothing to do" in out
        assert reports.written == 1, "the second time it is current"
    write_sweep(tmp_path, "Yours")
    assert invoke(*asked)[0] == 0
    assert reports.written == 2
    assert json.loads(sweep.manifest_path.read_text(encoding="utf-8"))["title"] == "Yours"
    assert invoke(*asked)[0] == 0
    assert reports.written == 2
    write_sweep(tmp_path, "Ours")
    assert invoke(*asked, "--no-report")[0] == 0
    assert reports.written == 2
    assert invoke(*asked)[0] == 0
    assert reports.written == 3, "the manifest is new already, and the report is not"


def test_failed_runs_are_named_where_there_can_be_no_report(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = finished(tmp_path)
    asked = ["sweep", write_sweep(tmp_path, "Mine"), "-o", str(sweep.output)]

    def refuse(_output: Path, _name: str) -> None:
        raise NotComparable("trainer.steps is 1 and 2: such runs are not comparable.")

    monkeypatch.setattr(report, "write_report", refuse)
    code, out, err = invoke(*asked)
    assert (code, err) == (1, "")
    assert "No report: trainer.steps is 1 and 2: such runs are not comparable." in out
    assert "--force" not in out

    sweep.runs[1].folder.update_info(status="FAILED")
    outcome = Outcome(failed={sweep.runs[1].folder.path.name: "diverged at step 1"})
    monkeypatch.setattr(sweep_runs, "run_here", lambda *_: outcome)
    code, out, err = invoke(*asked)
    assert (code, err) == (1, "")
    said = " ".join(out.split())
    assert f"failed {sweep.runs[1].folder.path.name}: diverged at step 1 No report:" in said


def test_diverged_run_is_no_failure_where_it_is_kept_whoever_trained_it(tmp_path: Path) -> None:
    """An executor names every run that ended early, as the start of the sweep does here."""
    sweep = finished(tmp_path)
    run = sweep.runs[1]

    def diverging(waiting: Sequence[PlannedRun]) -> dict[str, str]:
        assert [each.run_id for each in waiting] == [run.run_id]
        run.folder.update_info(status="FAILED", diverged=True, reason="diverged at step 1")
        return {run.folder.path.name: "diverged at step 1"}

    for policy, succeeds in ((FailurePolicy(), False), (FailurePolicy(keeps_diverged=True), True)):
        run.folder.update_info(status="INTERRUPTED", diverged=False)
        assert sweep_runs.train_waiting(sweep, diverging, policy) is succeeds
