"""`results`: a file of what is done, added to, and one of its own for a sweep with overrides."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from tiny_runs import TINY

Invoke = Callable[..., tuple[int, str, str]]
SWEEP = "title: Two\nquestion: Which?\naxes: {seed: [0, 1], algo: [grpo, cppo]}\nbaseline: grpo\n"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_is_kept_run_by_run(invoke: Invoke, output: Path, tmp_path: Path) -> None:
    file, folder = tmp_path / "two.yaml", tmp_path / "kept"
    file.write_text(SWEEP, encoding="utf-8")
    asked = [str(file), *TINY, "-o", str(output)]
    code, _, err = invoke("results", *asked, "--to", str(folder))
    assert code == 2
    assert "holds none of its 4 runs; do some first" in err
    assert not folder.exists()

    code, out, err = invoke("sweep", *asked, "algo=grpo", "--no-report", "-j", "1")
    assert code == 0, err
    code, out, err = invoke("results", *asked, "--to", str(folder))
    assert code == 0, err
    assert "2 runs of the sweep not done there" in " ".join(out.split())
    (path,) = folder.glob("two-*.csv")
    first = rows_of(path)
    assert [(row["method"], row["seed"]) for row in first] == [("grpo", "0"), ("grpo", "1")]
    assert all(row["final"] and row["starting_policy"] and row["accuracy"].startswith("0:") for row in first)

    code, out, err = invoke("sweep", *asked, "--no-report", "-j", "1")
    assert code == 0, err
    assert invoke("results", *asked, "--to", str(folder))[0] == 0
    both = rows_of(path)
    assert both[:2] == first
    assert [(row["method"], row["seed"]) for row in both[2:]] == [("cppo", "0"), ("cppo", "1")]
