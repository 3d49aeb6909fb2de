"""What CPPO's paper (arXiv:2606.10968v2) reports, and a table that lays it beside what was measured here.

The numbers are AIME24/25/26 Avg@16 in percent, one run per model and method: the paper gives neither seeds nor
intervals. Table 1 is also on its project page (chongqichuizi875.github.io/CPPO-Project-Page); the column AVG of Table 4
repeats it. `cppo` here is the setting of the Base models; the post-trained Qwen3-1.7B ran with a fixed budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cppo_lab.analysis.comparisons import paired_gap
from cppo_lab.analysis.findings import Findings, PanelFindings
from cppo_lab.analysis.numbers import MINUS, NONE, percent, points, points_range
from cppo_lab.analysis.results import MethodResult
from cppo_lab.analysis.tables import Cell, Table, window_in_words

SOURCE = "arXiv:2606.10968v2"
BASELINE = "dppo_topk_tv"
BENCHMARKS = ("AIME24", "AIME25", "AIME26")


@dataclass(frozen=True)
class Checkpoint:
    """One row of Table 4: the scores (percent) at the step of the best mean; all None where the run collapsed."""

    aime24: float | None
    aime25: float | None
    aime26: float | None
    mean: float | None


@dataclass(frozen=True)
class PaperModel:
    """A model of the paper, the last step of its matched window, and its block of Table 4 by the lab's method names."""

    name: str
    t_stop: int
    checkpoints: Mapping[str, Checkpoint]


# The rows of Tables 1 and 4 in their order.
NAMES: Mapping[str, str] = MappingProxyType(
    {
        "grpo": "GRPO",
        "minpro": "MinPRO",
        "cispo": "CISPO",
        "dppo_topk_tv": "DPPO",
        "trm_max": "TRM-Max",
        "trm_avg": "TRM-Avg",
        "cppo": "CPPO",
    }
)


def _block(*rows: tuple[float | None, float | None, float | None, float | None]) -> Mapping[str, Checkpoint]:
    return MappingProxyType(
        {method: Checkpoint(*row) for method, row in zip(NAMES, rows, strict=True)},
    )


COLLAPSE = (None, None, None, None)

# Table 1: best mean within [0, T_stop]; its columns are the models below.
TABLE_1: Mapping[str, tuple[float | None, ...]] = MappingProxyType(
    {
        "grpo": (27.91, 8.89, 23.96, 38.19),
        "minpro": (27.71, 11.04, 29.72, 48.12),
        "cispo": (28.82, 11.87, 29.58, None),
        "dppo_topk_tv": (28.19, 10.90, 28.89, 49.23),
        "trm_max": (25.21, 9.72, 26.73, 20.27),
        "trm_avg": (26.87, 11.70, 27.98, 48.96),
        "cppo": (31.88, 12.78, 31.11, 54.79),
    }
)

# Table 4, Appendix D. CISPO diverged on Qwen3-30B-A3B-Base at step 215.
TABLE_4: tuple[PaperModel, ...] = (
    PaperModel(
        "Qwen3-1.7B",
        1120,
        _block(
            (30.41, 28.75, 24.58, 27.91),
            (26.87, 32.71, 23.54, 27.71),
            (30.62, 28.12, 27.71, 28.82),
            (31.04, 28.22, 25.31, 28.19),
            (26.46, 22.91, 26.25, 25.21),
            (29.79, 25.41, 25.41, 26.87),
            (34.79, 30.63, 30.21, 31.88),
        ),
    ),
    PaperModel(
        "Qwen3-1.7B-Base",
        680,
        _block(
            (11.25, 6.87, 8.54, 8.89),
            (16.04, 10.41, 6.66, 11.04),
            (15.62, 12.08, 7.91, 11.87),
            (13.96, 8.33, 10.41, 10.90),
            (14.16, 7.29, 7.71, 9.72),
            (15.41, 10.21, 9.48, 11.70),
            (15.21, 12.71, 10.42, 12.78),
        ),
    ),
    PaperModel(
        "Qwen3-8B-Base",
        490,
        _block(
            (25.21, 23.75, 22.91, 23.96),
            (35.21, 26.04, 27.91, 29.72),
            (32.91, 25.41, 30.41, 29.58),
            (30.21, 26.87, 29.58, 28.89),
            (28.33, 24.37, 27.50, 26.73),
            (31.46, 25.00, 27.50, 27.98),
            (34.58, 30.00, 28.75, 31.11),
        ),
    ),
    PaperModel(
        "Qwen3-30B-A3B-Base",
        560,
        _block(
            (43.75, 32.71, 38.12, 38.19),
            (52.91, 38.54, 52.91, 48.12),
            COLLAPSE,
            (57.29, 39.58, 50.83, 49.23),
            (26.46, 20.41, 13.96, 20.27),
            (54.37, 37.08, 55.41, 48.96),
            (64.79, 43.13, 56.46, 54.79),
        ),
    ),
)


def reported_differences(treatment: str, baseline: str | None) -> list[float]:
    """Shares by which `treatment` is above `baseline` in Table 1, of each model on which neither collapsed; none where
    the table lacks one of them.
    """
    if baseline is None or treatment not in TABLE_1 or baseline not in TABLE_1:
        return []
    pairs = zip(TABLE_1[treatment], TABLE_1[baseline], strict=True)
    return [(ours - theirs) / 100 for ours, theirs in pairs if ours is not None and theirs is not None]


def paper_table(findings: Findings) -> Table | None:
    """Table 1 beside the best and final accuracies measured; None where no panel holds two of the paper's methods."""
    panels = _comparable(findings)
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
        f"{window_in_words(findings)}). Task and scale differ, so the heights do not compare: read the order of the "
        "methods and the gap to DPPO, in points (here paired by seed and starting policy; the interval is of the final "
        "gap).",
        tuple(columns),
        rows,
    )


def benchmarks_table(findings: Findings) -> Table | None:
    """Table 4 as the paper prints it; made where `paper_table` is."""
    if not _comparable(findings):
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


def _comparable(findings: Findings) -> list[PanelFindings]:
    """Panels in which two of the paper's methods, or more, have a final accuracy."""
    return [
        panel
        for panel in findings.panels
        if sum(result.group.method in NAMES and result.final is not None for result in panel.results) >= 2
    ]


def _reported(method: str, place: int) -> tuple[Cell, Cell]:
    score, dppo = TABLE_1[method][place], TABLE_1[BASELINE][place]
    if method == BASELINE or score is None or dppo is None:
        return _score(score), Cell(NONE, "")
    text = f"{score - dppo:+.2f}".replace("-", MINUS)
    return _score(score), Cell(text, round((score - dppo) / 100, 4))


def _measured(panel: PanelFindings, method: str) -> tuple[Cell, ...]:
    """Best, its gap to DPPO, final, its gap to DPPO and the interval of that."""
    result, dppo = _of_method(panel, method), _of_method(panel, BASELINE)
    if result is None or result.final is None or result.best is None:
        return (Cell(NONE, ""),) * 5
    apart = None if result is dppo else dppo
    best_gap, final_gap = (
        None if apart is None else paired_gap(result, apart, score) for score in ("best", "final")
    )
    return (
        Cell.of(result.best.mean, percent),
        Cell.of(None if best_gap is None else best_gap.mean, points),
        Cell.of(result.final.mean, percent),
        Cell.of(None if final_gap is None else final_gap.mean, points),
        Cell(points_range(final_gap)),
    )


def _of_method(panel: PanelFindings, method: str) -> MethodResult | None:
    return next((result for result in panel.results if result.group.method == method), None)


def _score(value: float | None) -> Cell:
    if value is None:
        return Cell("collapse", "")
    return Cell(f"{value:.2f}%", value / 100)
