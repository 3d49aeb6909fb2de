"""Tables 1 and 4 of CPPO's paper beside what was measured here."""

from __future__ import annotations

from cppo_lab.analysis.contrasts import difference
from cppo_lab.analysis.formatting import MINUS, NONE, percent, points, points_range
from cppo_lab.analysis.method_notes import window_in_words
from cppo_lab.analysis.page.tables import Cell, Table
from cppo_lab.analysis.paper import BASELINE, BENCHMARKS, NAMES, SOURCE, TABLE_1, TABLE_4
from cppo_lab.analysis.summary import MethodResult, PanelSummary, Summary


def paper_table(summary: Summary) -> Table | None:
    """Table 1 beside the best and final accuracies measured; None where no panel holds two of the paper's methods."""
    panels = _comparable(summary)
    if not panels:
        return None
    columns: list[tuple[str, bool]] = [("method", False)]
    for model in TABLE_4:
        columns += [(model.name, True), (f"{model.name} to DPPO", True)]
    for panel in panels:
        before = f"{panel.panel}: " if panel.panel else ""
        columns += [
            (f"{before}{header}", True)
            for header in ("best in window", "best to DPPO", "final", "final to DPPO", "95% interval")
        ]
    rows = tuple(
        (
            Cell(method, method=method),
            *(cell for place in range(len(TABLE_4)) for cell in _reported(method, place)),
            *(cell for panel in panels for cell in _measured(panel, method)),
        )
        for method in NAMES
    )
    return Table(
        "paper",
        f"The paper's Table 1 ({SOURCE}: best AIME24/25/26 Avg@16 within [0, T_stop], one number each, without "
        "interval) beside the means measured here (best: highest evaluation within "
        f"{window_in_words(summary)}). Task and scale differ, so the heights do not compare: read the order of the "
        "methods and the gap to DPPO, in points (here paired by seed and starting policy; the interval is of the final "
        "gap).",
        tuple(columns),
        rows,
    )


def benchmarks_table(summary: Summary) -> Table | None:
    """Table 4 as the paper prints it; made where `paper_table` is."""
    if not _comparable(summary):
        return None
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
    ends = ", ".join(str(model.t_stop) for model in TABLE_4)
    return Table(
        "paper-benchmarks",
        f"The paper's Table 4 ({SOURCE}): Avg@16 per benchmark at the step of the best mean within [0, T_stop], "
        f"T_stop = {ends} for the models in this order.",
        (
            ("model", False),
            ("method", False),
            *((name, True) for name in BENCHMARKS),
            ("mean", True),
        ),
        rows,
    )


def _comparable(summary: Summary) -> list[PanelSummary]:
    """Panels in which two of the paper's methods, or more, have a final accuracy."""
    return [
        panel
        for panel in summary.panels
        if sum(result.group.method in NAMES and result.final is not None for result in panel.results) >= 2
    ]


def _reported(method: str, place: int) -> tuple[Cell, Cell]:
    score, dppo = TABLE_1[method][place], TABLE_1[BASELINE][place]
    if method == BASELINE or score is None or dppo is None:
        return _score(score), Cell(NONE, "")
    text = f"{score - dppo:+.2f}".replace("-", MINUS)
    return _score(score), Cell(text, round((score - dppo) / 100, 4))


def _measured(panel: PanelSummary, method: str) -> tuple[Cell, ...]:
    """Best, its gap to DPPO, final, its gap to DPPO and the interval of that."""
    result, dppo = _of_method(panel, method), _of_method(panel, BASELINE)
    if result is None or result.final is None or result.best is None:
        return (Cell(NONE, ""),) * 5
    apart = None if result is dppo else dppo
    best_gap, final_gap = (
        None if apart is None else difference(result.runs, apart.runs, score) for score in ("best", "final")
    )
    return (
        Cell.of(result.best.mean, percent),
        Cell.of(None if best_gap is None else best_gap.mean, points),
        Cell.of(result.final.mean, percent),
        Cell.of(None if final_gap is None else final_gap.mean, points),
        Cell(points_range(final_gap)),
    )


def _of_method(panel: PanelSummary, method: str) -> MethodResult | None:
    return next((result for result in panel.results if result.group.method == method), None)


def _score(value: float | None) -> Cell:
    if value is None:
        return Cell("collapse", "")
    return Cell(f"{value:.2f}%", value / 100)
