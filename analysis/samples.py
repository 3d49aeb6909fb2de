"""A few responses to read, made safe to show."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

from analysis.folders import read_samples
from analysis.runs import Study

MOST_CHARACTERS = 900
MOST_METHODS = 8
MOST_TOKENS = 400


@dataclass(frozen=True)
class Token:
    """One token of a response: its text made visible, why it was masked ("" where it was not), and its numbers."""

    text: str
    masked: str
    note: str


@dataclass(frozen=True)
class Sample:
    """One response; `completion` is cut and has its invisible characters written out.

    `tokens` holds at most MOST_TOKENS of its tokens, and none where the run did not record them.
    """

    method: str
    label: str
    run_id: str
    step: int | None
    right: bool
    prompt: str
    completion: str
    cut: int
    answer: str
    parsed: str
    facts: tuple[tuple[str, str], ...]
    tokens: tuple[Token, ...] = ()
    more_tokens: int = 0


def choose(study: Study) -> list[Sample]:
    """One right and one wrong response of every method (eight at most), from its first run's last sample
    file.
    """
    chosen: list[Sample] = []
    for group in study.grouping.groups[:MOST_METHODS]:
        runs = study.runs[study.runs["group"] == group.label]
        for run_id, run in runs.iterrows():
            step, rows = read_samples(run["folder"])
            if not rows:
                continue
            # Those whose tokens were recorded say more.
            rows = sorted(rows, key=lambda row: not row.get("tokens"))
            right = next((row for row in rows if _reward(row) > 0), None)
            wrong = next((row for row in rows if _reward(row) <= 0), None)
            chosen += [
                _sample(group.method, group.label, str(run_id), step, row)
                for row in (right, wrong)
                if row is not None
            ]
            break
    return chosen


def visible(text: str) -> str:
    """The text with control, format and direction characters as \\u escapes, newline and tab kept.

    Left as they are, such characters could reverse or hide what follows them on the page.
    """
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
        else f"\\u{ord(character):04x}"
        for character in text
    )


def _sample(method: str, label: str, run_id: str, step: int | None, row: dict[str, Any]) -> Sample:
    completion = str(row.get("completion") or "")
    facts = [
        ("reward", _plain(row.get("reward"))),
        ("advantage", _plain(row.get("advantage"))),
        ("length", _plain(row.get("length"))),
        ("ended by", _plain(row.get("finish"))),
    ]
    if isinstance(row.get("masked_share"), (int, float)):
        facts.append(("tokens masked", f"{100 * row['masked_share']:.1f}%"))
    return Sample(
        method=method,
        label=label,
        run_id=run_id[:12],
        step=step,
        right=_reward(row) > 0,
        prompt=visible(str(row.get("prompt") or "")[:MOST_CHARACTERS]),
        completion=visible(completion[:MOST_CHARACTERS]),
        cut=max(0, len(completion) - MOST_CHARACTERS),
        answer=visible(_plain(row.get("answer"))[:80]),
        parsed=visible(_plain(row.get("parsed"))[:80]),
        facts=tuple((name, visible(value[:40])) for name, value in facts),
        tokens=_tokens(row.get("tokens")),
        more_tokens=max(0, len((row.get("tokens") or {}).get("text", ())) - MOST_TOKENS),
    )


_NUMBERS = (
    ("divergence", "D"),
    ("weight", "weight"),
    ("threshold", "threshold"),
    ("ratio", "ratio"),
    ("advantage", "advantage"),
)


def _tokens(record: dict[str, Any] | None) -> tuple[Token, ...]:
    if not record:
        return ()
    return tuple(
        Token(visible(str(text)), str(reason), _note(record, place, str(reason)))
        for place, (text, reason) in enumerate(
            zip(record["text"][:MOST_TOKENS], record["masked"], strict=False)
        )
    )


def _note(record: dict[str, Any], place: int, reason: str) -> str:
    """What hovering over a token says, such as `token 3: D 0.2, weight 0.98, masked by threshold`."""
    said = [
        f"{name} {_plain(record[key][place])}"
        for key, name in _NUMBERS
        if record.get(key) is not None and record[key][place] is not None
    ]
    said.append(
        {"threshold": "masked by the threshold", "budget": "masked by the budget"}.get(reason, "kept")
    )
    return f"token {place + 1}: " + ", ".join(said)


def _reward(row: dict[str, Any]) -> float:
    value = row.get("reward")
    return float(value) if isinstance(value, (int, float)) else 0.0


def _plain(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
