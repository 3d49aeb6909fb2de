"""Token records of kept responses, and the command that shows them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import tiny_config

from cppo_lab.diagnostics.token_traces import token_texts
from cppo_lab.models.tokenizers import trained_tokenizer, vocabulary_tokenizer
from cppo_lab.tasks.chain import VOCABULARY
from cppo_lab.training.run import run

Invoke = Callable[..., tuple[int, str, str]]


def samples(folder: Path, step: int) -> list[dict[str, Any]]:
    path = folder / "samples" / f"step_{step:06d}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


@pytest.fixture
def strict(output: Path) -> Path:
    """A run whose threshold masks most of what moves; step 2 is evaluated, steps 1 and 3 are not."""
    overrides = ("algo.trust_region.delta=0.003", "trainer.epochs=4")
    kept = ("trainer.steps=3", "trainer.evaluate_every=2", "trainer.samples_per_step=48")
    return run(tiny_config(output, "algo=cppo", *overrides, *kept)).path


def test_evaluated_steps_record_every_token_of_the_responses_that_were_learnt_from(strict: Path) -> None:
    assert all(row["tokens"] is None for row in samples(strict, 1))
    rows = samples(strict, 2)
    recorded = [row for row in rows if row["tokens"] is not None]
    assert recorded
    for row in recorded:
        tokens = row["tokens"]
        columns = ("text", "divergence", "weight", "threshold", "ratio", "advantage", "masked")
        assert {len(tokens[column]) for column in columns} == {row["length"]}
        assert "".join(tokens["text"]).removesuffix("<eos>") == row["completion"]
        assert tokens["delta"] == 0.003
        for threshold, left in zip(tokens["threshold"], tokens["prefix_threshold"], strict=True):
            assert threshold == pytest.approx(min(left, 0.003), rel=1e-4)
        for distance, weight, threshold, reason in zip(
            *(tokens[column] for column in ("divergence", "weight", "threshold", "masked")), strict=True
        ):
            assert threshold <= 0.003
            if reason == "threshold":
                assert weight * distance > 0.003 * (1 - 1e-4)
            elif reason == "budget":
                assert threshold * (1 - 1e-4) < weight * distance <= 0.003 * (1 + 1e-4)
    assert any(any(row["tokens"]["masked"]) for row in recorded)


def test_inspect_shows_masked_tokens_and_filters(strict: Path, invoke: Invoke, output: Path) -> None:
    code, out, err = invoke("inspect", strict.name, "--step", "2", "--masked", "-o", str(output))
    assert code == 0, err
    assert "⟦" in out or "⟨" in out
    assert "masked by threshold" in out
    code, out, _ = invoke("inspect", strict.name, "--wrong", "--json", "-n", "99", "-o", str(output))
    assert code == 0
    found = json.loads(out)
    assert found["responses"]
    assert all(row["reward"] == 0 for row in found["responses"])
    code, out, _ = invoke("inspect", strict.name, "--step", "1", "-o", str(output))
    assert code == 0
    assert "not recorded" in out


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--step", "9"], ["--step 9", "1 to 3"]),
        (["--problem", "99"], ["--problem 99"]),
        (["--step", "1", "--masked"], ["none of the"]),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(
    strict: Path, invoke: Invoke, output: Path, options: list[str], named: list[str]
) -> None:
    code, _, err = invoke("inspect", strict.name, *options, "-o", str(output))
    assert code == 2
    assert all(word in err for word in named), err


def test_hostile_text_is_shown_as_text(strict: Path, invoke: Invoke, output: Path) -> None:
    path = strict / "samples" / "step_000002.jsonl"
    row = samples(strict, 2)[0] | {"completion": "[red]x[/red] \x1b[31m<script>\u202e", "tokens": None}
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    code, out, _ = invoke("inspect", strict.name, "--step", "2", "-o", str(output))
    assert code == 0
    assert r"[red]x[/red] \u001b[31m<script>\u202e" in out


def test_token_texts_join_to_the_text_whatever_the_tokens_cut() -> None:
    tokenizer = trained_tokenizer(["only letters here"], 300)
    text = "naïve — 12 円 🙂!"
    tokens = tokenizer(text, add_special_tokens=False).input_ids
    texts = token_texts(tokenizer, tokens)
    assert len(texts) == len(tokens) > len(text)
    assert "".join(texts) == text
    words = vocabulary_tokenizer(VOCABULARY)
    tokens = words("leo has 5 cards, finds 9", add_special_tokens=False).input_ids
    assert "".join(token_texts(words, tokens)) == "leo has 5 cards, finds 9"
