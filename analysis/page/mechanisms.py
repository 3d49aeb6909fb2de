"""The figures that say why a method did as it did: which tokens it masked, where, and by which mechanism."""

from __future__ import annotations

from matplotlib.figure import Figure

from cppo_lab.analysis.figures import ablations, agreement, budgets, heatmaps, profiles, response
from cppo_lab.analysis.formatting import listed
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.page.exhibit import Exhibit, band_in_words, of_panel, seeds_in_words

SECTION = "mechanisms"
NO_PROFILES = (
    "Cannot be drawn: no run recorded profiles by position (profiles.jsonl), or none has been evaluated yet."
)


def exhibits(study: Study) -> list[Exhibit]:
    """Every figure of the section, panel by panel."""
    return [
        make(study, panel)
        for panel in study.grouping.panels
        for make in (_positions, _response, _budgets, _divergence_map, _masking_map, _agreement, _ablations)
    ]


def _exhibit(
    study: Study, panel: str, name: str, title: str, figure: Figure | None, caption: str, reason: str
) -> Exhibit:
    name, title = of_panel(study, panel, name, title)
    return Exhibit(name, SECTION, title, caption if figure else reason, figure)


def _positions(study: Study, panel: str) -> Exhibit:
    return _exhibit(
        study,
        panel,
        "positions",
        "By position in the response",
        profiles.position_profile(study, panel),
        "Divergence, its top decile, tokens masked and the threshold in force on D (c_t / w_t) against relative "
        "position, averaged over all recorded steps and seeds with the number of tokens as weight (the paper's "
        "Figure 2). A method without a divergence threshold has no line in the last picture.",
        NO_PROFILES,
    )


def _response(study: Study, panel: str) -> Exhibit:
    shown = response.responses(study, panel)
    named = listed([f"{one.method}: run {one.run_id[:12]}, step {one.step}" for one in shown])
    return _exhibit(
        study,
        panel,
        "threshold-along-a-response",
        "The threshold along a response",
        response.threshold_along_responses(shown),
        "Each bar is a token's weighted divergence w D in the last update that saw it, coloured by what became of "
        "the token; a tall bar that was kept moved the policy back toward the rollout policy. The dashed line is the "
        "token-level threshold, the dotted one what the prefix leaves, the solid one the smaller of the two, which "
        "is in force (the paper's Figure 3). Of the recorded responses with a token masked by the "
        "budget (or else by the threshold), it is the one with the median number of masked tokens; bars end at the "
        f"top of the picture ({named}).",
        "Cannot be drawn: no method with a divergence threshold recorded the tokens of a response "
        "(trainer.samples_per_step).",
    )


def _budgets(study: Study, panel: str) -> Exhibit:
    return _exhibit(
        study,
        panel,
        "prefix-budget",
        "The prefix budget at work",
        budgets.budget_figure(study, panel),
        "The budget in force, δ_b, averaged over responses; the share of masked tokens that only the budget masks (the "
        "paper's Figure 7; a step in which nothing was masked has none); and how much of it responses use by their "
        f"end, S_T / W_T. Lines are means over seeds; {band_in_words(study)} ({seeds_in_words(study)}).",
        "Cannot be drawn: no method here has a prefix budget.",
    )


def _divergence_map(study: Study, panel: str) -> Exhibit:
    return _exhibit(
        study,
        panel,
        "divergence-map",
        "Divergence by position and step",
        heatmaps.divergence_map(study, panel),
        "Mean divergence of the tokens at a relative position in the updates of a step, over seeds, weighted by "
        "tokens. One logarithmic scale for all methods; each method's own divergence, or |π − μ| of the sampled "
        "token for a method without one.",
        NO_PROFILES,
    )


def _masking_map(study: Study, panel: str) -> Exhibit:
    return _exhibit(
        study,
        panel,
        "masking-map",
        "Masking by position and step",
        heatmaps.masking_map(study, panel),
        "Share of the tokens at a relative position that were masked in the updates of a step, over seeds, weighted "
        "by tokens. Methods that mask nothing are left out.",
        "Cannot be drawn: no method masked a token, or no run recorded profiles by position.",
    )


def _agreement(study: Study, panel: str) -> Exhibit:
    return _exhibit(
        study,
        panel,
        "rule-agreement",
        "Do rules mask the same tokens?",
        agreement.rule_agreement(study, panel),
        "In the last epoch of every evaluated step, one rule of each family was asked about the very tokens the "
        "method trained on, with its paper's thresholds and the rollout policy as anchor. Off the diagonal: of the "
        "tokens that either rule masks, the share that both mask (Jaccard); on it: the share of all tokens the rule "
        "masks. TRM masks whole responses. The first row is the method itself.",
        "Cannot be drawn: no run recorded it (agreement.jsonl), or no token was trained on.",
    )


def _ablations(study: Study, panel: str) -> Exhibit:
    absent = ablations.missing(study, panel)
    left_out = f" Not drawn, for want of runs: {'; '.join(absent)}." if absent else ""
    return _exhibit(
        study,
        panel,
        "ablations",
        "Ablations",
        ablations.ablation_panels(study, panel),
        "Held-out accuracy against steps, as in the paper's Figures 5 and 6; DPPO stands under each where it ran. "
        f"Lines are means over seeds; {band_in_words(study)} ({seeds_in_words(study)}).{left_out}",
        "Cannot be drawn: these runs hold no ablation of CPPO. It takes, in one panel, the methods of one of the "
        f"paper's comparisons: {'; '.join(absent)}.",
    )
