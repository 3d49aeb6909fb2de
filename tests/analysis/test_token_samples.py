"""Responses on the page token by token: what was masked and why, with everything escaped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from run_folders import HOSTILE, write_sweep

from analysis.report import write_report
from analysis.runs import load_study
from analysis.samples import MOST_TOKENS, choose


def record(texts: list[str], masked: list[str], **columns: list[float | None] | None) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "divergence": [0.25] * len(texts),
        "weight": [0.5] * len(texts),
        "threshold": [0.15] * len(texts),
        "ratio": [1.2] * len(texts),
        "advantage": [-0.5] * len(texts),
    }
    return {"text": texts, "masked": masked, "anchor": "rollout", "delta": 0.15, **numbers, **columns}


def with_tokens(output: Path, tokens: dict[str, Any]) -> None:
    """A sweep of one run, whose first kept response has `tokens`."""
    (folder,) = write_sweep(output, algos=("cppo",), seeds=(0,))
    path = sorted((folder / "samples").glob("*.jsonl"))[-1]
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    rows[0]["tokens"] = tokens
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_masked_tokens_are_marked_and_say_their_numbers(tmp_path: Path) -> None:
    with_tokens(tmp_path, record(["so", " 5", "6"], ["", "threshold", "budget"]))
    write_report(tmp_path, "quickstart", formats=("html",))
    page = (tmp_path / "reports" / "quickstart" / "index.html").read_text(encoding="utf-8")
    note = "token 2: D 0.25, weight 0.5, threshold 0.15, ratio 1.2, advantage -0.5, masked by the threshold"
    assert f'<span title="{note}" class="threshold"' in page
    assert "masked by the budget" in page
    assert ">so</span>" in page


def test_tokens_of_a_model_are_text_and_nothing_else(tmp_path: Path) -> None:
    with_tokens(tmp_path, record([HOSTILE, "\u202e", '" onmouseover="x'], ["threshold", "", "budget"]))
    write_report(tmp_path, "quickstart", formats=("html",))
    page = (tmp_path / "reports" / "quickstart" / "index.html").read_text(encoding="utf-8")
    assert HOSTILE not in page
    assert "\u202e" not in page
    assert '" onmouseover="x' not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_long_responses_are_cut_and_methods_without_a_divergence_say_less(tmp_path: Path) -> None:
    long = [str(i % 10) for i in range(MOST_TOKENS + 7)]
    with_tokens(tmp_path, record(long, [""] * len(long), divergence=None, weight=None, threshold=None))
    sample = next(sample for sample in choose(load_study(tmp_path, "quickstart")) if sample.tokens)
    assert len(sample.tokens) == MOST_TOKENS
    assert sample.more_tokens == 7
    assert sample.tokens[0].note == "token 1: ratio 1.2, advantage -0.5, kept"
