"""A model's own generation settings: the ones that transformers' `generate` heeds when greedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from text_models import SENTENCES, byte_tokenizer, random_policy
from tiny_runs import engine_for
from transformers import RepetitionPenaltyLogitsProcessor

from cppo_lab.eval.generation_config import settings_in
from cppo_lab.manifests import MANIFEST_FILE
from cppo_lab.models.loading import Policy, load_policy
from cppo_lab.rollouts.native import penalised
from cppo_lab.rollouts.rollout import SamplingSettings
from cppo_lab.training.checkpoint import save_checkpoint

Invoke = Callable[..., tuple[int, str, str]]
LIMIT = 48


@pytest.fixture(scope="module")
def policy() -> Policy:
    return random_policy(byte_tokenizer(), gain=4.0)


def folder(path: Path, policy: Policy, **settings: Any) -> Path:
    """`policy` saved with these settings in its generation_config.json."""
    save_checkpoint(path, policy)
    # Whoever changes a model says so.
    (path / MANIFEST_FILE).unlink()
    file = path / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return path


def generated(policy: Policy, prompt: list[int], ends: list[int], penalty: float) -> list[int]:
    """What transformers' `generate` continues one prompt with."""
    tokens = torch.tensor([prompt])
    whole = policy.network.generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=LIMIT,
        do_sample=False,
        repetition_penalty=penalty,
        eos_token_id=ends,
        pad_token_id=policy.pad_token,
    )
    found: list[int] = whole[0, len(prompt) :].tolist()
    return found


@pytest.mark.parametrize("penalty", [1.1, 2.0, 0.7])
def test_penalty_is_that_of_transformers_and_spares_padding(penalty: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 40, generator=generator)
    tokens = torch.randint(0, 40, (6, 12), generator=generator)
    mask = torch.arange(12) >= 2 * torch.arange(6).unsqueeze(-1)
    theirs = RepetitionPenaltyLogitsProcessor(penalty, prompt_ignore_length=12 - mask.sum(-1))
    found = penalised(logits, tokens, mask, penalty)
    assert torch.equal(found, theirs(tokens, logits.clone()))
    assert not torch.equal(found, penalised(logits, tokens, torch.ones_like(mask), penalty))


@pytest.mark.parametrize("penalty", [1.0, 1.1, 1.5, 0.9])
def test_greedy_responses_are_those_of_generate(policy: Policy, penalty: float) -> None:
    prompts = [policy.prompt_ids(sentence[: 20 + 7 * i]) for i in range(6) for sentence in SENTENCES]
    assert len({len(prompt) for prompt in prompts}) > 5
    free = [generated(policy, prompt, [policy.eos_token], penalty) for prompt in prompts]
    # Two tokens that end some responses early, so that rows leave the batch while others go on.
    ends = [free[0][10], free[1][20]]
    expected = [generated(policy, prompt, [policy.eos_token, *ends], penalty) for prompt in prompts]
    lengths = {len(tokens) for tokens in expected}
    assert len(lengths) > 3
    assert LIMIT in lengths
    settings = SamplingSettings(LIMIT, greedy=True, repetition_penalty=penalty, stop_tokens=tuple(ends))
    for batch_size in (1, 5, 64):
        rollout = engine_for(policy, batch_size=batch_size).sample(prompts, settings)
        found = [r[m].tolist() for r, m in zip(rollout.responses, rollout.response_mask, strict=True)]
        assert found == expected


def test_a_penalty_changes_what_is_said(policy: Policy) -> None:
    prompts = [policy.prompt_ids(sentence) for sentence in SENTENCES]
    engine = engine_for(policy)
    plain = engine.sample(prompts, SamplingSettings(LIMIT, greedy=True))
    penalised = engine.sample(prompts, SamplingSettings(LIMIT, greedy=True, repetition_penalty=1.3))
    assert not torch.equal(plain.tokens, penalised.tokens)


def test_settings_are_read_from_the_model_s_folder(policy: Policy, tmp_path: Path) -> None:
    plain = settings_in(load_policy(str(folder(tmp_path / "plain", policy))).network.generation_config)
    assert (plain.end_tokens, plain.repetition_penalty) == ((policy.eos_token,), 1.0)
    assert (plain.max_new_tokens, plain.not_applied) == (None, ())
    changed = folder(
        tmp_path / "changed",
        policy,
        eos_token_id=[1, 7],
        repetition_penalty=1.05,
        max_new_tokens=2048,
        no_repeat_ngram_size=3,
        suppress_tokens=[5],
        forced_eos_token_id=0,
        min_length=0,
        num_beams=1,
        # Without meaning for greedy decoding.
        do_sample=True,
        temperature=0.6,
        top_k=20,
    )
    settings = settings_in(load_policy(str(changed)).network.generation_config)
    assert (settings.end_tokens, settings.repetition_penalty) == ((1, 7), 1.05)
    assert settings.max_new_tokens == 2048
    assert set(settings.not_applied) == {"no_repeat_ngram_size", "suppress_tokens", "forced_eos_token_id"}


@pytest.fixture
def evaluate(invoke: Invoke, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The results of evaluating a folder on three problems."""
    data = tmp_path / "problems.jsonl"
    rows = [{"question": f"What is {i} and 2?", "answer": f"{i} + 2\n#### {i + 2}"} for i in range(3)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(model: Path, protocol: str, *options: str) -> dict[str, Any]:
        code, out, err = invoke(
            *("eval", "gsm8k", "--model", str(model), "-p", protocol, "--data", str(data), "--json"),
            *("--no-track", "-o", str(tmp_path / "o"), *options),
        )
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    return run


ZEROSHOT = "lm-eval:gsm8k_cot_zeroshot@3.0"


def test_the_model_s_limit_replaces_the_harness_s_but_not_the_user_s_or_the_lab_s(
    policy: Policy, tmp_path: Path, evaluate: Callable[..., dict[str, Any]]
) -> None:
    model = folder(tmp_path / "m", policy, max_new_tokens=20)
    decoding = evaluate(model, ZEROSHOT)["decoding"]
    assert (decoding["max_new_tokens"], decoding["room"]) == (20, 256)
    asked = evaluate(model, ZEROSHOT, "--max-new-tokens", "24")["decoding"]
    assert (asked["max_new_tokens"], asked["room"]) == (24, 24)
    native = evaluate(model, "native")
    assert native["decoding"]["max_new_tokens"] == 256


@pytest.mark.parametrize("protocol", [ZEROSHOT, "native"])
def test_the_model_s_penalty_is_applied_and_reported(
    policy: Policy, tmp_path: Path, evaluate: Callable[..., dict[str, Any]], protocol: str
) -> None:
    short = ("--max-new-tokens", "16")
    plain = evaluate(folder(tmp_path / "plain", policy), protocol, *short)
    strong = evaluate(folder(tmp_path / "strong", policy, repetition_penalty=1.5), protocol, *short)
    assert plain["decoding"]["repetition_penalty"] == 1.0
    assert strong["decoding"]["repetition_penalty"] == 1.5
    texts = [Path(result["folder"], "responses.jsonl").read_text() for result in (plain, strong)]
    assert texts[0] != texts[1]
    assert not any("generation_config" in warning for warning in strong["warnings"])


def test_the_table_names_a_penalty(policy: Policy, tmp_path: Path, invoke: Invoke) -> None:
    for name, settings, named in (("plain", {}, False), ("strong", {"repetition_penalty": 1.5}, True)):
        model = str(folder(tmp_path / name, policy, **settings))
        options = ["--limit", "2", "--max-new-tokens", "4", "--no-track", "-o", str(tmp_path / "o")]
        code, out, _ = invoke("eval", "chain", "--model", model, *options)
        assert code == 0
        assert ("repetition penalty 1.5" in out) == named


def test_settings_that_are_not_applied_are_named(
    policy: Policy, tmp_path: Path, evaluate: Callable[..., dict[str, Any]]
) -> None:
    model = folder(tmp_path / "m", policy, no_repeat_ngram_size=2, bad_words_ids=[[9]])
    warnings = evaluate(model, ZEROSHOT, "--max-new-tokens", "8")["warnings"]
    assert sum("no_repeat_ngram_size, bad_words_ids" in warning for warning in warnings) == 1
