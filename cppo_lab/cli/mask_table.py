"""`inspect --by`: what the mask of a run hit, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from cppo_lab.cli.console import console, count, plural, print_json, table
from cppo_lab.errors import UserError, one_of

if TYPE_CHECKING:
    from cppo_lab.analysis.load.masked_tokens import MaskCounts, MaskedTokens

DEFAULT_TOP = 20


def show_masked_tokens(folder: Path, axis: str, top: int, as_json: bool) -> None:
    """Print the `top` cells of an axis. Raises UserError for an unknown axis, and for a run that counted nothing."""
    from cppo_lab.analysis.load.masked_tokens import AXES, read_masked_tokens

    if axis not in AXES:
        raise one_of("--by", axis, list(AXES))
    seen = read_masked_tokens(folder)
    if seen is None:
        raise UserError(
            f"{folder.name}: has no counts of masked tokens yet (masked_tokens.json, written with every checkpoint; "
            "runs of earlier versions have none)."
        )
    cells = seen.by(axis)
    if as_json:
        rows = [_row(name, counts, seen) for name, counts in cells[:top]]
        print_json({"run": folder.name, "by": axis, "steps": seen.steps, "cells": rows})
        return
    _print(folder.name, axis, cells[:top], seen)
    rest = len(cells) - top + (seen.left_out if axis == "token" else 0)
    if rest > 0:
        console().print(f"{plural(rest, 'row')} more (--top).", style="dim")


def _row(name: str, counts: MaskCounts, seen: MaskedTokens) -> dict[str, object]:
    total = seen.total
    return {
        "cell": name,
        "tokens": counts.tokens,
        "masked": counts.all_masked,
        **{f"masked_by_{reason}": value for reason, value in counts.masked.items()},
        "share_of_masked": _ratio(counts.all_masked, total.all_masked),
        "mask_rate": _ratio(counts.all_masked, counts.tokens),
        "weight_dropped": counts.all_dropped,
        "share_of_weight_dropped": _ratio(counts.all_dropped, total.all_dropped),
        "weight_dropped_in_cell": _ratio(counts.all_dropped, counts.weight),
    }


def _print(run: str, axis: str, cells: list[tuple[str, MaskCounts]], seen: MaskedTokens) -> None:
    reasons = [reason for reason, value in seen.total.masked.items() if value]
    title = (
        f"{run}: {count(seen.total.all_masked)} of {count(seen.total.tokens)} tokens masked over {seen.steps} steps, "
        "each counted once per update"
    )
    shown = table(
        Text(title, "bold"),
        *(axis, "tokens", "masked", *(f"by {reason}" for reason in reasons)),
        *("of all masked", "masked here", "weight dropped here", "of all dropped"),
    )
    for name, counts in [*cells, ("all", seen.total)]:
        row = _row(name, counts, seen)
        shown.add_row(
            Text(
                _named(axis, name) if counts is not seen.total else "all",
                "" if counts is not seen.total else "dim",
            ),
            *(count(value) for value in (counts.tokens, counts.all_masked)),
            *(count(counts.masked.get(reason, 0.0)) for reason in reasons),
            _percent(row["share_of_masked"]),
            _percent(row["mask_rate"]),
            _percent(row["weight_dropped_in_cell"]),
            _percent(row["share_of_weight_dropped"]),
        )
    console().print(shown)
    console().print(
        "Weight: |A| ρ, what plain policy gradient gives a token; dropped: what the mask took away of it.",
        style="dim",
    )


def _named(axis: str, name: str) -> str:
    """A token in quotes, so that spaces show; any other cell as it is."""
    from cppo_lab.analysis.safe_text import brief, visible

    return repr(visible(brief(name, 40))) if axis == "token" else name


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _percent(value: object) -> str:
    from cppo_lab.analysis.formatting import percent

    return percent(value if isinstance(value, float) else None)
