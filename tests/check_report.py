"""Check a report for its parts: `python tests/check_report.py OUTPUT --runs N --methods …`."""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from pathlib import Path

_SECTIONS = ("verdict", "accuracy", "stability", "samples", "configurations", "provenance")
_FIGURES = ("accuracy", "stability", "final-and-best")


def problems(output: Path, runs: int, methods: list[str]) -> list[str]:
    """What is missing or wrong, in words; empty for a whole report."""
    found = []
    for page in sorted((output / "reports").glob("*/index.html")):
        found += _page_problems(page, methods)
        found += _file_problems(page.parent, methods)
        break
    else:
        found.append(f"{output}: no report")
    states = [json.loads(p.read_text())["status"] for p in (output / "runs").glob("*/run.json")]
    if states != ["FINISHED"] * runs:
        found.append(f"runs: expected {runs} finished ones, found {states}")
    if not (output / "mlflow.db").exists():
        found.append("no MLflow store")
    return found


def _page_problems(page: Path, methods: list[str]) -> list[str]:
    text = page.read_text(encoding="utf-8")
    found = [f"{page}: no section {name}" for name in _SECTIONS if f'id="{name}"' not in text]
    found += [f"{page}: {name} is not named" for name in methods if name not in text]
    if re.search(r"(?:src|href)=[\"']?(?:https?:)?//", text):
        found.append(f"{page}: loads something from the network")
    if text.count("data:image/png;base64,") + text.count("<svg") < len(_FIGURES):
        found.append(f"{page}: figures are missing")
    return found


def _file_problems(report: Path, methods: list[str]) -> list[str]:
    found = []
    for name in _FIGURES:
        for suffix, start in ((".png", b"\x89PNG"), (".pdf", b"%PDF")):
            # A figure that each panel has of its own is named after the panel too.
            paths = list((report / "figures").glob(f"{name}*{suffix}"))
            if not paths or not all(path.read_bytes().startswith(start) for path in paths):
                found.append(f"{report / 'figures' / name}{suffix}: missing or broken")
    with (report / "tables" / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    counts = {name: sum(row[0].split(",")[0] == name for row in rows[1:]) for name in methods}
    if len(set(counts.values())) != 1 or 0 in counts.values() or sum(counts.values()) != len(rows) - 1:
        found.append(f"results.csv: {counts} of {len(rows) - 1} rows")
    if not (report / "report.md").read_text(encoding="utf-8").strip():
        found.append("report.md: empty")
    return found


def main() -> None:
    """Print what is wrong and exit with 1, or say that all is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--methods", nargs="+", required=True)
    arguments = parser.parse_args()
    found = problems(arguments.output, arguments.runs, arguments.methods)
    print("\n".join(found) or f"{arguments.output}: the report is whole")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
