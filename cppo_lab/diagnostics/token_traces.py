"""Token traces: divergence, threshold and mask of each token, for the few responses that a run saves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.objective import TokenObjective

_DIGITS = 5
_MOST_BYTES_OF_A_CHARACTER = 4


class TokenRecorder:
    """Records the tokens of the responses `rows` of a rollout, as of the last update of a step that used them.

    Each record has one entry per response token: `divergence` D_t, `weight` w_t, `threshold` c_t (what w_t D_t is
    compared with), `prefix_threshold` (what the prefix leaves, c_t before its cap at delta), `ratio` of the surrogate,
    `advantage`, and `masked` ("threshold", "budget" or ""); None for what the method does not have. `delta` is the
    token-level threshold of this step.
    """

    def __init__(self, rows: Sequence[int]) -> None:
        self._rows = frozenset(rows)
        self._records: dict[int, dict[str, Any]] = {}

    @torch.no_grad()
    def update(self, rows: Tensor, batch: TokenBatch, objective: TokenObjective) -> None:
        """Add one micro-batch; `rows` [N] are the rows of its responses in the rollout."""
        for place, row in enumerate(rows.tolist()):
            if row in self._rows:
                self._records[row] = _record(place, batch.response_mask[place], objective)

    def of(self, row: int) -> dict[str, Any] | None:
        """The record of a response; None if no update used it because its group was skipped."""
        return self._records.get(row)


def _record(place: int, mask: Tensor, objective: TokenObjective) -> dict[str, Any]:
    def column(values: Tensor | None) -> list[float | None] | None:
        return None if values is None else [_short(value) for value in values[place][mask].tolist()]

    by_threshold = objective.masked_by_threshold[place][mask].tolist()
    by_budget = objective.masked_by_budget[place][mask].tolist()
    return {
        "anchor": objective.anchor,
        "delta": objective.thresholds.delta,
        "divergence": column(objective.divergence),
        "weight": column(objective.weights),
        "threshold": column(objective.threshold),
        "prefix_threshold": column(objective.prefix_threshold),
        "ratio": column(objective.ratio),
        "advantage": column(objective.advantages),
        "masked": [
            "threshold" if first else "budget" if second else ""
            for first, second in zip(by_threshold, by_budget, strict=True)
        ],
    }


def _short(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def token_texts(tokenizer: Any, tokens: Sequence[int]) -> list[str]:
    """The text that each token adds to a response. Of a character in several tokens, the last one has it all."""
    texts: list[str] = []
    pending: list[int] = []
    # Some decoders strip the space before the first token they are given.
    before: list[int] = []
    for token in tokens:
        pending.append(token)
        text = tokenizer.decode([*before, *pending]).removeprefix(tokenizer.decode(before) if before else "")
        if text.endswith("\ufffd") and len(pending) < _MOST_BYTES_OF_A_CHARACTER:
            texts.append("")
            continue
        texts.append(text)
        before, pending = pending, []
    return texts
