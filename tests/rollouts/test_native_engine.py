"""The native engine: what it records is what it sampled from, and each sequence is a function of its seed alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from tiny_runs import engine_for, starting, tiny_config

from cppo_lab.models.loading import Policy
from cppo_lab.models.logprobs import token_statistics
from cppo_lab.models.scratch import scratch_policy
from cppo_lab.models.tokenizers import vocabulary_tokenizer
from cppo_lab.rollouts import native
from cppo_lab.rollouts.quantise import rounded
from cppo_lab.rollouts.rollout import Rollout, SamplingSettings
from cppo_lab.tasks.chain import VOCABULARY, ChainTask

LIMIT = 20


@pytest.fixture(scope="module")
def policy(warmed_up: Path) -> Policy:
    return starting(tiny_config(warmed_up))


@pytest.fixture(scope="module")
def prompts(policy: Policy) -> list[list[int]]:
    # Prompts of several lengths, so that rows are padded on the left.
    problems = [p for steps in (1, 2, 3) for p in ChainTask(steps, 16).heldout_problems()[:10]]
    ids = [policy.prompt_ids(problem.prompt) for problem in problems]
    assert len({len(i) for i in ids}) > 3
    return ids


@pytest.fixture
def random_policy() -> Policy:
    """Close to uniform: long responses, most of them cut."""
    tokenizer = vocabulary_tokenizer(VOCABULARY)
    return Policy(scratch_policy(tiny_config(Path("unused")).model, tokenizer, 0), tokenizer)  # type: ignore[arg-type]


def sampled(policy: Policy, prompts: list[list[int]], weights: Any = "same", **settings: Any) -> Rollout:
    return engine_for(policy, weights=weights).sample(prompts, SamplingSettings(LIMIT, **settings))


def tensors(rollout: Rollout) -> Iterator[tuple[str, torch.Tensor]]:
    for field in fields(rollout):
        value = getattr(rollout, field.name)
        if isinstance(value, torch.Tensor):
            yield field.name, value


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_recorded_logp_is_that_of_the_trainer_on_the_same_weights(
    policy: Policy, prompts: list[list[int]], temperature: float
) -> None:
    rollout = sampled(policy, prompts, temperature=temperature, topk=5, full=True, seed=3)
    assert rollout.topk_ids is not None
    assert rollout.topk_logp is not None
    assert rollout.log_distribution is not None
    with torch.no_grad():
        again = token_statistics(
            policy.network,
            rollout.tokens,
            rollout.attention_mask,
            rollout.prompt_width,
            temperature=temperature,
            chosen=rollout.topk_ids,
            full=True,
        )
    inside = rollout.response_mask
    assert again.chosen_logp is not None
    assert again.log_distribution is not None
    close = {"rtol": 0, "atol": 2e-4}
    torch.testing.assert_close(rollout.logp[inside], again.logp[inside], **close)
    torch.testing.assert_close(rollout.topk_logp[inside], again.chosen_logp[inside], **close)
    torch.testing.assert_close(rollout.log_distribution[inside], again.log_distribution[inside], **close)


def test_topk_are_the_largest_of_the_distribution_in_order(policy: Policy, prompts: list[list[int]]) -> None:
    rollout = sampled(policy, prompts, topk=5, full=True)
    assert rollout.topk_ids is not None
    assert rollout.topk_logp is not None
    assert rollout.log_distribution is not None
    inside = rollout.response_mask
    expected = rollout.log_distribution[inside].topk(5)
    assert torch.equal(rollout.topk_logp[inside], expected.values)
    assert torch.equal(rollout.log_distribution[inside].gather(-1, rollout.topk_ids[inside]), expected.values)
    assert rollout.log_distribution[inside].exp().sum(-1).allclose(torch.ones(int(inside.sum())))


def test_more_topk_than_tokens_gives_the_whole_vocabulary(policy: Policy, prompts: list[list[int]]) -> None:
    rollout = sampled(policy, prompts[:2], topk=1000)
    assert rollout.topk_ids is not None
    assert rollout.topk_ids.shape[-1] == len(policy.tokenizer)


def test_nothing_is_stored_that_was_not_asked_for(policy: Policy, prompts: list[list[int]]) -> None:
    rollout = sampled(policy, prompts[:2])
    assert rollout.topk_ids is None
    assert rollout.topk_logp is None
    assert rollout.log_distribution is None


def test_greedy_is_what_transformers_generates(policy: Policy, prompts: list[list[int]]) -> None:
    rollout = sampled(policy, prompts, greedy=True)
    width = rollout.prompt_width
    generated = policy.network.generate(
        rollout.tokens[:, :width],
        attention_mask=rollout.attention_mask[:, :width].long(),
        do_sample=False,
        max_new_tokens=LIMIT,
        pad_token_id=policy.pad_token,
        eos_token_id=policy.eos_token,
    )[:, width:]
    for row in range(len(prompts)):
        mine = rollout.responses[row][rollout.response_mask[row]].tolist()
        theirs = generated[row].tolist()
        assert mine == theirs[: len(mine)], f"row {row}"
        assert mine[-1] == policy.eos_token or len(mine) == LIMIT


def test_equal_seeds_give_equal_rollouts_and_others_do_not(policy: Policy, prompts: list[list[int]]) -> None:
    first, again, other = (sampled(policy, prompts, topk=3, seed=seed) for seed in (1, 1, 2))
    for (name, left), (_, right) in zip(tensors(first), tensors(again), strict=True):
        assert torch.equal(left, right), name
    assert first.texts(policy.tokenizer) != other.texts(policy.tokenizer)


def test_global_random_state_is_neither_used_nor_changed(policy: Policy, prompts: list[list[int]]) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = sampled(policy, prompts, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(sampled(policy, prompts, seed=5).tokens, first.tokens)


def test_responses_of_a_group_differ(policy: Policy, prompts: list[list[int]]) -> None:
    rollout = sampled(policy, [prompts[0]] * 16)
    assert len(set(rollout.texts(policy.tokenizer))) > 4


def test_response_does_not_depend_on_the_other_prompts(policy: Policy, prompts: list[list[int]]) -> None:
    whole = sampled(policy, prompts, seed=4).texts(policy.tokenizer)
    # The first prompts keep their places, so their uniform numbers; neighbours and padding change.
    assert sampled(policy, prompts[:3], seed=4).texts(policy.tokenizer) == whole[:3]
    longest = max(prompts, key=len)
    replaced = [*prompts[:5], *[longest + longest[1:]] * 10]
    assert sampled(policy, replaced, seed=4).texts(policy.tokenizer)[:5] == whole[:5]


@pytest.mark.parametrize("batch_size", [1, 7])
def test_batch_size_changes_nothing(policy: Policy, prompts: list[list[int]], batch_size: int) -> None:
    settings = SamplingSettings(LIMIT, seed=4, topk=3)
    whole = engine_for(policy).sample(prompts, settings)
    parts = engine_for(policy, batch_size=batch_size).sample(prompts, settings)
    assert torch.equal(parts.tokens, whole.tokens)
    torch.testing.assert_close(parts.logp, whole.logp, rtol=0, atol=2e-4)


def test_dropping_finished_sequences_changes_nothing(
    random_policy: Policy, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = policy.prompt_ids(ChainTask(1, 16).heldout_problems()[0].prompt)
    settings = SamplingSettings(80, seed=1, full=True)
    engine = engine_for(random_policy)
    compacted = engine.sample([prompt] * 24, settings)
    monkeypatch.setattr(native, "_COMPACT_EVERY", 10_000)
    whole = engine.sample([prompt] * 24, settings)
    assert compacted.lengths.min() < 25, "lengths must be very different for this to say anything"
    assert compacted.lengths.max() > 60
    assert torch.equal(compacted.tokens, whole.tokens)
    assert torch.equal(compacted.response_mask, whole.response_mask)
    torch.testing.assert_close(compacted.logp, whole.logp, rtol=0, atol=2e-4)


def test_finished_says_who_ended_and_nothing_follows_the_end(
    random_policy: Policy, prompts: list[list[int]]
) -> None:
    rollout = sampled(random_policy, prompts * 4, seed=2)
    eos = random_policy.eos_token
    assert rollout.finished.any()
    assert not rollout.finished.all()
    for row in range(len(rollout.finished)):
        length = int(rollout.lengths[row])
        response = rollout.responses[row, :length].tolist()
        assert rollout.response_mask[row].tolist() == [True] * length + [False] * (
            rollout.response_mask.shape[1] - length
        )
        assert eos not in response[:-1]
        assert bool(rollout.finished[row]) == (response[-1] == eos)
        assert rollout.finished[row] or length == LIMIT
        assert (rollout.logp[row, length:] == 0).all()
        assert (rollout.responses[row, length:] == random_policy.pad_token).all()


def test_sampling_stops_when_all_sequences_ended(
    random_policy: Policy, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_for(random_policy)
    calls: list[int] = []
    make = native.cached_decoder

    def counted(*args: Any) -> Any:
        decoder = make(*args)
        append = decoder.append

        def count_and_append(tokens: torch.Tensor) -> None:
            calls.append(len(tokens))
            append(tokens)

        calls.append(len(decoder.logits))
        monkeypatch.setattr(decoder, "append", count_and_append)
        return decoder

    monkeypatch.setattr(native, "cached_decoder", counted)
    rollout = engine.sample(prompts[:6], SamplingSettings(900, seed=3))
    assert rollout.finished.all()
    assert len(calls) == int(rollout.lengths.max()) == rollout.response_mask.shape[1] < 900
    assert calls[0] == 6
    assert calls[-1] < 6, "finished sequences leave the batch"


def test_sampling_frequencies_follow_the_distribution(random_policy: Policy) -> None:
    prompt = random_policy.prompt_ids("leo has 2 cards")
    n = 8192
    engine = engine_for(random_policy, batch_size=n)
    rollout = engine.sample([prompt] * n, SamplingSettings(1, temperature=0.7, full=True, seed=11))
    assert rollout.log_distribution is not None
    expected = rollout.log_distribution[0, 0].double().exp() * n
    found = torch.bincount(rollout.responses[:, 0], minlength=len(expected)).double()
    common = expected >= 5
    observed = [*found[common].tolist(), float(found[~common].sum())]
    wanted = [*expected[common].tolist(), float(expected[~common].sum())]
    if wanted[-1] == 0:
        observed, wanted = observed[:-1], wanted[:-1]
    scale = sum(observed) / sum(wanted)
    assert len(wanted) > 20
    assert stats.chisquare(observed, [w * scale for w in wanted]).pvalue > 1e-3


def test_draw_never_takes_a_token_of_probability_zero() -> None:
    log_distribution = torch.tensor([[-torch.inf, 0.5, -torch.inf, 0.5, -torch.inf]]).log_softmax(-1)
    for uniform in (0.0, 0.4999999, 0.5, 1 - 2**-53):
        drawn = native._draw(log_distribution, torch.tensor([uniform], dtype=torch.float64))
        assert int(drawn) == (1 if uniform < 0.5 else 3), uniform


@pytest.mark.parametrize(("weights", "levels"), [("int8", 127), ("int4", 7), ("int3", 3)])
def test_integer_formats_hold_each_row_on_its_own_few_levels(
    policy: Policy, weights: Any, levels: int
) -> None:
    engine = engine_for(policy, weights=weights)
    for (name, copied), original in zip(
        engine._policy.named_parameters(), policy.network.parameters(), strict=True
    ):
        if copied.dim() < 2:
            assert torch.equal(copied, original), f"{name}: vectors stay as they are"
            continue
        scale = original.abs().amax(-1, keepdim=True) / levels
        steps = copied / scale
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
        assert steps.abs().max() <= levels + 1e-3
        assert ((copied - original).abs() <= scale / 2 * 1.001).all(), f"{name}: rounded to nearest"
        assert not torch.equal(copied, original)


def test_bfloat16_holds_and_computes_in_bfloat16(policy: Policy, prompts: list[list[int]]) -> None:
    engine = engine_for(policy, weights="bfloat16")
    assert {parameter.dtype for parameter in engine._policy.parameters()} == {torch.bfloat16}
    for copied, original in zip(engine._policy.parameters(), policy.network.parameters(), strict=True):
        assert torch.equal(copied, original.bfloat16())
    rollout = engine.sample(prompts, SamplingSettings(LIMIT))
    assert rollout.logp.dtype == torch.float32


def mismatch(policy: Policy, prompts: list[list[int]], weights: Any) -> float:
    rollout = sampled(policy, prompts * 4, weights, seed=6)
    with torch.no_grad():
        again = token_statistics(policy.network, rollout.tokens, rollout.attention_mask, rollout.prompt_width)
    return float((again.logp - rollout.logp)[rollout.response_mask].abs().mean())


def test_mismatch_grows_as_precision_falls(policy: Policy, prompts: list[list[int]]) -> None:
    same, int8, int4, int3 = (
        mismatch(policy, prompts, weights) for weights in ("same", "int8", "int4", "int3")
    )
    assert same < 1e-5
    assert 10 * same < int8
    assert 3 * int8 < int4
    assert 1.5 * int4 < int3
    assert 10 * same < mismatch(policy, prompts, "bfloat16") < int4


@pytest.mark.parametrize("weights", ["same", "bfloat16", "int4"])
def test_policy_itself_is_never_touched(policy: Policy, prompts: list[list[int]], weights: Any) -> None:
    before = copy.deepcopy(policy.network.state_dict())
    engine = engine_for(policy, weights=weights)
    engine.sample(prompts, SamplingSettings(4))
    engine.load_weights(policy.network, 1)
    for name, value in policy.network.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.dtype == before[name].dtype
    assert all(parameter.requires_grad for parameter in policy.network.parameters())


@pytest.mark.parametrize("weights", ["same", "bfloat16", "int8", "int4", "int3"])
def test_engine_keeps_its_weights_until_it_is_given_new_ones(
    policy: Policy, prompts: list[list[int]], weights: Any
) -> None:
    learner = copy.deepcopy(policy.network)
    engine = engine_for(Policy(learner, policy.tokenizer), weights=weights)
    settings = SamplingSettings(LIMIT, seed=8)
    before = engine.sample(prompts, settings)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.mul_(0.7)
    held = engine.sample(prompts, settings)
    assert torch.equal(held.tokens, before.tokens)
    assert torch.equal(held.logp, before.logp)
    assert held.policy_version == 0
    engine.load_weights(learner, 12)
    after = engine.sample(prompts, settings)
    assert after.policy_version == 12
    fresh = engine_for(Policy(learner, policy.tokenizer), weights=weights).sample(prompts, settings)
    assert torch.equal(after.tokens, fresh.tokens)
    assert torch.equal(after.logp, fresh.logp)
    assert not torch.equal(after.logp[:, :1], before.logp[:, :1])


def test_mixture_of_experts_samples_and_is_rounded_row_by_row(prompts: list[list[int]]) -> None:
    tokenizer = vocabulary_tokenizer(VOCABULARY)
    config = tiny_config(Path("unused"), "model=moe")
    policy = Policy(scratch_policy(config.model, tokenizer, 0), tokenizer)  # type: ignore[arg-type]
    rollout = sampled(policy, prompts)
    with torch.no_grad():
        again = token_statistics(policy.network, rollout.tokens, rollout.attention_mask, rollout.prompt_width)
    torch.testing.assert_close(
        again.logp[rollout.response_mask], rollout.logp[rollout.response_mask], rtol=0, atol=2e-4
    )
    engine = engine_for(policy, weights="int4")
    experts = [p for name, p in engine._policy.named_parameters() if "experts" in name]
    assert experts
    for weight in experts:
        flat = weight.flatten(0, -2)
        assert max(len(row.unique()) for row in flat) <= 15


def test_rows_of_zeros_stay_zero_when_rounded() -> None:
    weight = torch.zeros(3, 4)
    weight[1] = torch.tensor([1.0, -2.0, 0.1, 0.0])
    assert torch.equal(rounded(weight, "int4")[0], torch.zeros(4))
    assert rounded(weight, "int4").isfinite().all()


def test_picked_rows_lose_the_columns_that_only_hold_padding(
    policy: Policy, prompts: list[list[int]]
) -> None:
    rollout = sampled(policy, prompts, topk=2, seed=1)
    order = rollout.lengths.argsort()
    picked = rollout.rows(order[:3])
    assert picked.response_mask.shape[1] == int(rollout.lengths[order[2]])
    assert picked.texts(policy.tokenizer) == [rollout.texts(policy.tokenizer)[int(i)] for i in order[:3]]
    assert picked.topk_ids is not None
    assert picked.topk_ids.shape == (3, picked.response_mask.shape[1], 2)
    assert picked.prompt_width == rollout.prompt_width
