"""The notebook in examples: every cell runs, in order, and gives what the text around it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import ROOT

NOTEBOOK = ROOT / "examples" / "from_python.ipynb"


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, cell in enumerate(content["cells"]):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "commit it without outputs"
            exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, cell {number}", "exec"), names)
    assert names["study"].runs["status"].tolist() == ["FINISHED"] * 4
    assert names["curves"].columns.tolist() == ["cppo", "pg"]
    assert names["curves"].index.tolist() == [0, 2, 4]
    assert names["contrast"].n == 2
    assert names["contrast"].estimate.has_interval
