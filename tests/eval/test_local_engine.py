"""The native text engine: a request's draws are its own, and responses end where they should."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from text_models import native_text_engine
from tiny_runs import starting, tiny_config

from cppo_lab.errors import UserError
from cppo_lab.eval.local_engine import LocalTextEngine
from cppo_lab.eval.protocols import Prompt
from cppo_lab.eval.text_engine import Decoding, Request
from cppo_lab.models.loading import Policy
from cppo_lab.rollouts.native import nucleus

SAMPLED = Decoding(max_new_tokens=18, temperature=1.0, top_p=0.95, seed=0)


@pytest.fixture
def policy(output: Path) -> Policy:
    return starting(tiny_config(output))


@pytest.fixture
def engine(policy: Policy) -> LocalTextEngine:
    return native_text_engine(policy)


@pytest.fixture
def requests(output: Path) -> list[Request]:
    problems = tiny_config(output).task.build().heldout_problems()[:12]
    return [Request(i, j, Prompt(p.prompt), ()) for i, p in enumerate(problems) for j in range(2)]


def test_sampled_responses_do_not_depend_on_the_batch(
    engine: LocalTextEngine, requests: list[Request]
) -> None:
    whole = engine.generate(requests, SAMPLED)
    halves = [*engine.generate(requests[:7], SAMPLED), *engine.generate(requests[7:], SAMPLED)]
    backwards = engine.generate(requests[::-1], SAMPLED)[::-1]
    assert halves == whole
    assert backwards == whole


def test_samples_of_one_problem_differ_and_seeds_do_too(
    engine: LocalTextEngine, requests: list[Request]
) -> None:
    texts = [response.text for response in engine.generate(requests, SAMPLED)]
    assert any(first != second for first, second in zip(texts[::2], texts[1::2], strict=True))
    other = Decoding(max_new_tokens=18, temperature=1.0, top_p=0.95, seed=1)
    assert [response.text for response in engine.generate(requests, other)] != texts


def test_a_stop_string_ends_a_response_and_is_no_part_of_it(
    engine: LocalTextEngine, requests: list[Request]
) -> None:
    greedy = Decoding(max_new_tokens=18, temperature=0.0, top_p=1.0, seed=0)
    free = engine.generate(requests[:4], greedy)
    stopped = engine.generate([Request(r.problem, r.sample, r.prompt, (">>",)) for r in requests[:4]], greedy)
    for whole, cut in zip(free, stopped, strict=True):
        assert cut.text == whole.text.split(">>")[0]
        assert cut.finished
        assert cut.tokens <= whole.tokens


def test_responses_at_the_limit_are_not_finished(engine: LocalTextEngine, requests: list[Request]) -> None:
    short = Decoding(max_new_tokens=2, temperature=0.0, top_p=1.0, seed=0)
    assert not any(response.finished for response in engine.generate(requests[:4], short))


def test_a_response_that_leaves_no_room_for_the_prompt_is_refused(
    engine: LocalTextEngine, policy: Policy, requests: list[Request]
) -> None:
    context = policy.network.config.max_position_embeddings
    with pytest.raises(UserError, match=f"--max-new-tokens {context}: must be less than .* {context} tokens"):
        engine.generate(requests, Decoding(max_new_tokens=context, temperature=0.0, top_p=1.0, seed=0))


def test_prompts_that_lose_their_beginning_are_counted(
    engine: LocalTextEngine, policy: Policy, requests: list[Request]
) -> None:
    prompts = [request.prompt for request in requests]
    context = policy.network.config.max_position_embeddings
    longest = max(len(policy.prompt_ids(prompt.text)) for prompt in prompts)

    def leaving(room: int) -> Decoding:
        return Decoding(max_new_tokens=context - room, temperature=0.0, top_p=1.0, seed=0)

    assert engine.cut_prompts(prompts, leaving(longest)) == 0
    assert 0 < engine.cut_prompts(prompts, leaving(longest - 1)) < len(prompts)
    (cut,) = engine.prompt_ids(prompts[:1], leaving(3))
    assert cut == policy.prompt_ids(prompts[0].text)[-3:]


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.95, 0.999])
def test_nucleus_is_that_of_transformers(top_p: float) -> None:
    from transformers import TopPLogitsWarper

    logits = 3 * torch.randn(64, 50, generator=torch.Generator().manual_seed(0))
    expected = torch.log_softmax(TopPLogitsWarper(top_p)(torch.zeros(64, 1), logits), dim=-1)
    torch.testing.assert_close(nucleus(torch.log_softmax(logits, dim=-1), top_p), expected)
