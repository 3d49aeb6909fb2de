"""The claims of a sweep file: a contrast (`cppo - dppo_topk_tv`, or one method), a score and its expected sign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cppo_lab.errors import UserError, one_of

EXPECTATIONS = ("above", "below", "equal", "not zero")
MARGIN = 0.03
"""Differences in accuracy below three points count as equal."""
ACCURACIES = ("final", "best", "area")
MARGINS = {
    **dict.fromkeys(ACCURACIES, MARGIN),
    # A tenth of the mean deviation.
    "deviation_early_minus_late": 0.1,
    "budget_start_minus_end": 0.0,
    "budget_share": 0.0,
    "masked_share": 0.0,
}
"""The scores, and the difference in each that counts as equal."""
CREDITED, GOOD_RANGE = "credited", "good_range"
MEASURES = {
    **dict.fromkeys(("at_best", "same_kl", "fewer_epochs", CREDITED), MARGIN),
    # Half an octave of the axis.
    GOOD_RANGE: 0.5,
}
"""What a claim can be about in place of a score (`measures`), and the difference in each that counts as equal."""
_MEASURES_IN_WORDS = {
    "at_best": "each at its best",
    "same_kl": "at the same KL",
    "fewer_epochs": "against fewer epochs",
    CREDITED: "credited",
    GOOD_RANGE: "octaves in the good range",
}
_KEYS = {"says", "contrast", "score", "measure", "axis", "expect", "than", "at", "between", "headline", "own"}


@dataclass(frozen=True)
class Claim:
    """One claim. `at` selects runs by their values on axes; `between` takes the difference of the contrast between two
    values of one axis; `than` is subtracted from the score. A `measure` takes the place of the score: of both methods
    at their best, or of good ranges along `axis`. A `headline` is shown in the README; the lab's `own` questions are
    not counted among the paper's claims.
    """

    says: str
    treatment: str
    baseline: str | None
    score: str
    expect: str
    than: float
    at: Mapping[str, tuple[str, ...]]
    between: tuple[str, str, str] | None
    headline: bool
    own: bool = False
    measure: str | None = None
    axis: str | None = None

    @property
    def margin(self) -> float:
        """The difference in its score or measure that counts as equal."""
        return MEASURES[self.measure] if self.measure else MARGINS[self.score]

    @property
    def is_of_accuracy(self) -> bool:
        """Whether its score or measure is an accuracy, given in points."""
        return self.measure != GOOD_RANGE if self.measure else self.score in ACCURACIES

    @property
    def quantity(self) -> str:
        """What is compared, in words; empty for final accuracy."""
        if self.measure:
            along = f" of {self.axis}" if self.axis else ""
            return f"{_MEASURES_IN_WORDS[self.measure]}{along}"
        return "" if self.score == "final" else self.score.replace("_", " ")


@dataclass(frozen=True)
class Planned:
    """One run that a sweep plans, and its place in the run table; `is_tuned` of one at its method's tuned point."""

    panel: str
    method: str
    seeds: str
    axes: Mapping[str, str]
    is_tuned: bool = False


def read_claims(name: str, content: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """The claims of a sweep file. Raises UserError for a malformed one."""
    return [_claim(f"{name}: claims", each) for each in content]


def _claim(place: str, content: Mapping[str, Any]) -> Claim:
    for key in content:
        if key not in _KEYS:
            raise one_of(place, str(key), _KEYS)
    for key in ("says", "contrast", "expect"):
        if not isinstance(content.get(key), str):
            raise UserError(f"{place}: a claim needs the text '{key}'.")
    if content["expect"] not in EXPECTATIONS:
        raise one_of(f"{place}: expect", content["expect"], EXPECTATIONS)
    named = str(content.get("score", "final"))
    if named not in MARGINS:
        raise one_of(f"{place}: score", named, MARGINS)
    than = content.get("than", 0.0)
    for key in ("headline", "own"):
        if not isinstance(content.get(key, False), bool):
            raise UserError(f"{place}: {key}={content[key]}: must be true or false.")
    if isinstance(than, bool) or not isinstance(than, int | float):
        raise UserError(f"{place}: than={than}: must be a number.")
    treatment, _, baseline = content["contrast"].partition(" - ")
    measure, axis = _measure(place, content, bool(baseline))
    at = content.get("at") or {}
    if not isinstance(at, Mapping):
        raise UserError(f"{place}: at={at}: must be a mapping from axes to values.")
    return Claim(
        says=content["says"],
        treatment=treatment.strip(),
        baseline=baseline.strip() or None,
        score=named,
        expect=content["expect"],
        than=float(than),
        at={str(key): _texts(value) for key, value in at.items()},
        between=_between(place, content.get("between")),
        headline=content.get("headline", False),
        own=content.get("own", False),
        measure=measure,
        axis=axis,
    )


def _measure(place: str, content: Mapping[str, Any], has_baseline: bool) -> tuple[str | None, str | None]:
    """The measure of a claim and its axis."""
    measure, axis = content.get("measure"), content.get("axis")
    if measure is None:
        if axis is not None:
            raise UserError(f"{place}: axis={axis}: goes with measure={GOOD_RANGE} alone.")
        return None, None
    if measure not in MEASURES:
        raise one_of(f"{place}: measure", str(measure), MEASURES)
    other = next((key for key in ("score", "than", "between") if key in content), None)
    if other is not None:
        raise UserError(
            f"{place}: {other}={content[other]}: goes with a score, and measure={measure} is none."
        )
    if not has_baseline:
        raise UserError(
            f"{place}: contrast={content['contrast']}: measure={measure} compares two methods (a - b)."
        )
    if measure == CREDITED and content["expect"] != "above":
        raise UserError(
            f"{place}: expect={content['expect']}: measure={CREDITED} can only be expected above."
        )
    if (measure == GOOD_RANGE) != isinstance(axis, str):
        raise UserError(
            f"{place}: axis={axis}: must name the axis of measure={GOOD_RANGE}, such as trainer.lr, and of no other."
        )
    return str(measure), axis


def _between(place: str, content: Any) -> tuple[str, str, str] | None:
    if content is None:
        return None
    if isinstance(content, Mapping) and len(content) == 1:
        ((axis, values),) = content.items()
        if isinstance(values, list) and len(values) == 2:
            return str(axis), str(values[0]), str(values[1])
    raise UserError(f"{place}: between={content}: must be one axis with a list of two of its values.")


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else (str(value),)
