"""What CPPO's paper (arXiv:2606.10968v2) reports.

The numbers are AIME24/25/26 Avg@16 in percent, one run per model and method: the paper gives neither seeds nor
intervals. Table 1 is also on its project page (chongqichuizi875.github.io/CPPO-Project-Page); the column AVG of Table 4
repeats it. `cppo` here is the setting of the Base models; the post-trained Qwen3-1.7B ran with a fixed budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

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
