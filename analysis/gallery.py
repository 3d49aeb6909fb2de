"""Which figures a study gets, with their captions: what is drawn, what the band is, and n."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from matplotlib.figure import Figure

from analysis.figures import accuracy, differences, intervals, profiles, stability
from analysis.figures.accuracy import MOST_BANDS
from analysis.figures.stability import MOST_POINTS
from analysis.findings import ACCURACY, KL, Findings
from analysis.numbers import listed
from analysis.runs import Study
from analysis.tables import final_in_words, window_in_words

MOST_SLUG = 48


@dataclass(frozen=True)
class Exhibit:
    """A figure with its place on the page; `figure` is None where it cannot be drawn, and the caption says
    why.
    """

    name: str
    section: str
    title: str
    caption: str
    figure: Figure | None


def exhibits(study: Study, findings: Findings) -> list[Exhibit]:
    """Every figure of the report in page order."""
    return [
        _accuracy(study),
        _intervals(study, findings),
        *([_differences(study, findings)] if findings.comparisons else []),
        *(_stability(study, panel) for panel in study.grouping.panels),
        _kl(study),
        *_profiles(study),
    ]


def seeds_recorded(study: Study) -> dict[str, int]:
    """Runs of each group that recorded an accuracy after the starting policy, counted in the statistics or
    not.
    """
    if ACCURACY not in study.metrics:
        return {group.label: 0 for group in study.grouping.groups}
    rows = study.metrics[(study.metrics["step"] >= 1) & study.metrics[ACCURACY].notna()]
    return {
        group.label: int((study.runs.index[study.runs["group"] == group.label]).isin(rows["run_id"]).sum())
        for group in study.grouping.groups
    }


def seeds_in_words(study: Study) -> str:
    """How many seeds stand behind each method's line."""
    sizes = seeds_recorded(study)
    counts = sorted(set(sizes.values()))
    if len(counts) == 1:
        return f"n = {counts[0]} {'seed' if counts[0] == 1 else 'seeds'} per method"
    return "n: " + ", ".join(f"{label} {size}" for label, size in sizes.items())


def band_in_words(study: Study) -> str:
    """What the band around a mean is, for the numbers of seeds that occur."""
    sizes = list(seeds_recorded(study).values())
    parts = []
    if max(map(len, map(study.grouping.in_panel, study.grouping.panels))) > MOST_BANDS:
        return f"no bands are drawn for more than {MOST_BANDS} methods, see the intervals below"
    if any(size >= 3 for size in sizes):
        parts.append("the band is the 95% Student t interval of the mean over seeds")
    if any(size == 2 for size in sizes):
        parts.append("with two seeds the band is their range, not an interval")
    if any(size == 1 for size in sizes):
        parts.append("a single seed has no band")
    return "; ".join(parts)


def _accuracy(study: Study) -> Exhibit:
    figure = accuracy.accuracy_against_steps(study)
    caption = (
        "Accuracy on the held-out problems against training steps. Thick lines are means over seeds, thin "
        f"lines single seeds; {band_in_words(study)} ({seeds_in_words(study)}). The dashed line is the "
        "starting policy; the number beside each method is the height of its line at the "
        f"end.{_deaths(study)}"
        if figure
        else f"Cannot be drawn: no run recorded {ACCURACY}."
    )
    return Exhibit("accuracy", "accuracy", "Held-out accuracy against steps", caption, figure)


def _intervals(study: Study, findings: Findings) -> Exhibit:
    figure = intervals.final_and_best(study, findings)
    caption = (
        f"Final accuracy ({final_in_words(findings)}; filled, with the seeds as ticks above) and best accuracy "
        f"within {window_in_words(findings)} (hollow). Bars are 95% Student t intervals over seeds, cut to 0 to "
        "100%; a point without a bar has one seed. The dashed line is the mean starting policy. Best-in-window "
        "overshoots by selection."
        if figure
        else "Cannot be drawn: no run has finished."
    )
    return Exhibit("final-and-best", "accuracy", "Final and best accuracy", caption, figure)


def _differences(study: Study, findings: Findings) -> Exhibit:
    figure = differences.against_baseline(study, findings)
    pairs = sorted({comparison.pairs for comparison in findings.comparisons if comparison.pairs})
    caption = (
        "Final accuracy minus that of the baseline, run by run on the same seed and starting policy. Ticks "
        f"are pairs, bars 95% Student t intervals over pairs (n = {' or '.join(map(str, pairs))} "
        f"{'pair' if pairs == [1] else 'pairs'}; a point without a bar is one pair). A bar that crosses "
        "zero, or a Holm-adjusted p of 0.05 or more, is not resolved."
        if figure
        else "Cannot be drawn: no method shares a seed and a starting policy with the baseline."
    )
    return Exhibit("against-baseline", "accuracy", "Against the baseline", caption, figure)


def _stability(study: Study, panel: str) -> Exhibit:
    figure = stability.stability(study, panel)
    several = len(study.grouping.panels) > 1
    absent = stability.missing(study, panel)
    averaged = (
        f" Each point stands for the median of neighbouring steps, {MOST_POINTS} points in all."
        if study.metrics["step"].nunique() > MOST_POINTS
        else ""
    )
    left_out = f" Not recorded by any run, so not drawn: {listed(absent)}." if absent and figure else ""
    caption = (
        "What keeps a run alive, step by step. Lines are means over seeds (medians on the logarithmic "
        f"axes, where single rare tokens dominate a mean), thin lines single seeds; {band_in_words(study)}, "
        f"on the linear axes only ({seeds_in_words(study)}). A logarithmic axis ends at most three decades below "
        "the median of what it shows; smaller values lie below it. Masked by reason: means over steps and "
        f"seeds.{averaged}{_deaths(study)}{left_out}"
        if figure
        else "Cannot be drawn: no run recorded a stability metric."
    )
    name = f"stability-{_slug(panel)}" if several else "stability"
    return Exhibit(
        name, "stability", f"Step by step, {panel}" if several else "Step by step", caption, figure
    )


def _kl(study: Study) -> Exhibit:
    figure = accuracy.accuracy_against_kl(study)
    caption = (
        "Held-out accuracy against the k3 KL divergence from the rollout policies, summed over steps: what "
        "a method bought with the distance it moved. Thick lines pair the mean accuracy with the median KL "
        "over seeds, thin lines are single seeds. A step without updates spends none; an accuracy reached "
        "before any was spent has no place on the logarithmic axis."
        if figure
        else f"Cannot be drawn: no run recorded both {ACCURACY} and {KL}."
    )
    return Exhibit("accuracy-against-kl", "stability", "Accuracy against KL spent", caption, figure)


def _profiles(study: Study) -> list[Exhibit]:
    if study.profiles.empty:
        return []
    out = []
    several = len(study.grouping.panels) > 1
    for panel in study.grouping.panels:
        figure = profiles.position_profile(study, panel)
        if figure is None:
            continue
        out.append(
            Exhibit(
                f"positions-{_slug(panel)}" if several else "positions",
                "stability",
                f"By position in the response, {panel}" if several else "By position in the response",
                "Divergence, its top decile, tokens masked and the threshold in force against relative "
                "position, averaged over all recorded steps and seeds with the number of tokens as weight. "
                "A method without a divergence threshold has no line in the last picture.",
                figure,
            )
        )
    return out


def _deaths(study: Study) -> str:
    if not (study.runs["status"] == "FAILED").any():
        return ""
    return " A red cross marks where a run failed; means of accuracy carry it on at its last value."


def _slug(text: str) -> str:
    """A short file name for a panel; a long one is cut and told apart by a checksum."""
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "all"
    return slug if len(slug) <= MOST_SLUG else f"{slug[:MOST_SLUG]}-{zlib.crc32(text.encode()):08x}"
