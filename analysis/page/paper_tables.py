"""Tables 1 and 4 of CPPO's paper next to what was measured here."""

from __future__ import annotations

from collections.abc import Callable

from cppo_lab.analysis.contrasts import difference
from cppo_lab.analysis.formatting import MINUS, NONE, percent, points, points_range
from cppo_lab.analysis.method_notes import window_in_words
from cppo_lab.analysis.page.tables import Cell, Column, Table
from cppo_lab.analysis.paper import BASELINE, BENCHMARKS, NAMES, SOURCE, TABLE_1, TABLE_4
from cppo_lab.analysis.statistics import Estimate
from cppo_lab.analysis.summary import MethodResult, PanelSummary, Summary


def paper_table(summary: Summary) -> Table | None:
    """Table 1 next to the best and final accuracies measured; None where no panel has two of the paper's methods."""
    panels = _comparable(summary)
    if not panels:
        return None
    columns: list[Column[str]] = [Column("method", lambda method: Cell(method, method=method), numeric=False)]
    for place, model in enumerate(TABLE_4):
        columns += _reported(model.name, place)
    for panel in panels:
        columns += _measured(panel)
    return Table.of(
        "paper",
        f"The paper's Table 1 ({SOURCE}: best AIME24/25/26 Avg@16 within [0, T_stop], one number each, no "
        "interval) next to the means measured here (best: highest evaluation within "
        f"{window_in_words(summary)}). Task and scale differ, so accuracies are not comparable: compare the order of "
        "the methods and their distance from DPPO, in points (here paired by seed and starting policy; the interval is "
        "that of the final distance).",
        columns,
        NAMES,
    )


def benchmarks_table(summary: Summary) -> Table | None:
    """Table 4 as printed in the paper; made where `paper_table` is."""
    if not _comparable(summary):
        return None
    ends = ", ".join(str(model.t_stop) for model in TABLE_4)
    rows = tuple(
        (
            Cell(model.name),
            Cell(NAMES[method], method=method),
            *(
                _score(score)
                for score in (checkpoint.aime24, checkpoint.aime25, checkpoint.aime26, checkpoint.mean)
            ),
        )
        for model in TABLE_4
        for method, checkpoint in model.checkpoints.items()
    )
    return Table(
        "paper-benchmarks",
        f"The paper's Table 4 ({SOURCE}): Avg@16 per benchmark at the step of the best mean within [0, T_stop], "
        f"T_stop = {ends} for the models in this order.",
        (("model", False), ("method", False), *((name, True) for name in (*BENCHMARKS, "mean"))),
        rows,
    )


def _comparable(summary: Summary) -> list[PanelSummary]:
    """Panels in which two or more of the paper's methods have a final accuracy."""
    return [
        panel
        for panel in summary.panels
        if sum(result.group.method in NAMES and result.final is not None for result in panel.results) >= 2
    ]


def _reported(model: str, place: int) -> tuple[Column[str], Column[str]]:
    """The score of a model in Table 1, and its distance from DPPO's."""

    def distance(method: str) -> Cell:
        score, dppo = TABLE_1[method][place], TABLE_1[BASELINE][place]
        if method == BASELINE or score is None or dppo is None:
            return Cell(NONE, "")
        return Cell(f"{score - dppo:+.2f}".replace("-", MINUS), round((score - dppo) / 100, 4))

    return (
        Column(model, lambda method: _score(TABLE_1[method][place])),
        Column(f"{model} to DPPO", distance),
    )


def _measured(panel: PanelSummary) -> tuple[Column[str], ...]:
    """Best and final accuracy of a panel, their distances from DPPO's, and the interval of the last."""
    known = {result.group.method: result for result in panel.results if result.final and result.best}

    def of(show: Callable[[MethodResult], Cell]) -> Callable[[str], Cell]:
        return lambda method: show(known[method]) if method in known else Cell(NONE, "")

    def distance(result: MethodResult, score: str) -> Estimate | None:
        if BASELINE not in known or result.group.method == BASELINE:
            return None
        return difference(result.runs, known[BASELINE].runs, score)

    before = f"{panel.panel}: " if panel.panel else ""
    return (
        Column(f"{before}best in window", of(lambda r: Cell.mean(r.best, percent))),
        Column(f"{before}best to DPPO", of(lambda r: Cell.mean(distance(r, "best"), points))),
        Column(f"{before}final", of(lambda r: Cell.mean(r.final, percent))),
        Column(f"{before}final to DPPO", of(lambda r: Cell.mean(distance(r, "final"), points))),
        Column(f"{before}95% interval", of(lambda r: Cell(points_range(distance(r, "final"))))),
    )


def _score(value: float | None) -> Cell:
    if value is None:
        return Cell("collapse", "")
    return Cell(f"{value:.2f}%", value / 100)
