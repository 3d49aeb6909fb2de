"""Writes the responses that a run keeps of its steps, as `experience.sample_rows` does, token records included."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

HOSTILE = "<script>alert(1)</script>"
RIGHT_TO_LEFT = "\u202eסוף\u200b **bold** [a](javascript:alert(1)) #### 9 0"
LONG_TOKENS = 450
DELTA = 0.15
_PROMPTS = (
    ("leo has 29 cards, triples them, finds 5. how many?\n", "92"),
    ("mia has 8 pears, gets 4, eats 3. how many?\n", "9"),
)


def sample_rows(algo: str, step: int, recorded: bool) -> list[dict[str, Any]]:
    """Two prompts: to one a right, a wrong, a right-to-left and a very long response, to the other right ones alone.

    recorded: whether the step was evaluated, so that tokens were recorded; those of a group without differences never
    are, as no update saw them.
    """
    generator = np.random.default_rng(zlib.crc32(f"{algo} {step}".encode()))
    first = [
        (("<<", "29*3=", "87", ">>", "<<", "87+5=", "92", ">>", "\n", "####", " ", "92"), "92", "stop"),
        (("<<", "29*3=", "86", ">>", HOSTILE, "````", " | ", "`x`", " ####", " ", "91"), "91", "stop"),
        (tuple(RIGHT_TO_LEFT.split(" ")), "90", "stop"),
        (("8", "7", " +", " 5", " = ") * (LONG_TOKENS // 5), None, "length"),
    ]
    solved = (("<<", "8+4=", "12", ">>", "<<", "12-3=", "9", ">>", "####", " 9"), "9", "stop")
    rows = [
        _row(_PROMPTS[0], tokens, parsed, finish, 1.2 if parsed == "92" else -0.4)
        for tokens, parsed, finish in first
    ]
    for row, (tokens, _, _) in zip(rows, first, strict=True):
        if recorded:
            row["tokens"] = token_record(algo, tokens, row["advantage"], generator)
    return rows + [_row(_PROMPTS[1], *solved, 0.0) for _ in range(4)]


def token_record(
    algo: str, texts: tuple[str, ...], advantage: float, generator: np.random.Generator
) -> dict[str, Any]:
    """A record as `token_records.TokenRecorder` makes it: the columns of the method, and masks that fit them."""
    count = len(texts)
    ratio = np.exp(generator.normal(0, 0.4, count))
    divergence = np.abs(ratio - 1) * generator.uniform(0, 0.5, count)
    has_divergence, has_budget = algo not in ("pg", "grpo"), algo == "cppo"
    weight = np.linspace(1.0, 0.8, count) if has_budget else np.ones(count)
    threshold = np.where(np.arange(count) % 7 == 6, DELTA / 3, DELTA) if has_budget else np.full(count, DELTA)
    away = advantage * (ratio - 1) > 0
    beyond = weight * divergence
    masked = np.where(
        away & (beyond > DELTA), "threshold", np.where(away & (beyond > threshold), "budget", "")
    )
    if algo == "grpo":
        masked = np.where(away & (np.abs(ratio - 1) > 0.2), "threshold", "")
    return {
        "text": list(texts),
        "anchor": "old" if algo == "grpo" else "rollout",
        "delta": DELTA if has_divergence else None,
        "divergence": _short(divergence) if has_divergence else None,
        "weight": _short(weight) if has_budget else None,
        "threshold": _short(threshold) if has_divergence else None,
        "ratio": _short(ratio),
        "advantage": _short(np.full(count, advantage)),
        "masked": masked.tolist() if has_divergence or algo == "grpo" else [""] * count,
    }


def _row(
    problem: tuple[str, str], tokens: tuple[str, ...], parsed: str | None, finish: str, advantage: float
) -> dict[str, Any]:
    prompt, answer = problem
    right = parsed == answer
    return {
        "prompt": prompt,
        "completion": "".join(tokens),
        "answer": answer,
        "parsed": parsed,
        "verdict": "correct" if right else "wrong" if parsed else "unparsable",
        "reward": float(right),
        "advantage": advantage,
        "length": len(tokens),
        "finish": finish,
        "tokens": None,
    }


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]
