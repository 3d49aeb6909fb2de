"""Evaluation by vLLM: the native engine's greedy answers, and a request's draws are its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from text_models import byte_tokenizer, native_text_engine, random_policy
from tiny_runs import starting, tiny_config
from vllm_models import OneEngine

from cppo_lab.errors import UserError
from cppo_lab.eval.local_engine import LocalTextEngine
from cppo_lab.eval.protocols import Prompt
from cppo_lab.eval.text_engine import Decoding, Request, Response
from cppo_lab.models.loading import ModelSource, Policy, load_policy
from cppo_lab.rollouts.vllm_config import VllmConfig
from cppo_lab.training.checkpoint import save_checkpoint

pytestmark = pytest.mark.vllm

Invoke = Callable[..., tuple[int, str, str]]
GREEDY = Decoding(max_new_tokens=24, temperature=0.0, top_p=1.0, seed=0)
SAMPLED = Decoding(max_new_tokens=24, temperature=0.7, top_p=0.95, seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes chaotic text, so that stop strings and limits are met at many places."""
    path = tmp_path_factory.mktemp("model") / "chaotic"
    save_checkpoint(path, random_policy(byte_tokenizer(), layers=2, gain=3.0))
    return path


@pytest.fixture(scope="module")
def policy(folder: Path) -> Policy:
    return load_policy(str(folder))


@pytest.fixture(scope="module")
def engine(folder: Path, vllm: OneEngine) -> Iterator[LocalTextEngine]:
    vllm.close()
    found = LocalTextEngine(
        "vllm", "float32", VllmConfig.for_evaluation(32).serve(ModelSource(str(folder)), "float32")
    )
    yield found
    found.close()


def requests(*stops: str, samples: int = 2) -> list[Request]:
    texts = [f"Question: Ann has {number} apples{' and pears' * number}.\nAnswer:" for number in range(8)]
    return [Request(i, j, Prompt(text), stops) for i, text in enumerate(texts) for j in range(samples)]


def test_greedy_answers_are_the_native_engines(engine: LocalTextEngine, policy: Policy) -> None:
    native = native_text_engine(policy, 32).generate(requests(), GREEDY)
    assert engine.generate(requests(), GREEDY) == native
    assert len({response.text for response in native}) > 4


def test_a_repetition_penalty_counts_as_it_does_natively(engine: LocalTextEngine, policy: Policy) -> None:
    penalised = replace(GREEDY, repetition_penalty=1.3)
    found = engine.generate(requests(), penalised)
    assert found == native_text_engine(policy, 32).generate(requests(), penalised)
    assert found != engine.generate(requests(), GREEDY)


def test_stop_strings_cut_where_they_do_natively(engine: LocalTextEngine, policy: Policy) -> None:
    letters: dict[str, int] = {}
    for response in engine.generate(requests(), GREEDY):
        for letter in set(response.text):
            letters[letter] = letters.get(letter, 0) + 1
    stop = max((letter for letter in letters if letter.isalnum()), key=lambda letter: letters[letter])
    found = engine.generate(requests(stop), GREEDY)
    assert found == native_text_engine(policy, 32).generate(requests(stop), GREEDY)
    assert any(response.finished for response in found)
    assert all(stop not in response.text for response in found)


def test_sampled_answers_do_not_depend_on_the_batch(engine: LocalTextEngine) -> None:
    wanted = requests()
    whole = engine.generate(wanted, SAMPLED)
    halves = [*engine.generate(wanted[:5], SAMPLED), *engine.generate(wanted[5:], SAMPLED)]
    assert halves == whole
    pairs = zip(whole[::2], whole[1::2], strict=True)
    assert all(first.text != second.text for first, second in pairs), "two samples of one problem"
    assert engine.generate(wanted, replace(SAMPLED, seed=1)) != whole


def test_prompts_that_are_too_long_lose_their_beginning(engine: LocalTextEngine, policy: Policy) -> None:
    long = [Request(0, 0, Prompt("Ann has 3 apples. " * 200), ())]
    native = native_text_engine(policy, 32)
    assert engine.cut_prompts([long[0].prompt], GREEDY) == native.cut_prompts([long[0].prompt], GREEDY) == 1
    found: list[Response] = engine.generate(long, GREEDY)
    assert found == native.generate(long, GREEDY)
    with pytest.raises(UserError, match="--max-new-tokens 1024: must be less than"):
        engine.generate(long, replace(GREEDY, max_new_tokens=1024))


def test_the_command_gives_the_native_engines_figures(
    engine: LocalTextEngine, output: Path, invoke: Invoke
) -> None:
    engine.close()
    model = output / "model"
    save_checkpoint(model, starting(tiny_config(output)))
    arguments = (
        "eval",
        "chain",
        "--model",
        str(model),
        "--steps",
        "1",
        "--limit",
        "40",
        "--no-track",
        "--json",
    )
    found = {}
    for name in ("native", "vllm"):
        code, out, err = invoke(*arguments, "--engine", name, "-o", str(output))
        assert code == 0, err
        found[name] = json.loads(out)
    assert found["vllm"]["engine"] == {"engine": "vllm", "dtype": "float32"}
    assert found["vllm"]["folder"] != found["native"]["folder"]
    for key in ("accuracy", "correct", "wilson_95", "length_mean", "truncated_share", "metrics"):
        assert found["vllm"][key] == found["native"][key], key
