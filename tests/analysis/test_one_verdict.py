"""The report, the page of reproductions, the terminal and a result file give the same runs the same verdict."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_folders import write_sweep

from cppo_lab.analysis.claim_tests import check_claims
from cppo_lab.analysis.claims import Planned, read_claims
from cppo_lab.analysis.load.result_files import read_results, rows_of, run_table, write_results
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.page.report import write_report
from cppo_lab.analysis.page.tables import claims_table
from cppo_lab.analysis.reproductions.document import verdict_in_bold
from cppo_lab.analysis.summary import Summary, summarise
from cppo_lab.analysis.verdict_text import claim_sentence

Invoke = Callable[..., tuple[int, str, str]]
CLAIMS: list[dict[str, Any]] = [
    {"says": "CPPO is above the policy gradient", "contrast": "cppo - pg", "expect": "above"},
    {"says": "DPPO is above the policy gradient", "contrast": "dppo_tv - pg", "expect": "above"},
    {"says": "CPPO is above DPPO", "contrast": "cppo - dppo_tv", "expect": "above"},
    {"says": "GRPO equals DPPO", "contrast": "grpo - dppo_tv", "expect": "equal"},
    {
        "says": "The policy gradient masks nothing",
        "contrast": "pg",
        "score": "masked_share",
        "expect": "above",
    },
]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    write_sweep(tmp_path, seeds=range(6))
    path = tmp_path / "sweeps" / "quickstart" / "sweep.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"claims": CLAIMS}), encoding="utf-8")
    return tmp_path


def test_a_result_file_gives_the_verdicts_of_the_run_folders(output: Path, tmp_path: Path) -> None:
    study = load_study(output, "quickstart")
    summary = summarise(study)
    write_results(tmp_path / "quickstart.csv", rows_of(study, summary.table))
    table = run_table(read_results(tmp_path / "quickstart.csv"))
    planned = [Planned(run.panel, run.method, run.seeds, run.axes) for run in table.runs]
    from_file = check_claims(read_claims("x", CLAIMS), table, planned, study.name)
    assert [test.verdict for test in from_file] == [test.verdict for test in summary.claims]
    assert {test.verdict for test in from_file} >= {"holds", "inconclusive"}
    for one, other in zip(from_file, summary.claims, strict=True):
        assert one.estimate is not None
        assert other.estimate is not None
        assert one.estimate.mean == pytest.approx(other.estimate.mean, abs=1e-6)
        assert one.adjusted == pytest.approx(other.adjusted, rel=1e-3)
        assert verdict_in_bold(one).replace("**", "") == verdict_in_bold(other).replace("**", "")


def test_a_contrast_that_a_claim_is_about_has_the_verdict_of_the_claim(output: Path) -> None:
    summary = summarise(load_study(output, "quickstart"))
    contrasts = {contrast.treatment: contrast for contrast in summary.contrasts}
    for test in summary.claims:
        name, base = test.claim.treatment, test.claim.baseline
        other = contrasts["pg"] if base == "pg" and name == "dppo_tv" else contrasts.get(name)
        if (
            other is None
            or base not in ("dppo_tv", "pg")
            or {name, base} != {other.treatment, other.baseline}
        ):
            continue
        assert other.p_adjusted == test.p_different
        assert other.family == test.family == len(CLAIMS)
        sign = 1 if other.treatment == name else -1
        assert other.estimate is not None
        assert test.estimate is not None
        assert sign * other.estimate.mean == pytest.approx(test.estimate.mean)


def test_report_and_terminal_print_the_same_verdicts(output: Path, invoke: Invoke) -> None:
    summary = summarise(load_study(output, "quickstart"))
    files = write_report(output, "quickstart", formats=("html", "md", "csv"))
    code, out, err = invoke("report", "quickstart", "--terminal", "-o", str(output))
    assert code == 0, err
    printed = " ".join(out.split())
    assert files.markdown is not None
    page = files.markdown.read_text(encoding="utf-8").replace("\\", "")
    for test in summary.claims:
        assert claim_sentence(test) in printed
    for row in claims_table(summary.claims, summary.table).rows:
        said = [cell.text for cell in row]
        assert " | ".join(said[:2]) in page
        assert said[-1] in page
    for contrast in summary.contrasts:
        assert contrast.verdict in printed
        assert contrast.verdict in page


def test_a_family_counts_its_claims_without_runs(output: Path) -> None:
    whole: Summary = summarise(load_study(output, "quickstart"))
    for folder in (output / "runs").glob("grpo-*"):
        (folder / "run.json").write_text("{}", encoding="utf-8")
    part = summarise(load_study(output, "quickstart"))
    assert [test.family for test in part.claims] == [test.family for test in whole.claims]
    (missing,) = [test for test in part.claims if test.claim.treatment == "grpo"]
    assert claim_sentence(missing) == "GRPO equals DPPO: no runs yet."
