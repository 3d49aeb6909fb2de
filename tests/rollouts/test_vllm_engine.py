"""vLLM as an engine: it samples from the policy's weights, says truly how likely each token was, and holds no more."""

from __future__ import annotations

import copy
import os
import random

import numpy as np
import pytest
import torch
from scipy import stats
from text_models import byte_tokenizer
from tiny_runs import engine_for
from vllm_models import KINDS, OneEngine, moved, random_network

from cppo_lab.errors import UserError
from cppo_lab.models.loading import Policy
from cppo_lab.models.logprobs import TokenStatistics, token_statistics
from cppo_lab.rollouts.rollout import Rollout, SamplingSettings
from cppo_lab.rollouts.vllm.engine import VllmEngine

pytestmark = pytest.mark.vllm

LIMIT = 24
# Float32 sums in another order: vLLM's log-probabilities were within 2e-5 of torch's on all of these models.
CLOSE = 1e-4


@pytest.fixture(params=KINDS, scope="module")
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def served(kind: str, vllm: OneEngine) -> tuple[VllmEngine, Policy]:
    return vllm.of_kind(kind)


@pytest.fixture
def tied(vllm: OneEngine) -> tuple[VllmEngine, Policy]:
    return vllm.of_kind("tied")


def fresh_policy() -> Policy:
    return Policy(random_network("tied"), byte_tokenizer())


def prompts_of(policy: Policy, count: int = 6, group: int = 1) -> list[list[int]]:
    """Prompts of several lengths, the longest of more than a block of the prefix cache."""
    texts = [f"Question: {'Ann has 3 apples. ' * (3 * number)}How many?" for number in range(count)]
    ids = [policy.prompt_ids(text) for text in texts for _ in range(group)]
    assert max(map(len, ids)) > 128
    return ids


def reread(policy: Policy, rollout: Rollout, temperature: float = 1.0, full: bool = False) -> TokenStatistics:
    with torch.no_grad():
        return token_statistics(
            policy.network,
            rollout.tokens,
            rollout.attention_mask,
            rollout.prompt_width,
            temperature=temperature,
            chosen=rollout.topk_ids,
            full=full,
        )


def worst(policy: Policy, rollout: Rollout) -> float:
    """The largest difference of the recorded log-probabilities from a forward pass."""
    return float((reread(policy, rollout).logp - rollout.logp)[rollout.response_mask].abs().max())


def test_greedy_tokens_are_the_native_engines(served: tuple[VllmEngine, Policy]) -> None:
    engine, policy = served
    settings = SamplingSettings(LIMIT, greedy=True)
    rollout = engine.sample(prompts_of(policy), settings)
    native = engine_for(policy).sample(prompts_of(policy), settings)
    assert torch.equal(rollout.tokens, native.tokens)
    assert torch.equal(rollout.response_mask, native.response_mask)
    assert torch.equal(rollout.attention_mask, native.attention_mask)
    assert torch.equal(rollout.finished, native.finished)
    torch.testing.assert_close(rollout.logp, native.logp, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_recorded_logp_is_that_of_a_forward_pass(
    served: tuple[VllmEngine, Policy], temperature: float
) -> None:
    engine, policy = served
    settings = SamplingSettings(LIMIT, temperature=temperature, topk=5, full=True, seed=3)
    rollout = engine.sample(prompts_of(policy, group=4), settings)
    again = reread(policy, rollout, temperature, full=True)
    inside = rollout.response_mask
    assert rollout.topk_logp is not None
    assert rollout.topk_ids is not None
    assert rollout.log_distribution is not None
    assert again.chosen_logp is not None
    assert again.log_distribution is not None
    close = {"rtol": 0, "atol": CLOSE}
    torch.testing.assert_close(rollout.logp[inside], again.logp[inside], **close)
    torch.testing.assert_close(rollout.topk_logp[inside], again.chosen_logp[inside], **close)
    torch.testing.assert_close(rollout.log_distribution[inside], again.log_distribution[inside], **close)
    largest = again.log_distribution[inside].topk(5).values
    torch.testing.assert_close(rollout.topk_logp[inside], largest, **close)
    assert not rollout.logp[~inside].any()


def test_pushed_weights_are_followed_as_if_vllm_had_started_with_them(
    served: tuple[VllmEngine, Policy], vllm: OneEngine
) -> None:
    engine, policy = served
    learner = copy.deepcopy(policy)
    settings, prompts = SamplingSettings(LIMIT, topk=3, seed=8), prompts_of(policy, group=2)
    before = engine.sample(prompts, settings)
    with torch.no_grad():
        for parameter in learner.network.parameters():
            parameter.mul_(1.1)
    held = engine.sample(prompts, settings)
    assert torch.equal(held.tokens, before.tokens), "vLLM has weights of its own until it is given new ones"
    assert torch.equal(held.logp, before.logp)
    engine.load_weights(learner.network, 12)
    after = engine.sample(prompts, settings)
    assert after.policy_version == 12
    assert worst(learner, after) < CLOSE
    assert worst(policy, after) > 100 * CLOSE
    engine.load_weights(policy.network, 0)
    assert torch.equal(engine.sample(prompts, settings).logp, before.logp)
    fresh = vllm.start(learner).sample(prompts, settings)
    assert torch.equal(after.tokens, fresh.tokens)
    assert torch.equal(after.logp, fresh.logp)


def test_weights_are_copied_not_shared(tied: tuple[VllmEngine, Policy]) -> None:
    engine, policy = tied
    learner = moved(policy.network)
    engine.load_weights(learner, 1)
    settings, prompts = SamplingSettings(LIMIT, seed=2), prompts_of(policy)
    before = engine.sample(prompts, settings)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.zero_()
    assert torch.equal(engine.sample(prompts, settings).logp, before.logp)


def test_tokens_are_drawn_from_the_recorded_distribution(tied: tuple[VllmEngine, Policy]) -> None:
    """A token's place in its distribution (randomised within the token) is uniform, and no neighbour's."""
    engine, policy = tied
    rollout = engine.sample(prompts_of(policy, group=64), SamplingSettings(LIMIT, full=True, seed=5))
    assert rollout.log_distribution is not None
    probability = rollout.log_distribution.double().exp()
    chosen = rollout.responses.unsqueeze(-1)
    below = (probability.cumsum(-1) - probability).gather(-1, chosen).squeeze(-1)
    within = torch.rand(below.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    place = below + within * probability.gather(-1, chosen).squeeze(-1)
    inside = rollout.response_mask
    assert int(inside.sum()) > 5000
    assert stats.kstest(place[inside].numpy(), "uniform").pvalue > 1e-3
    for rows, others in ((place[:-1, 0], place[1:, 0]), (place[:-8, 0], place[8:, 0])):
        assert stats.pearsonr(rows.numpy(), others.numpy()).pvalue > 1e-3


def test_every_row_has_draws_of_its_own(tied: tuple[VllmEngine, Policy]) -> None:
    engine, policy = tied
    one, other = policy.prompt_ids("Question: Ann"), policy.prompt_ids("Question: Bob")
    first = engine.sample([*[one] * 8, *[other] * 8, *[one] * 8], SamplingSettings(LIMIT, seed=4))
    again = engine.sample([*[one] * 8, *[other] * 8, *[one] * 8], SamplingSettings(LIMIT, seed=4))
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.logp, again.logp)
    texts = first.texts(policy.tokenizer)
    # Equal prompts in two groups of one call: with a seed for all, the groups would be the same.
    assert len({*texts[:8], *texts[16:]}) == 16
    different = engine.sample([one] * 8, SamplingSettings(LIMIT, seed=4 + 8)).texts(policy.tokenizer)
    assert not {*different} & {*texts[:8]}
    assert first.responses.shape[0] == 24


def test_a_row_does_not_depend_on_its_batch(tied: tuple[VllmEngine, Policy]) -> None:
    engine, policy = tied
    prompts = prompts_of(policy, group=3)
    seeds = tuple(range(100, 100 + len(prompts)))
    group = engine.sample(prompts, SamplingSettings(LIMIT, seed=100))
    alone = engine.sample(prompts, SamplingSettings(LIMIT, row_seeds=seeds))
    assert torch.equal(group.tokens, alone.tokens)
    assert torch.equal(group.logp, alone.logp)
    for row in (0, 7, len(prompts) - 1):
        single = engine.sample([prompts[row]], SamplingSettings(LIMIT, row_seeds=(seeds[row],)))
        assert single.texts(policy.tokenizer) == [alone.texts(policy.tokenizer)[row]]


def test_more_prompts_than_fit_into_a_batch(vllm: OneEngine) -> None:
    # A prompt that is computed in pieces cannot keep to its seed on a CPU: 8192 tokens are scheduled at once.
    policy = fresh_policy()
    engine = vllm.start(policy)
    prompts = [policy.prompt_ids(f"Question {number}: " + "Ann has 3 apples. " * 15) for number in range(64)]
    assert sum(map(len, prompts)) > 8192
    rollout = engine.sample(prompts, SamplingSettings(4, seed=1))
    assert worst(policy, rollout) < CLOSE


def test_stop_tokens_and_the_limit_end_a_response(tied: tuple[VllmEngine, Policy]) -> None:
    engine, policy = tied
    prompts = prompts_of(policy, group=8)
    free = engine.sample(prompts, SamplingSettings(LIMIT, seed=6))
    stop = int(free.responses[0, 3])
    rollout = engine.sample(prompts, SamplingSettings(LIMIT, seed=6, stop_tokens=(stop,)))
    for row, (before, after, mask) in enumerate(
        zip(free.responses.tolist(), rollout.responses.tolist(), rollout.response_mask, strict=True)
    ):
        ends = [place for place, token in enumerate(before) if token in (stop, policy.eos_token)]
        length = ends[0] + 1 if ends else LIMIT
        assert int(mask.sum()) == length
        assert after[:length] == before[:length]
        assert bool(rollout.finished[row]) == bool(ends)
    assert rollout.finished.any()
    assert not rollout.finished.all()


def test_a_truncated_distribution_is_recorded_as_such(tied: tuple[VllmEngine, Policy]) -> None:
    engine, policy = tied
    settings = SamplingSettings(LIMIT, top_p=0.5, seed=9)
    rollout = engine.sample(prompts_of(policy, group=4), settings)
    inside = rollout.response_mask
    assert rollout.logp[inside].isfinite().all()
    # Renormalised over half the mass at most, so above the policy's own log-probability.
    above = (rollout.logp - reread(policy, rollout).logp)[inside]
    assert (above > -CLOSE).all()
    assert above.max() > 0.3


def test_bfloat16_is_measured_as_mismatch(vllm: OneEngine) -> None:
    policy = fresh_policy()
    engine = vllm.start(policy, "bfloat16")
    rollout = engine.sample(prompts_of(policy, group=4), SamplingSettings(LIMIT, seed=1))
    assert 1e-3 < worst(policy, rollout) < 1


def test_the_process_is_left_as_it_was(vllm: OneEngine) -> None:
    policy = fresh_policy()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    draws = random.random(), float(np.random.rand()), float(torch.rand(()))
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    environment, setter, threads = dict(os.environ), torch.set_num_threads, torch.get_num_threads()
    engine = vllm.start(policy)
    engine.sample(prompts_of(policy), SamplingSettings(4))
    engine.load_weights(policy.network, 1)
    assert dict(os.environ) == environment
    engine.close()
    assert (random.random(), float(np.random.rand()), float(torch.rand(()))) == draws
    assert dict(os.environ) == environment
    assert torch.set_num_threads is setter
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
    assert not torch.distributed.is_initialized()


def test_a_prompt_that_does_not_fit_is_refused(tied: tuple[VllmEngine, Policy]) -> None:
    engine, _ = tied
    with pytest.raises(UserError, match=r"may need 520 tokens, .* hold 512"):
        engine.sample([[5] * 500], SamplingSettings(20))


def test_a_cache_too_small_for_one_response_is_said_to_be(vllm: OneEngine) -> None:
    policy = fresh_policy()
    with pytest.raises(UserError, match=r"^vLLM failed to start with .*\(ValueError: .*not enough .*memory"):
        vllm.start(policy, kv_cache_gib=1e-6)
    assert not torch.distributed.is_initialized()


def test_prompts_wait_for_a_cache_that_is_full(vllm: OneEngine) -> None:
    # Two sequences of the model's context: the others are put off, or put out and computed again.
    policy = fresh_policy()
    small = vllm.start(policy, kv_cache_gib=2**-10)
    settings, prompts = SamplingSettings(200, seed=2), prompts_of(policy, group=6)
    rollout = small.sample(prompts, settings)
    large = vllm.start(policy)
    assert torch.equal(large.sample(prompts, settings).tokens, rollout.tokens)
