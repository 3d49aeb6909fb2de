"""What the mask hits: response tokens counted by what they are, where they stand, and how likely and certain they were.

Every token counts once per update that used it. Each cell (a token, a class, a bin) has the numbers of `COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from cppo_lab.diagnostics.token_classes import CLASSES, described
from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.log_ratios import read_logp
from cppo_lab.objectives.objective import TokenObjective
from cppo_lab.objectives.prefixes import positions

REASONS = ("threshold", "budget", "correction")
"""Why a token adds less to the gradient, or nothing: the token-level threshold (its response's, or a selection), the
prefix budget alone, or a correction that rejects what the trust region keeps."""
COLUMNS = ("tokens", *REASONS, "weight", *(f"{reason}_weight" for reason in REASONS))
"""Tokens and those masked by each reason; then |A| rho, the weight that plain policy gradient gives them, and how much
of it each reason took away."""
SIGNS = ("negative", "zero", "positive")
POSITION_BINS = 10
ENTROPY_EDGES = (0.01, 0.1, 0.3, 1.0, 2.0)
"""In nats, of pi at the update."""
PROBABILITY_EDGES = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99)
"""Of mu, when the token was sampled."""
MOST_TOKENS = 1000
"""Tokens that the file names; of a larger vocabulary, those masked most often."""


def _bins(edges: tuple[float, ...]) -> list[str]:
    between = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    return [f"below {edges[0]:g}", *between, f"{edges[-1]:g} or more"]


_CELLS: dict[str, list[str]] = {
    "position": [
        f"{100 * i // POSITION_BINS} to {100 * (i + 1) // POSITION_BINS}%" for i in range(POSITION_BINS)
    ],
    "entropy": _bins(ENTROPY_EDGES),
    "probability": _bins(PROBABILITY_EDGES),
    "sign": list(SIGNS),
}
"""The cells of each axis but the tokens', in the order of the table's rows."""


class MaskedTokenCounter:
    """Counts a run's tokens over its updates; float64 sums on the device, one row per token and per cell.

    Reads nothing back from the device before `content`, draws nothing at random and changes nothing it is given.
    """

    def __init__(self, vocabulary: int, device: torch.device | str = "cpu") -> None:
        self._vocabulary = vocabulary
        rows = vocabulary + sum(map(len, _CELLS.values()))
        self._table = torch.zeros(rows, len(COLUMNS), dtype=torch.float64, device=device)
        self.steps = 0

    @torch.no_grad()
    def update(self, tokens: Tensor, batch: TokenBatch, objective: TokenObjective) -> None:
        """Add one micro-batch: the sampled `tokens` [B, T] int64, the batch and its objective."""
        mask = batch.response_mask
        values = torch.stack([column[mask].double() for column in _columns(objective)], dim=-1)
        rows = torch.stack([tokens[mask], *self._rows(batch, objective)])
        self._table.index_add_(0, rows.flatten(), values.repeat(len(rows), 1))

    def _rows(self, batch: TokenBatch, objective: TokenObjective) -> list[Tensor]:
        """The row of each response token [N] on every axis of `_CELLS` that the batch has."""
        mask = batch.response_mask
        share = (positions(mask) - 1) / mask.sum(-1, keepdim=True).clamp(min=1)
        bins = {
            "position": (share[mask] * POSITION_BINS).long().clamp(0, POSITION_BINS - 1),
            "probability": _binned(read_logp(batch.rollout_logp, mask)[mask].exp(), PROBABILITY_EDGES),
            "sign": objective.advantages[mask].sign().long() + 1,
        }
        if batch.entropy is not None:
            bins["entropy"] = _binned(batch.entropy.detach()[mask], ENTROPY_EDGES)
        first, rows = self._vocabulary, []
        for axis, cells in _CELLS.items():
            if axis in bins:
                rows.append(bins[axis] + first)
            first += len(cells)
        return rows

    def content(self, tokenizer: Any) -> dict[str, Any]:
        """All counts so far, for masked_tokens.json; `tokenizer` names and classifies the tokens."""
        table = self._table.cpu()
        by_token: dict[str, list[float]] = {}
        by_class = {name: [0.0] * len(COLUMNS) for name in CLASSES}
        for token in table[: self._vocabulary, 0].nonzero().flatten().tolist():
            text, name = described(tokenizer, token)
            found = table[token].tolist()
            by_token[text] = _sum(by_token.get(text), found)
            by_class[name] = _sum(by_class[name], found)
        cells = {"token": _most_masked(by_token), "class": by_class}
        first = self._vocabulary
        for axis, names in _CELLS.items():
            found = table[first : first + len(names)].tolist()
            cells[axis] = dict(zip(names, found, strict=True))
            first += len(names)
        return {
            "steps": self.steps,
            "columns": list(COLUMNS),
            "tokens_left_out": len(by_token) - len(cells["token"]),
            "total": _written(table[: self._vocabulary].sum(0).tolist()),
            "cells": {
                axis: {name: _written(row) for name, row in rows.items() if row[0]}
                for axis, rows in cells.items()
            },
        }

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"table": self._table.cpu(), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._table.copy_(state["table"])
        self.steps = state["steps"]


def _columns(objective: TokenObjective) -> list[Tensor]:
    """The numbers of `COLUMNS` for every token, each [B, T]."""
    weight = objective.advantages.abs() * objective.log_ratio.exp()
    # A gate that reflects the gradient takes no more than all of it.
    taken = weight * (1 - objective.gate).clamp(max=1)
    by_threshold, by_budget = objective.masked_by_threshold, objective.masked_by_budget
    rejected = torch.zeros_like(by_threshold)
    if objective.correction is not None:
        rejected = (objective.correction == 0) & ~objective.masked
    reasons = [by_threshold, by_budget, rejected]
    lost = [taken * by_threshold, taken * by_budget, weight * rejected]
    return [torch.ones_like(weight), *reasons, weight, *lost]


def _binned(values: Tensor, edges: tuple[float, ...]) -> Tensor:
    """The bin of each value [N]: 0 below the first edge, one more from each edge on."""
    inner = torch.tensor(edges, dtype=values.dtype, device=values.device)
    return torch.bucketize(values, inner, right=True)


def _sum(known: list[float] | None, more: list[float]) -> list[float]:
    return more if known is None else [a + b for a, b in zip(known, more, strict=True)]


def _most_masked(by_token: dict[str, list[float]]) -> dict[str, list[float]]:
    """At most MOST_TOKENS tokens, those masked most often first."""

    def rank(item: tuple[str, list[float]]) -> tuple[float, float, str]:
        return -sum(item[1][1 : 1 + len(REASONS)]), -item[1][0], item[0]

    return dict(sorted(by_token.items(), key=rank)[:MOST_TOKENS])


def _written(row: list[float]) -> list[float]:
    """Counts as whole numbers, weights to six digits."""
    counts = 1 + len(REASONS)
    return [int(value) for value in row[:counts]] + [float(f"{value:.6g}") for value in row[counts:]]
