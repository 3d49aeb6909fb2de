"""How alike two methods' masks were, in words: measured on the same tokens, or a bound from their shares."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_folders import write_sweep

from cppo_lab.analysis.load.mask_agreement import mask_agreement_sentences
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.diagnostics.mask_overlap import mask_rule_id
from cppo_lab.objectives.named import method
from cppo_lab.objectives.selections import SelectionSpec

Invoke = Callable[..., tuple[int, str, str]]


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def record(folders: list[Path], both: list[list[int]]) -> None:
    """Give every run its rule, and cppo's runs the other's rule on their tokens."""
    for folder in folders:
        name = folder.name.split("-")[0]
        change(folder / "run.json", mask_rule=name)
        if name == "cppo":
            row = {"step": 4, "rules": ["cppo", "x"], "rule_ids": ["cppo", "dppo_tv"], "tokens": 1000}
            row |= {"masked": [both[0][0], both[1][1]], "both": both}
            (folder / "agreement.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("both", "share", "nearly"), [([[40, 30], [30, 60]], "96.0%", False), ([[2, 1], [1, 2]], "99.8%", True)]
)
def test_masks_of_the_same_tokens_are_compared(
    both: list[list[int]], share: str, nearly: bool, tmp_path: Path
) -> None:
    record(write_sweep(tmp_path, algos=("dppo_tv", "cppo"), seeds=(0, 1)), both)
    (said,) = mask_agreement_sentences(load_study(tmp_path, "quickstart"))
    assert f"The masks of dppo_tv and cppo were the same on {share} of tokens" in said
    assert "measured on the tokens of cppo" in said
    assert ("can hardly make a difference" in said) == nearly


def test_without_a_common_record_the_shares_give_a_bound_that_is_said_to_be_one(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("grpo", "cppo"), seeds=(0, 1), baseline="cppo")
    (said,) = mask_agreement_sentences(load_study(tmp_path, "quickstart"))
    assert "at least 9" in said
    assert "a bound: grpo masked" in said


def test_of_methods_that_mask_nothing_nothing_is_said(tmp_path: Path) -> None:
    write_sweep(
        tmp_path,
        algos=("pg", "reinforce"),
        seeds=(0,),
        baseline="pg",
        missing_metrics={"reinforce": ["mask/share"]},
    )
    assert mask_agreement_sentences(load_study(tmp_path, "quickstart")) == []


def test_compare_says_it(tmp_path: Path, invoke: Invoke) -> None:
    folders = write_sweep(tmp_path, algos=("dppo_tv", "cppo"), seeds=(0,))
    record(folders, [[2, 1], [1, 2]])
    code, out, err = invoke("compare", *(folder.name for folder in folders), "-o", str(tmp_path))
    assert code == 0, err
    assert "were the same on 99.8% of tokens" in out


def test_a_rule_is_known_by_what_decides_its_mask() -> None:
    dppo = method("dppo_tv")
    region = dppo.trust_region
    assert mask_rule_id(dppo) == mask_rule_id(dppo.replace(name="other", anchor="old", force_anchor=True))
    assert mask_rule_id(dppo) != mask_rule_id(dppo.replace(trust_region=region.replace(delta=0.3)))
    assert mask_rule_id(method("dppo_topk_tv")) != mask_rule_id(dppo)
    assert mask_rule_id(method("grpo")) == mask_rule_id(method("grpo_tis"))
    assert mask_rule_id(method("clip_cov")) != mask_rule_id(
        method("clip_cov").replace(selection=SelectionSpec())
    )
