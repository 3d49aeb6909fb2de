"""What the mask hits: counts against the objective's own masks, over micro-batches, resumed, and as a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import golden_vectors as golden
import pytest
import torch
from tiny_runs import tiny_config

from cppo_lab.diagnostics.masked_tokens import COLUMNS, MaskedTokenCounter
from cppo_lab.diagnostics.token_classes import CLASSES, described, token_class
from cppo_lab.models.tokenizers import trained_tokenizer, vocabulary_tokenizer
from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.named import method
from cppo_lab.objectives.objective import token_objective
from cppo_lab.tasks.chain import VOCABULARY
from cppo_lab.tracking.run_folder import MASKED_TOKENS, RunFolder, run_folder
from cppo_lab.training.run import run

Invoke = Callable[..., tuple[int, str, str]]
TOKENIZER = vocabulary_tokenizer(VOCABULARY)
AXES = ("token", "class", "position", "entropy", "probability", "sign")


def sampled(batch: TokenBatch) -> torch.Tensor:
    """Some token of the embedded task's vocabulary at every place."""
    places = torch.arange(batch.logp.numel()).view(batch.logp.shape)
    return 4 + places % (len(TOKENIZER) - 4)


def counted(batch: TokenBatch, name: str, pieces: int = 1) -> dict[str, Any]:
    counter, tokens = MaskedTokenCounter(len(TOKENIZER)), sampled(batch)
    for rows in torch.arange(batch.logp.shape[0]).chunk(pieces):
        part = batch.rows(rows)
        counter.update(tokens[rows], part, token_objective(part, method(name)))
    return counter.content(TOKENIZER)


def summed(cells: Mapping[str, list[float]]) -> list[float]:
    return [sum(column) for column in zip(*cells.values(), strict=True)]


@pytest.mark.parametrize("case", ["base", "edge", "flip", "mismatch"])
@pytest.mark.parametrize("name", ["pg", "dppo_tv", "cppo_binary", "trm_avg"])
def test_every_axis_counts_every_token_and_every_masked_one_once(case: str, name: str) -> None:
    batch = golden.load(case, torch.float64)
    objective = token_objective(batch, method(name))
    weight = (objective.advantages.abs() * objective.log_ratio.exp())[batch.response_mask]
    taken = weight * (1 - objective.gate[batch.response_mask])
    found = counted(batch, name)
    total = dict(zip(COLUMNS, found["total"], strict=True))
    assert total["tokens"] == int(batch.response_mask.sum())
    assert total["threshold"] == int(objective.masked_by_threshold.sum())
    assert total["budget"] == int(objective.masked_by_budget.sum())
    assert total["weight"] == pytest.approx(float(weight.sum()), rel=1e-5)
    lost = total["threshold_weight"] + total["budget_weight"]
    assert lost == pytest.approx(float(taken.sum()), rel=1e-5, abs=1e-9)
    axes = [axis for axis in AXES if axis != "entropy" or batch.entropy is not None]
    for axis in axes:
        assert summed(found["cells"][axis]) == pytest.approx(found["total"], rel=1e-4), axis


def test_micro_batches_add_up() -> None:
    batch = golden.load("flip", torch.float64)
    assert counted(batch, "cppo_binary", pieces=4) == counted(batch, "cppo_binary")


def test_what_a_correction_rejects_is_a_reason_of_its_own() -> None:
    batch = golden.load("mismatch", torch.float64)
    # pi_old / mu = e^-1 lies below IcePop's 0.5 everywhere.
    batch = replace(batch, old_logp=batch.rollout_logp - 1.0)
    total = dict(zip(COLUMNS, counted(batch, "icepop")["total"], strict=True))
    assert total["correction"] == total["tokens"] - total["threshold"]
    assert total["correction_weight"] + total["threshold_weight"] == pytest.approx(total["weight"], rel=1e-5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", "digit"), (" 12", "digit"), ("3.5", "digit"), ("½", "digit"), ("+", "operator"), (" <=", "operator"),
        ("×", "operator"), ("=", "operator"), ("<<", "punctuation"), ("#### ", "punctuation"), (" has ", "word"),
        ("\\frac", "word"), ("x2", "word"), ("\n", "space"), ("", "space"), ("\ufffd", "byte"), (".", "punctuation"),
    ],
)  # fmt: skip
def test_a_token_is_classified_by_its_text(text: str, expected: str) -> None:
    assert token_class(text) == expected
    assert expected in CLASSES


def test_special_tokens_are_told_by_the_tokenizer_whatever_they_say() -> None:
    assert described(TOKENIZER, TOKENIZER.eos_token_id) == ("<eos>", "end")
    assert described(TOKENIZER, TOKENIZER.pad_token_id)[1] == "special"
    pieces = trained_tokenizer(["only letters here"], 300)
    part = pieces("🙂", add_special_tokens=False).input_ids[0]
    text, kind = described(pieces, part)
    assert kind == "byte"
    assert "\ufffd" not in text


STRICT = ("algo=cppo", "algo.trust_region.delta=0.003", "trainer.epochs=2")


def content(folder: RunFolder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder.path / MASKED_TOKENS).read_text(encoding="utf-8"))
    return found


def test_a_run_counts_what_its_metrics_say_and_an_interrupted_one_counts_the_same(
    output: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(output / "policies", tmp_path / "second" / "policies")
    whole = run(tiny_config(tmp_path / "second", *STRICT))

    def stop(done: int, metrics: Mapping[str, Any]) -> None:
        if done == 2:
            raise KeyboardInterrupt

    config = tiny_config(output, *STRICT)
    with pytest.raises(KeyboardInterrupt):
        run(config, stop)
    run(config)
    found = content(run_folder(config))
    assert found == content(whole)
    assert found["steps"] == 3
    total = dict(zip(COLUMNS, found["total"], strict=True))
    assert total["tokens"] == whole.info["tokens"]["trained"]
    assert total["threshold"] + total["budget"] > 0


def test_inspect_prints_the_table_of_every_axis(output: Path, invoke: Invoke) -> None:
    folder = run(tiny_config(output, *STRICT))
    for axis in AXES:
        code, out, err = invoke("inspect", folder.path.name, "--by", axis, "--json", "-o", str(output))
        assert code == 0, err
        cells = json.loads(out)["cells"]
        assert cells
        assert all(cell["masked"] <= cell["tokens"] for cell in cells)
    code, out, _ = invoke("inspect", folder.path.name, "--by", "token", "--top", "3", "-o", str(output))
    assert code == 0
    assert "of all masked" in out
    assert out.count("'") == 6, "three tokens in quotes"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--by", "tok"], ["--by", "token"]),
        (["--by", "token", "--wrong"], ["--wrong", "--by token"]),
        (["--top", "3"], ["--top 3", "--by"]),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str], named: list[str], output: Path, invoke: Invoke
) -> None:
    folder = run(tiny_config(output, "trainer.steps=1"))
    code, _, err = invoke("inspect", folder.path.name, *options, "-o", str(output))
    assert code == 2
    assert all(word in err for word in named), err


def test_a_run_without_counts_says_so(output: Path, invoke: Invoke) -> None:
    folder = run(tiny_config(output, "trainer.steps=1"))
    (folder.path / MASKED_TOKENS).unlink()
    code, _, err = invoke("inspect", folder.path.name, "--by", "class", "-o", str(output))
    assert code == 2
    assert "masked_tokens.json" in err
