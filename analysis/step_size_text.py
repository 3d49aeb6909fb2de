"""What is left beyond a smaller step, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cppo_lab.analysis.contrasts import Contrast
from cppo_lab.analysis.controls import AT_BEST, FEWER_EPOCHS, SAME_KL, Control
from cppo_lab.analysis.formatting import points, points_range
from cppo_lab.analysis.good_range import GoodRange, Sensitivity
from cppo_lab.analysis.grids import value_text
from cppo_lab.analysis.step_size import RangeContrast, StepSize

HEADING = "How much is a smaller step?"
PLAIN = "plain policy gradient"
NOTES = (
    "A trust region makes steps smaller, and so does a smaller learning rate. A method is therefore credited only "
    "with what it adds to the best of these controls: plain policy gradient at its own best setting, at the "
    "learning rate that moves the policy as far per rollout, and with fewer epochs, where such runs exist.",
    "Each at its best: the seeds are split in halves many times; one half chooses the setting of both methods, and "
    "the other half is compared at it, so that no run is judged at a setting that it helped to choose. The "
    "interval is Student's t with the error of a bootstrap over seeds that repeats the choice as well.",
    "At the same KL: plain policy gradient's final accuracy is interpolated in log KL at the median KL per step of "
    "the method at its best, averaged over seeds, and compared seed by seed. Where the weights that sample differ "
    "from those that train, this KL includes their difference, and small rates look alike.",
    "Tests are Holm-adjusted over all methods and controls of a panel. A method is above only if it is above every "
    "control, and below if it is below one.",
)
TUNED_NOTE = (
    "Each at its best: the settings were tuned on other seeds than these, so that this is the plain paired difference; "
    "its interval counts the error of the choice of either."
)
RANGE_NOTE = (
    "Good range: octaves (doublings) of the setting over which mean final accuracy is within 3 points of its "
    "highest, with straight lines between the settings tried on a logarithmic axis and a bootstrap interval over "
    "seeds. At least: the range reaches the smallest or largest setting tried."
)


def control_sentences(known: StepSize) -> list[tuple[str, tuple[str, ...]]]:
    """One sentence for every method, by panel."""
    panels = dict.fromkeys(control.panel for control in known.controls)
    return [
        (panel, tuple(control_sentence(control) for control in known.controls if control.panel == panel))
        for panel in panels
    ]


def control_sentence(control: Control) -> str:
    """`cppo at its best (lr=1e-4): +2.5 points over plain policy gradient at its best (...); ...; credited: +1.0.`"""
    start = f"{control.method} at its best ({control.point}): "
    told = [
        text
        for name, over in (
            (AT_BEST, f"over {PLAIN} at its best ({control.baseline_point})"),
            (SAME_KL, f"at the same KL{_at_rate(control.matched)}"),
            (FEWER_EPOCHS, "over its best with fewer epochs"),
        )
        if (text := _told(name, over, control, is_first=name == AT_BEST))
    ]
    credited = control.credited
    if credited is None:
        return (
            f"{start}{'; '.join(told)}."
            if told
            else f"{start}too few seeds to choose its setting by other ones."
        )
    verdict = {"higher": "resolved", "lower": "resolved below a control"}.get(control.verdict, "inconclusive")
    return f"{start}{'; '.join(told)}; credited: {points(credited.mean)} ({verdict})."


def range_text(good: GoodRange) -> str:
    """The octaves of a good range: `1.6`, or `at least 1.6` where it reaches the end of what was tried."""
    return f"{'at least ' if good.is_censored else ''}{good.octaves.mean:.1f}"


def open_end(curve: Sensitivity) -> str:
    """Where a method's best setting or its good range lies at the end of what was tried, in words."""
    if not curve.is_interior:
        return "best at the smallest tried" if curve.best == 0 else "best at the largest tried"
    ends = {(True, False): "smallest", (False, True): "largest", (True, True): "smallest and largest"}
    reached = ends.get((curve.good.open_below, curve.good.open_above))
    return f"good up to the {reached} tried" if reached else ""


def range_difference(found: RangeContrast) -> str:
    """The difference of two good ranges in octaves with its interval."""
    seen = found.contrast.estimate
    if seen is None:
        return ""
    bound = "" if found.at_least == found.at_most else "at least " if found.at_least else "at most "
    interval = f" ({_signed(seen.low)} to {_signed(seen.high)})" if seen.shows_interval else ""
    return f"{bound}{_signed(seen.mean)}{interval}"


def range_verdict(found: RangeContrast) -> str:
    """`wider`, `narrower` or `inconclusive`; a bound is no evidence against what lies beyond it."""
    verdict = found.contrast.verdict
    if verdict == "higher":
        return "wider" if not found.at_most else "inconclusive (a range reaches the end of what was tried)"
    if verdict == "lower":
        return (
            "narrower" if not found.at_least else "inconclusive (a range reaches the end of what was tried)"
        )
    return verdict


def _told(name: str, over: str, control: Control, is_first: bool) -> str:
    found = control.controls.get(name)
    reason = control.why_not.get(name, "")
    if found is None or found.estimate is None:
        return (
            f"no number at the same KL: it {reason}" if name == SAME_KL and reason.startswith("moves") else ""
        )
    unit = " points" if is_first else ""
    return f"{points(found.estimate.mean)}{unit} {over} ({_interval(found)}{f'; {reason}' if reason else ''})"


def _at_rate(rate: float) -> str:
    return f" (which it has at lr={value_text(float(f'{rate:.2g}'))})" if math.isfinite(rate) else ""


def _interval(found: Contrast) -> str:
    seen = found.estimate
    if seen is None or not seen.has_interval:
        return f"n = {found.n}"
    return f"95% CI {points_range(seen)}, n = {found.n}" if seen.shows_interval else points_range(seen)


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def explained(known: StepSize) -> Sequence[str]:
    """What a reader must know of these numbers."""
    notes = (NOTES[0], TUNED_NOTE, *NOTES[2:]) if known.is_tuned else NOTES
    return (*(notes if known.controls else ()), *((RANGE_NOTE,) if known.curves else ()))
