"""The table "Tuned at": the settings that methods run at, and how they were found."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from cppo_lab.analysis.formatting import plural
from cppo_lab.analysis.page.tables import Cell, Column, Table

Point = Mapping[str, Any]


def tuned_table(tuned: Mapping[str, Any]) -> Table | None:
    """The tuned points of a sweep's runs; None where they are not tuned."""
    points = tuned.get("points")
    if not points:
        return None
    seeds = tuned.get("seeds") or ()
    shared = {key for key in ("model", "task") if len({point["panel"].get(key) for point in points}) == 1}
    return Table.of(
        "tuned",
        f"Tuned at: the setting of each method, chosen by the study {tuned.get('study')} on "
        f"{plural(len(seeds), 'seed')} that no run here has. Tuned value: its mean final accuracy there, ± standard "
        "error; the highest of all trials, and so a little too high. Regret: how much lower the published setting was "
        "on the same seeds. Error of the choice: the standard error that comes from choosing on these seeds, which "
        "differences between methods, their intervals and the claims here count; the interval of one method's accuracy "
        "is that of the setting it was tuned to, over the test seeds alone.",
        (
            Column("method", lambda point: Cell(point["method"], method=point["method"]), numeric=False),
            Column("panel", lambda point: Cell(_panel(point, shared)), numeric=False),
            Column("tuned settings", lambda point: Cell(" ".join(point["overrides"])), numeric=False),
            Column("trials", lambda point: Cell(str(point["trials"]), point["trials"])),
            Column("tuned value", lambda point: _with_error(point["accuracy"], point["stderr"])),
            Column(
                "published setting",
                lambda point: Cell(_setting(point["published"]["setting"])),
                numeric=False,
            ),
            Column("its value", lambda point: _with_error(point["published"]["accuracy"], None)),
            Column(
                "its regret",
                lambda point: _with_error(point["published"]["regret"], point["published"]["stderr"]),
            ),
            Column("error of the choice", lambda point: _with_error(point.get("choice_error"), None)),
            Column("notes", lambda point: Cell("; ".join(point["notes"])), numeric=False),
        ),
        points,
    )


def _panel(point: Point, shared: Collection[str]) -> str:
    """The panel without the choices that all points share."""
    return ", ".join(f"{key}={value}" for key, value in point["panel"].items() if key not in shared)


def _setting(setting: Mapping[str, float]) -> str:
    return " ".join(f"{key}={value:g}" for key, value in setting.items())


def _with_error(value: float | None, error: float | None) -> Cell:
    """In points."""
    if value is None:
        return Cell("not tried", "")
    return Cell(f"{100 * value:.1f}" + ("" if error is None else f" ± {100 * error:.1f}"), value)
