"""Responses end where lm-evaluation-harness ends them, and read as they do there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_models import byte_tokenizer

from cppo_lab.models.tokenizers import EOS
from cppo_lab.rollouts.stops import StopStrings

SPECIALS = ("</s>", "<|im_end|>")
TOKENIZER = byte_tokenizer(*SPECIALS)
STOPS = ("Question:", *SPECIALS)


def ids(text: str) -> list[int]:
    found: list[int] = TOKENIZER(text, add_special_tokens=False).input_ids
    return found


def spelled(text: str) -> list[int]:
    """The tokens of `text` letter by letter, whatever merges or special tokens it has."""
    return [token for letter in text for token in ids(letter)]


WIDEST = [*spelled("Ques"), *ids("tion:")]


def test_the_widest_spelling_has_two_tokens_more() -> None:
    assert len(WIDEST) == len(ids("Question:")) + 2 < len(spelled("Question:"))
    assert TOKENIZER.decode(WIDEST) == "Question:"


def of_the_harness(tokenizer: Any, tokens: list[int], strings: tuple[str, ...]) -> tuple[list[int], str]:
    """lm_eval 0.4.13: its criterion asked after every token, then its post-processing, in its own order."""
    until = [*strings, tokenizer.decode([tokenizer.eos_token_id])]
    looked_back = {string: len(tokenizer.encode(string, add_special_tokens=False)) + 2 for string in until}
    sampled = []
    for token in tokens:
        sampled.append(token)
        if token == tokenizer.eos_token_id:
            break
        if any(string in tokenizer.decode(sampled[-n:]) for string, n in looked_back.items()):
            break
    text = tokenizer.decode(sampled, skip_special_tokens=True)
    for term in until:
        text = text.split(term)[0]
    return sampled, text


@pytest.mark.parametrize(
    ("tokens", "text", "stopped"),
    [
        (ids(" 18 apples"), " 18 apples", False),
        (ids(" 18\n\nQuestion: Who"), " 18\n\n", True),
        (ids(" 18") + ids("Q") + ids("uestion:") + ids(" Who"), " 18", True),
        ([*ids(" 18"), TOKENIZER.convert_tokens_to_ids("</s>"), *ids(" more")], " 18", True),
        ([*ids(" 18"), TOKENIZER.convert_tokens_to_ids("<|im_end|>")], " 18", True),
        (ids("a</s>Question:"), "a", True),
        (ids("aQuestion:</s>"), "a", True),
        (ids("Question:"), "", True),
        # The harness looks back over two tokens more than a stop string has, and notices longer spellings in the text
        # only.
        (ids(" 18") + WIDEST + ids(" Who"), " 18", True),
        (ids(" 18") + spelled("Question:") + ids(" Who"), " 18", False),
        (ids(" 18") + spelled("</s>") + ids(" more"), " 18", False),
        (ids(" 18") + spelled(EOS) + ids(" more"), " 18", False),
        (ids("a") + spelled("</s>") + spelled("Question:"), "a", False),
        (ids("a") + spelled("Question:") + spelled("</s>"), "a", False),
        (ids("No question: here, Question"), "No question: here, Question", False),
        ([], "", False),
        # The first two of the three bytes of an em dash.
        (ids("—")[:2], "\ufffd", False),
    ],
)
def test_text_ends_before_the_first_stop_string(tokens: list[int], text: str, stopped: bool) -> None:
    stops = StopStrings(TOKENIZER, STOPS)
    kept, found = stops.cut(tokens)
    assert (stops.text(kept), found) == (text, stopped)
    assert kept == tokens[: len(kept)]


def test_special_tokens_are_no_text_but_stop() -> None:
    unknown = TOKENIZER.convert_tokens_to_ids("<unk>")
    stops = StopStrings(TOKENIZER, STOPS)
    tokens = [*ids("a"), unknown, *ids("b"), TOKENIZER.convert_tokens_to_ids("</s>"), *ids("c")]
    assert stops.cut(tokens) == (tokens[:-1], True)
    assert stops.text(stops.cut(tokens)[0]) == "ab"


@pytest.mark.parametrize("every", [1, 3, 8])
def test_a_stop_string_is_seen_wherever_it_ends_between_two_questions(every: int) -> None:
    stops = StopStrings(TOKENIZER, STOPS)
    for before in range(2 * every):
        tokens = [*spelled("x" * before), *WIDEST, *spelled("y" * 2 * every)]
        end = before + len(WIDEST)
        asked = range(every, len(tokens) + 1, every)
        assert next(n for n in asked if stops.seen(tokens[:n], every)) == -(-end // every) * every


PIECES = st.one_of(
    st.integers(0, len(TOKENIZER) - 1).map(lambda token: [token]),
    st.sampled_from([EOS, *STOPS, "Quest", "ion:", "</", "s>", "#### 18", " ", "—", "Q: "]).map(ids),
    st.sampled_from([EOS, *STOPS]).map(spelled),
)


@given(st.lists(PIECES, max_size=20))
@settings(max_examples=400)
def test_every_response_ends_and_reads_as_in_the_harness(pieces: list[list[int]]) -> None:
    tokens = [token for piece in pieces for token in piece]
    if TOKENIZER.eos_token_id in tokens:
        tokens = tokens[: tokens.index(TOKENIZER.eos_token_id) + 1]
    stops = StopStrings(TOKENIZER, STOPS)
    sampled, text = of_the_harness(TOKENIZER, tokens, STOPS)
    kept, stopped = stops.cut(tokens)
    assert kept == sampled
    assert stops.text(kept) == text
    if not stopped:
        assert kept == tokens


@given(st.lists(PIECES, max_size=20), st.integers(1, 8))
@settings(max_examples=400)
def test_asking_now_and_then_loses_no_text(pieces: list[list[int]], every: int) -> None:
    tokens = [token for piece in pieces for token in piece]
    if TOKENIZER.eos_token_id in tokens:
        tokens = tokens[: tokens.index(TOKENIZER.eos_token_id) + 1]
    stops = StopStrings(TOKENIZER, STOPS)
    asked = range(every, len(tokens) + 1, every)
    end = next((end for end in asked if stops.seen(tokens[:end], every)), len(tokens))
    assert stops.text(stops.cut(tokens[:end])[0]) == of_the_harness(TOKENIZER, tokens, STOPS)[1]
