"""Evaluation through the vLLM engine up to vLLM itself, in whose place the native engine samples. Needs no vLLM."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from text_models import byte_tokenizer, native_text_engine, random_policy
from tiny_runs import engine_for

from cppo_lab.eval.local_engine import LocalTextEngine
from cppo_lab.eval.protocols import Prompt
from cppo_lab.eval.text_engine import Decoding, Request
from cppo_lab.models.loading import ModelSource, Policy, load_policy
from cppo_lab.rollouts.rollout import SamplingSettings
from cppo_lab.rollouts.vllm import engine as vllm_engine
from cppo_lab.rollouts.vllm import served
from cppo_lab.rollouts.vllm.offline import OfflineSettings
from cppo_lab.rollouts.vllm_config import VllmConfig
from cppo_lab.training.checkpoint import save_checkpoint

GREEDY = Decoding(max_new_tokens=24, temperature=0.0, top_p=1.0, seed=0)


@dataclass
class Parameters:
    """Stands in for vLLM's SamplingParams."""

    temperature: float
    max_tokens: int
    stop_token_ids: list[int]
    stop: list[str]
    logprobs: int
    detokenize: bool
    n: int = 1
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0
    ignore_eos: bool = False
    flat_logprobs: bool = False
    skip_special_tokens: bool = True


@dataclass
class Offline:
    """Stands in for the engine around vLLM: greedy tokens of the native one, up to the first stop string's."""

    policy: Policy
    settings: OfflineSettings
    asked: list[Parameters] = field(default_factory=list)
    closed: bool = False

    @property
    def context(self) -> int:
        return self.settings.context

    def generate(self, prompts: Sequence[Sequence[int]], parameters: Sequence[Parameters]) -> list[Any]:
        self.asked.extend(parameters)
        return [self._complete(*each) for each in zip(prompts, parameters, strict=True)]

    def _complete(self, prompt: Sequence[int], asked: Parameters) -> Any:
        assert asked.temperature == 0
        assert asked.detokenize == bool(asked.stop)
        settings = SamplingSettings(
            asked.max_tokens,
            greedy=True,
            stop_tokens=tuple(asked.stop_token_ids),
            repetition_penalty=asked.repetition_penalty,
        )
        rollout = engine_for(self.policy).sample([prompt], settings)
        tokens = rollout.responses[0][rollout.response_mask[0]].tolist()
        for end in range(1, len(tokens)):
            if any(stop in self.policy.tokenizer.decode(tokens[:end]) for stop in asked.stop):
                tokens = tokens[:end]
                break
        columns = 1 + asked.logprobs
        logprobs = SimpleNamespace(
            token_ids=[token for token in tokens for _ in range(columns)],
            logprobs=[-1.0] * (columns * len(tokens)),
        )
        completion = SimpleNamespace(token_ids=tokens, logprobs=logprobs)
        return SimpleNamespace(prompt_token_ids=list(prompt), outputs=[completion])

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that writes chaotic text, so that stop strings and limits are met at many places."""
    path: Path = tmp_path_factory.mktemp("model") / "chaotic"
    save_checkpoint(path, random_policy(byte_tokenizer(), layers=2, gain=3.0))
    return str(path)


@pytest.fixture
def offline(folder: str, monkeypatch: pytest.MonkeyPatch) -> list[Offline]:
    """The engines that were started."""
    started: list[Offline] = []

    def start(settings: OfflineSettings) -> Offline:
        started.append(Offline(load_policy(folder), settings))
        return started[-1]

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=Parameters))
    monkeypatch.setattr(vllm_engine, "OfflineEngine", start)
    monkeypatch.setattr(served, "check_served", lambda *_: None)
    return started


def requests(*stops: str) -> list[Request]:
    texts = [f"Question: Ann has {number} apples{' and pears' * number}.\nAnswer:" for number in range(8)]
    return [Request(i, 0, Prompt(text), stops) for i, text in enumerate(texts)]


@pytest.mark.parametrize("stops", [(), ("a",), ("e", "t")], ids=str)
def test_responses_end_where_the_native_engines_do(
    stops: tuple[str, ...], folder: str, offline: list[Offline]
) -> None:
    engine = LocalTextEngine(
        "vllm", "float32", VllmConfig.for_evaluation(32).serve(ModelSource(folder), "float32")
    )
    found = engine.generate(requests(*stops), GREEDY)
    assert found == native_text_engine(load_policy(folder), 32).generate(requests(*stops), GREEDY)
    assert any(response.finished for response in found) == bool(stops)
    assert [asked.stop for asked in offline[0].asked] == [list(stops)] * 8
    assert engine.describe() == {"engine": "vllm", "dtype": "float32"}
    engine.close()
    assert offline[0].closed


def test_vllm_is_started_for_evaluation(folder: str, offline: list[Offline]) -> None:
    VllmConfig.for_evaluation(16).serve(ModelSource(folder, None, "cpu"), "bfloat16")
    settings = offline[0].settings
    assert (settings.model, settings.dtype, settings.device) == (folder, "bfloat16", "cpu")
    assert (settings.batch_size, settings.enforce_eager, settings.decodes) == (16, True, True)
    assert (settings.kv_cache_gib, settings.gpu_memory_utilization) == (1.0, 0.9)
