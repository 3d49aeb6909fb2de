"""Micro-batches hold every response once, within their bounds, and waste little on padding."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import tiny_config

from cppo_lab.config.compose import compose_run
from cppo_lab.errors import UserError
from cppo_lab.rollouts.rollout import Rollout
from cppo_lab.training.microbatches import microbatches

PROMPT = 3


def rollout(lengths: list[int]) -> Rollout:
    rows, width = len(lengths), max(lengths)
    mask = torch.arange(width) < torch.tensor(lengths).unsqueeze(-1)
    prompts = torch.ones(rows, PROMPT, dtype=torch.bool)
    return Rollout(
        tokens=torch.zeros(rows, PROMPT + width, dtype=torch.long),
        attention_mask=torch.cat([prompts, mask], dim=-1),
        response_mask=mask,
        logp=torch.zeros(rows, width),
        finished=torch.ones(rows, dtype=torch.bool),
        prompt_width=PROMPT,
        policy_version=0,
    )


LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=40)


@given(LENGTHS, st.integers(1, 200), st.one_of(st.none(), st.integers(1, 9)), st.booleans())
def test_every_response_is_in_one_part_and_parts_keep_to_their_bounds(
    lengths: list[int], tokens: int, sequences: int | None, by_length: bool
) -> None:
    made = rollout(lengths)
    rows = torch.arange(len(lengths)).flip(0)
    parts = microbatches(made, rows, sequences=sequences, tokens=tokens, by_length=by_length)
    together = torch.cat(list(parts))
    assert sorted(together.tolist()) == list(range(len(lengths)))
    held = [made.lengths[part] for part in parts]
    for part in held:
        assert len(part) == 1 or len(part) * (PROMPT + int(part.max())) <= tokens
        assert sequences is None or len(part) <= sequences
    if by_length:
        assert torch.equal(made.lengths[together], made.lengths.sort().values)
    else:
        assert torch.equal(together, rows)
    for part, following in itertools.pairwise(held):
        grown = torch.cat([part, following[:1]])
        fits = len(grown) * (PROMPT + int(grown.max())) <= tokens and len(grown) <= (sequences or 99)
        assert not fits, "a part ends where the next response does not fit"


@given(LENGTHS, st.one_of(st.none(), st.integers(1, 9)))
def test_without_a_bound_on_tokens_responses_keep_their_order(
    lengths: list[int], sequences: int | None
) -> None:
    rows = torch.arange(len(lengths))
    parts = microbatches(rollout(lengths), rows, sequences=sequences, tokens=None)
    assert torch.equal(torch.cat(list(parts)), rows)
    assert {len(part) for part in parts[:-1]} <= {sequences}


def test_sorting_by_length_leaves_less_padding() -> None:
    lengths = [1, 30] * 20
    made, rows = rollout(lengths), torch.arange(40)

    def computed(by_length: bool) -> int:
        parts = microbatches(made, rows, sequences=None, tokens=132, by_length=by_length)
        return sum(len(part) * (PROMPT + int(made.lengths[part].max())) for part in parts)

    assert computed(by_length=True) == sum(PROMPT + length for length in lengths)
    assert computed(by_length=False) > 1.7 * computed(by_length=True)


def test_a_minibatch_without_responses_has_no_parts() -> None:
    assert not len(microbatches(rollout([3]), torch.arange(0), sequences=None, tokens=9)[:1])


@pytest.mark.parametrize("key", ["use_dynamic_bsz", "ppo_max_token_len_per_gpu"])
def test_names_of_other_trainers_lead_to_the_key(key: str) -> None:
    with pytest.raises(UserError, match=r"microbatch_tokens"):
        compose_run([f"trainer.{key}=1"])


def test_a_bound_on_tokens_names_another_run(output: object) -> None:
    from cppo_lab.config.identity import run_id

    assert run_id(tiny_config(output)) != run_id(tiny_config(output, "trainer.microbatch_tokens=100"))  # type: ignore[arg-type]
