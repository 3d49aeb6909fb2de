"""How alike the masks of two methods were: on the same tokens where that was recorded, else as a bound."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pandas as pd

from cppo_lab.analysis.formatting import percent
from cppo_lab.analysis.grouping import Group
from cppo_lab.analysis.load.run_record import read_json_lines
from cppo_lab.analysis.load.study import Study

NEARLY_THE_SAME = 0.998
"""Two methods whose masks agree on at least this share of tokens can hardly be told apart by their regions."""
MASKED = "mask/share"


def mask_agreement_sentences(study: Study) -> list[str]:
    """For each two methods of a panel, how many tokens their masks agreed on; nothing where neither masks anything or
    masked shares were not recorded.
    """
    found = []
    for panel in study.grouping.panels:
        for first, second in combinations(study.grouping.in_panel(panel), 2):
            sentence = _measured(study, first, second) or _bound(study, first, second)
            if sentence:
                found.append(sentence)
    return found


def _measured(study: Study, first: Group, second: Group) -> str | None:
    """From agreement.jsonl: the rule of one method was applied to the tokens of the other."""
    for own, other in ((first, second), (second, first)):
        tokens, same = _counts(study, own, other)
        if tokens:
            return (
                f"{_opening(first, second, same / tokens)} (measured on the tokens of {own.label}, in the last "
                "epochs of its evaluated steps)."
            )
    return None


def _counts(study: Study, own: Group, other: Group) -> tuple[int, int]:
    """Tokens of `own`'s runs on which the rule of `other` was applied too, and those that both treated alike."""
    rule = _rule(study, other)
    tokens = same = 0
    for _, run in _runs(study, own).iterrows():
        # Without a mismatch pi_old is the rollout policy: the anchor does not matter.
        exact = run.get("config.engine.kind") == "native" and run.get("config.engine.weights") == "same"
        if rule is None or (not exact and _anchor(study, other) != "rollout"):
            continue
        for row in read_json_lines(Path(run["folder"]) / "agreement.jsonl")[0]:
            ids = row.get("rule_ids") or []
            if rule in ids[1:] and row.get("tokens"):
                place = ids.index(rule, 1)
                both = row["both"]
                tokens += row["tokens"]
                same += row["tokens"] - both[0][0] - both[place][place] + 2 * both[0][place]
    return tokens, same


def _bound(study: Study, first: Group, second: Group) -> str | None:
    """From the masked shares alone: masks that share no token differ most."""
    shares = [_masked_share(study, group) for group in (first, second)]
    if any(share is None for share in shares) or not any(shares):
        return None
    one, two = (share or 0.0 for share in shares)
    opening = _opening(first, second, max(0.0, 1 - one - two), "at least ")
    return (
        f"{opening} (a bound: {first.label} masked {percent(one)} of its tokens, {second.label} {percent(two)}; their "
        "masks were not compared on the same tokens)."
    )


def _opening(first: Group, second: Group, share: float, qualified: str = "") -> str:
    nearly = ", so their regions can hardly make a difference" if share >= NEARLY_THE_SAME else ""
    pair = f"{first.label} and {second.label}"
    return f"The masks of {pair} were the same on {qualified}{percent(share)} of tokens{nearly}"


def _masked_share(study: Study, group: Group) -> float | None:
    if MASKED not in study.metrics:
        return None
    rows = study.metrics[study.metrics["run_id"].isin(_runs(study, group).index)]
    mean = rows[MASKED].mean()
    return None if pd.isna(mean) else float(mean)


def _rule(study: Study, group: Group) -> str | None:
    """What identifies the rule that makes the masks of a method, as its runs recorded it."""
    found = {study.provenance[str(run)].get("mask_rule") for run in _runs(study, group).index}
    return str(found.pop()) if len(found) == 1 and None not in found else None


def _anchor(study: Study, group: Group) -> str:
    runs = _runs(study, group)
    return str(runs["config.algo.anchor"].iloc[0]) if "config.algo.anchor" in runs else ""


def _runs(study: Study, group: Group) -> pd.DataFrame:
    return study.runs[study.runs["group"] == group.label]
