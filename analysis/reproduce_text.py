"""Agreement of fresh seeds with committed rows, in words: three verdicts, three different sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cppo_lab.analysis.contrasts import POWER
from cppo_lab.analysis.formatting import listed, p_value, plural, points, signed, size_in_points
from cppo_lab.analysis.reproduce import AGREES, CANNOT_TELL, DISAGREES, Replication

ASSUMPTION = (
    "The spread between seeds is pooled from committed and fresh pairs, which assumes that it is the same on both "
    "machines; p values are Holm-adjusted over these contrasts."
)


def sentence(found: Replication) -> str:
    """The verdict on one contrast, with what was measured and what could have been."""
    place = f" ({found.panel})" if found.panel else ""
    head = f"{found.says}{place}: "
    if found.fresh.estimate is None or found.committed.estimate is None:
        return f"{head}{CANNOT_TELL}, since no fresh pair of runs has finished."
    if not math.isfinite(found.error):
        return f"{head}{CANNOT_TELL}, since too few pairs are committed to know their spread."
    unit = " points" if found.is_of_accuracy else ""
    seen = (
        f"{_change(found, found.fresh.estimate.mean)}{unit} on {plural(found.fresh.n, 'fresh pair')} and "
        f"{_change(found, found.committed.estimate.mean)} on {found.committed.n} committed ones"
    )
    low, high = (_change(found, end) for end in found.interval)
    gap = f"{_change(found, found.difference)} between the means ({low} to {high})"
    if found.verdict == AGREES:
        return f"{head}{AGREES} within {size(found, found.margin)}: {seen}; {gap}."
    if found.verdict == DISAGREES:
        return f"{head}{DISAGREES.upper()} ({_p(found.p_different)}): {seen}; {gap}."
    return f"{head}{CANNOT_TELL} at n = {found.fresh.n}: {seen}; {gap}. {power(found, found.fresh.n)}"


def power(found: Replication, pairs: int) -> str:
    """What `pairs` fresh pairs find, and how many would show agreement."""
    detects = (
        f"A difference of {size(found, found.detectable(pairs))} is detected with {POWER:.0%} probability"
    )
    needed = found.seeds_to_agree
    if math.isfinite(needed):
        shows = f"about {plural(int(needed), 'fresh seed')} show agreement within {size(found, found.margin)}"
    else:
        shows = f"no number of fresh seeds shows agreement within {size(found, found.margin)}"
    return f"{detects}; if there is none, {shows}."


def conclusion(found: Sequence[Replication]) -> str:
    """How many contrasts agree, disagree, or cannot be told."""
    counts = [(verdict, sum(each.verdict == verdict for each in found)) for verdict in _SAID]
    said = [_SAID[verdict].format(number) for verdict, number in counts if number]
    return f"Of {plural(len(found), 'contrast')}, {listed(said)}."


_SAID = {
    AGREES: "{} agree with the committed rows",
    DISAGREES: "{} DISAGREE with them",
    CANNOT_TELL: "{} cannot be told with so few seeds",
}


def _p(value: float) -> str:
    shown = p_value(value)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def size(found: Replication, value: float) -> str:
    """The size of a difference in the contrast's score."""
    if not math.isfinite(value):
        return "unknown size"
    return f"{size_in_points(value)} points" if found.is_of_accuracy else f"{abs(value):.3g}"


def _change(found: Replication, value: float) -> str:
    return points(value) if found.is_of_accuracy else signed(value)
