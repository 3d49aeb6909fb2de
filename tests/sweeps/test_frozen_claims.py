"""Claims are frozen before the first test run, and what has changed since is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from tuning_studies import POINTS, TEST, points_in

from cppo_lab.analysis.frozen import broken_in_words, frozen_in_words
from cppo_lab.errors import UserError
from cppo_lab.sweeps.frozen_claims import (
    changes_since,
    freeze,
    frozen_file,
    frozen_for_manifest,
    note_first_run,
    read_frozen,
)
from cppo_lab.sweeps.jobs import Outcome
from cppo_lab.sweeps.sweep_file import SweepFile, read_sweep

CLAIM = "claims:\n  - {says: CPPO is above PG, contrast: cppo - pg, expect: above}\n"


def sweep(folder: Path, text: str = TEST + CLAIM) -> SweepFile:
    path = folder / "best.yaml"
    path.write_text(text, encoding="utf-8")
    return read_sweep(str(path))


def frozen(folder: Path) -> SweepFile:
    points_in(folder, *POINTS)
    file = sweep(folder)
    assert freeze(file) == frozen_file(file) == folder / "frozen" / "best.json"
    return file


def test_they_are_frozen_once(tmp_path: Path) -> None:
    file = frozen(tmp_path)
    before = (tmp_path / "frozen" / "best.json").read_bytes()
    assert freeze(file) is None
    assert (tmp_path / "frozen" / "best.json").read_bytes() == before
    known = read_frozen(file)
    assert known
    assert (known.sweep, known.tuned, changes_since(file, known)) == ("best", "rates", [])


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        (TEST + CLAIM.replace("above}", "below}"), ["the claims"]),
        (TEST.replace("[11, 12]", "[11, 12, 13]") + CLAIM, ["other parts of the sweep file"]),
    ],
)
def test_a_change_since_is_said_loudly(text: str, changed: list[str], tmp_path: Path) -> None:
    frozen(tmp_path)
    file = sweep(tmp_path, text)
    known = read_frozen(file)
    assert known
    assert changes_since(file, known) == changed
    assert f"CHANGED SINCE THEY WERE FROZEN: {changed[0]}" in broken_in_words(frozen_for_manifest(file))


def test_tuned_points_that_were_chosen_anew_are_a_change(tmp_path: Path) -> None:
    file = frozen(tmp_path)
    points_in(tmp_path, POINTS[0])
    known = read_frozen(file)
    assert known
    assert changes_since(file, known) == ["the tuned points"]


def test_when_the_first_run_began_is_kept_and_compared(tmp_path: Path) -> None:
    file = frozen(tmp_path)
    known = read_frozen(file)
    assert known
    assert "before the first" not in frozen_in_words(asdict(known))
    note_first_run(file, "2999-01-02T00:00:00+00:00")
    note_first_run(file, "2999-01-01T00:00:00+00:00")
    note_first_run(file, "2999-01-03T00:00:00+00:00")
    content = frozen_for_manifest(file)
    assert "before the first test run at 2999-01-01 00:00 UTC" in frozen_in_words(content)
    assert broken_in_words(content) == ""
    early = asdict(replace(known, first_run_at="2001-01-01T00:00:00+00:00"))
    assert "THE FIRST RUN BEGAN BEFORE" in broken_in_words(early)


@pytest.mark.parametrize("text", [TEST, TEST.replace("tuned: rates\n", "") + CLAIM])
def test_without_claims_or_tuned_points_there_is_nothing_to_freeze(text: str, tmp_path: Path) -> None:
    points_in(tmp_path, *POINTS)
    file = sweep(tmp_path, text)
    assert freeze(file) is None
    assert frozen_for_manifest(file) == {}
    assert (frozen_in_words({}), broken_in_words({})) == ("", "")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    file = frozen(tmp_path)
    (tmp_path / "frozen" / "best.json").write_text('{"sweep": "best"}', encoding="utf-8")
    with pytest.raises(UserError, match="is no file of frozen claims"):
        read_frozen(file)


def test_the_first_run_freezes_them_before_anything_is_trained(
    tmp_path: Path, invoke: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    points_in(tmp_path, *POINTS)
    file = sweep(tmp_path)
    seen = []

    def train(*_: object) -> Outcome:
        seen.append(read_frozen(file))
        return Outcome()

    monkeypatch.setattr("cppo_lab.cli.sweep_runs.run_here", train)
    # With other seeds it is another sweep, whose claims nobody froze.
    invoke("sweep", str(file.path), "seed=13", "--output", str(tmp_path / "out"), "--no-report")
    _, out, _ = invoke("sweep", str(file.path), "--output", str(tmp_path / "out"), "--no-report")
    assert seen[0] is None
    assert seen[1] == read_frozen(file)
    assert seen[1] is not None
    assert "Claims frozen:" in out
