"""Tokenizers of from-scratch models: exact round trips, fixed special tokens, equal after a reload."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from cppo_lab.models.tokenizers import SPECIALS, trained_tokenizer, vocabulary_tokenizer
from cppo_lab.tasks.chain import VOCABULARY, ChainConfig, draw_problem

CHAIN = vocabulary_tokenizer(VOCABULARY)
TEXTS = [f"Question: Tom has {i} apples, é and 1,2{i}. How many?\nAnswer: {i} #### {i}" for i in range(80)]


@pytest.fixture(scope="module")
def trained() -> PreTrainedTokenizerFast:
    return trained_tokenizer(TEXTS, 400)


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 12), corruption=st.sampled_from([0.0, 0.5]))
def test_prompts_and_solutions_come_back_exactly_and_know_every_piece(
    seed: int, steps: int, corruption: float
) -> None:
    problem = draw_problem(np.random.default_rng(seed), steps, corruption=corruption)
    for text in (problem.prompt, problem.solution):
        ids = CHAIN(text, add_special_tokens=False).input_ids
        assert CHAIN.unk_token_id not in ids
        assert CHAIN.decode(ids) == text
    together = CHAIN(problem.prompt + problem.solution).input_ids
    assert (
        together
        == CHAIN(problem.prompt).input_ids + CHAIN(problem.solution, add_special_tokens=False).input_ids
    ), "the border between prompt and response is a border of tokens"


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 12))
def test_longest_solution_fits_the_tasks_response_limit(seed: int, steps: int) -> None:
    task = ChainConfig(
        kind="chain", steps=steps, heldout=16, multiply_probability=0.15, max_response_tokens=None
    )
    problem = draw_problem(np.random.default_rng(seed), steps, corruption=0.3)
    assert len(CHAIN(problem.solution, add_special_tokens=False).input_ids) + 1 <= task.response_limit


@settings(max_examples=100)
@given(text=st.text(max_size=80))
def test_byte_level_tokenizer_returns_any_text_exactly(text: str, trained: PreTrainedTokenizerFast) -> None:
    if any(special in text for special in SPECIALS):
        return
    ids = trained(text, add_special_tokens=False).input_ids
    assert trained.decode(ids) == text


def test_byte_level_tokenizer_keeps_digits_apart(trained: PreTrainedTokenizerFast) -> None:
    ids = trained("1234", add_special_tokens=False).input_ids
    assert [trained.decode([i]) for i in ids] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("kind", ["vocabulary", "trained"])
def test_special_tokens_have_the_same_ids_in_every_tokenizer(
    kind: str, trained: PreTrainedTokenizerFast
) -> None:
    tokenizer = CHAIN if kind == "vocabulary" else trained
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id)
    assert ids == (0, 1, 2, 3)
    assert tokenizer("7").input_ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in tokenizer("7").input_ids
    assert tokenizer.padding_side == "left"


def test_vocabulary_tokenizer_has_no_other_tokens() -> None:
    assert len(CHAIN) == len(SPECIALS) + len(VOCABULARY)


def test_trained_tokenizer_keeps_to_its_size(trained: PreTrainedTokenizerFast) -> None:
    assert len(trained) <= 400


@pytest.mark.parametrize("kind", ["vocabulary", "trained"])
def test_saved_and_reloaded_tokenizer_gives_the_same_ids_and_texts(
    kind: str, trained: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer = CHAIN if kind == "vocabulary" else trained
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    problem = draw_problem(np.random.default_rng(0), 6)
    for text in (problem.prompt, problem.solution, *TEXTS[:5]):
        if kind == "vocabulary" and text in TEXTS:
            continue
        assert again(text).input_ids == tokenizer(text).input_ids
        assert again.decode(again(text, add_special_tokens=False).input_ids) == text
    assert again.eos_token_id == tokenizer.eos_token_id


def test_training_a_tokenizer_twice_gives_the_same_one() -> None:
    first, second = (trained_tokenizer(TEXTS, 400) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()
