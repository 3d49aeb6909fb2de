"""Which figures a study gets, with their captions: what is drawn, what the band is, and n."""

from __future__ import annotations

from cppo_lab.analysis.figures import accuracy, differences, intervals, mismatch, stability
from cppo_lab.analysis.figures.stability import MOST_POINTS
from cppo_lab.analysis.formatting import listed
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.page import mechanisms
from cppo_lab.analysis.page.exhibit import Exhibit, band_in_words, deaths_in_words, of_panel, seeds_in_words
from cppo_lab.analysis.page.tables import final_in_words, window_in_words
from cppo_lab.analysis.run_table import ACCURACY, KL
from cppo_lab.analysis.summary import Findings


def exhibits(study: Study, findings: Findings) -> list[Exhibit]:
    """Every figure of the report in page order."""
    return [
        _accuracy(study),
        _intervals(study, findings),
        *([_differences(study, findings)] if findings.comparisons else []),
        *(_stability(study, panel) for panel in study.grouping.panels),
        _kl(study),
        Exhibit(
            "mismatch",
            "stability",
            "Rollout against training log-probabilities",
            mismatch.caption(study),
            mismatch.mismatch(study),
        ),
        *mechanisms.exhibits(study),
    ]


def _accuracy(study: Study) -> Exhibit:
    figure = accuracy.accuracy_against_steps(study)
    caption = (
        "Accuracy on the held-out problems against training steps. Thick lines are means over seeds, thin "
        f"lines single seeds; {band_in_words(study)} ({seeds_in_words(study)}). The dashed line is the "
        "starting policy; the number beside each method is the height of its line at the "
        f"end.{deaths_in_words(study)}"
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
    absent = stability.missing(study, panel)
    averaged = (
        f" Each point stands for the median of neighbouring steps, {MOST_POINTS} points in all."
        if study.metrics["step"].nunique() > MOST_POINTS
        else ""
    )
    left_out = f" Not recorded by any run, so not drawn: {listed(absent)}." if absent and figure else ""
    caption = (
        "What keeps a run alive, step by step (the paper's Figures 8 to 11). Lines are means over seeds (medians "
        "on the logarithmic axes, where single rare tokens dominate a mean), thin lines single seeds; "
        f"{band_in_words(study)}, on the linear axes only ({seeds_in_words(study)}). A logarithmic axis ends at most "
        "three decades below the median of what it shows; smaller values lie below it. Masked by reason: means over "
        f"steps and seeds.{averaged}{deaths_in_words(study)}{left_out}"
        if figure
        else "Cannot be drawn: no run recorded a stability metric."
    )
    name, title = of_panel(study, panel, "stability", "Step by step")
    return Exhibit(name, "stability", title, caption, figure)


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
