"""Numbers in reports: accuracies in percent with one decimal, differences in percentage points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # A plan names its runs' groups, and needs no SciPy.
    from cppo_lab.analysis.statistics import Estimate

NONE = "–"
MINUS = "−"


def percent(value: float | None) -> str:
    """Share 0..1 as percent with one decimal."""
    return NONE if _absent(value) else f"{100 * float(value or 0.0):.1f}%"


def points(value: float | None) -> str:
    """Difference of shares as signed percentage points with one decimal."""
    if _absent(value):
        return NONE
    number = round(100 * float(value or 0.0), 1)
    sign = "+" if number > 0 else MINUS if number < 0 else "±"
    return f"{sign}{abs(number):.1f}"


def signed(value: float) -> str:
    """A plain difference with its sign and three decimals."""
    return f"{value:+.3f}".replace("-", MINUS)


def size_in_points(value: float | None) -> str:
    """Size of a difference of shares in percentage points, without its sign."""
    return NONE if _absent(value) else f"{abs(100 * float(value or 0.0)):.1f}"


def probability(value: float | None) -> str:
    """A probability with two decimals."""
    return NONE if _absent(value) else f"{float(value or 0.0):.2f}"


def percent_range(estimate: Estimate | None) -> str:
    """Interval of a share as percent, cut to the possible range 0..100."""
    if estimate is None or not estimate.shows_interval:
        return _no_interval(estimate)
    return f"{100 * max(0.0, estimate.low):.1f} to {100 * min(1.0, estimate.high):.1f}"


def points_range(estimate: Estimate | None) -> str:
    """Interval of a difference in points."""
    if estimate is None or not estimate.shows_interval:
        return _no_interval(estimate)
    return f"{points(estimate.low)} to {points(estimate.high)}"


def _no_interval(estimate: Estimate | None) -> str:
    return NONE if estimate is None or estimate.n < 2 else f"n = {estimate.n}: no interval"


def p_value(value: float | None) -> str:
    """p with two significant digits, bounded below by 0.001."""
    if _absent(value):
        return NONE
    number = float(value or 0.0)
    return "< 0.001" if number < 0.001 else f"{number:.3f}" if number < 0.1 else f"{number:.2f}"


def significant(value: float | None, digits: int = 3) -> str:
    """A plain number with `digits` significant digits."""
    return NONE if _absent(value) else f"{float(value or 0.0):.{digits}g}"


def count(value: float | None) -> str:
    """A whole number with thousands separated by a narrow space."""
    return NONE if _absent(value) else f"{round(float(value or 0.0)):,}".replace(",", "\u202f")


def magnitude(value: float | None) -> str:
    """A large number with two significant digits and its unit: 0.13 M, 8.2 B."""
    if _absent(value):
        return NONE
    number = float(value or 0.0)
    return f"{number / 1e9:.2g} B" if number >= 1e9 else f"{number / 1e6:.2g} M"


def engineering(value: float | None) -> str:
    """A large number with three significant digits and an SI prefix: 41.2 G."""
    if _absent(value):
        return NONE
    number = float(value or 0.0)
    for limit, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {prefix}"
    return f"{number:.3g}"


def seconds(value: float | None) -> str:
    """A duration in a readable unit."""
    if _absent(value):
        return NONE
    total = float(value or 0.0)
    if total < 100:
        return f"{total:.1f} s" if total < 10 else f"{total:.0f} s"
    minutes, rest = divmod(round(total), 60)
    if minutes < 100:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def listed(names: Sequence[str]) -> str:
    """Names as a list in a sentence."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def plural(number: int, noun: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _absent(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def tidy(value: str) -> str:
    """A very small or large number in its shortest notation (0.0002 as 2e-4), any other text as it is."""
    try:
        number = float(value)
    except ValueError:
        return value
    if number == 0 or 1e-3 <= abs(number) < 1e6 or number != number or abs(number) == float("inf"):
        return value
    mantissa, exponent = f"{number:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
