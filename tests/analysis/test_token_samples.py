"""Responses that runs keep: read from their files whatever these hold, and the few shown without choosing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kept_responses import HOSTILE, LONG_TOKENS
from run_folders import write_sweep

from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.page.report import collect, html_page, markdown_page
from cppo_lab.analysis.page.responses import (
    MOST_CHARACTERS,
    MOST_TOKENS,
    KeptStep,
    kept_files,
    read_step,
    recorded_steps,
)
from cppo_lab.analysis.page.samples import choice_in_words, choose, left_out, token_notes


def record(texts: list[str], masked: list[str], **columns: Any) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "divergence": [0.25] * len(texts),
        "weight": [0.5] * len(texts),
        "threshold": [0.15] * len(texts),
        "ratio": [1.2] * len(texts),
        "advantage": [-0.5] * len(texts),
    }
    return {"text": texts, "masked": masked, "anchor": "rollout", "delta": 0.15, **numbers, **columns}


def row(tokens: dict[str, Any] | None, **fields: Any) -> dict[str, Any]:
    return {"prompt": "2 + 2?\n", "completion": "4", "answer": "4", "reward": 1.0, "tokens": tokens} | fields


def step_of(folder: Path, *rows: Any, step: int = 2) -> KeptStep:
    """What is read of a sample file with these rows."""
    path = folder / "samples" / f"step_{step:06d}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return read_step(step, path)


def with_tokens(output: Path, tokens: dict[str, Any]) -> str:
    """The page of a sweep of one run, all whose kept responses have `tokens`."""
    (folder,) = write_sweep(output, algos=("cppo",), seeds=(0,))
    for step in kept_files(folder):
        step_of(folder, row(tokens), step=step)
    return page_of(output)


def page_of(output: Path) -> str:
    """The page, its figures left out."""
    return html_page(collect(load_study(output, "quickstart"), set()))


def test_masked_tokens_are_marked_and_say_their_numbers(tmp_path: Path) -> None:
    page = with_tokens(tmp_path, record(["so", " 5", "6"], ["", "threshold", "budget"]))
    note = "token 2: D_t 0.25, w_t 0.5, threshold c_t 0.15, ratio 1.2, advantage −0.5, masked by threshold"
    assert f'<span title="{note}" class="threshold"> 5</span>' in page
    assert 'masked by budget" class="budget">6</span>' in page
    assert ">so</span>" in page


def test_tokens_of_a_model_are_text_and_nothing_else(tmp_path: Path) -> None:
    page = with_tokens(tmp_path, record([HOSTILE, "\u202e", '" onmouseover="x'], ["threshold", "", "budget"]))
    assert HOSTILE not in page
    assert "\u202e" not in page
    assert '" onmouseover="x' not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_long_responses_are_cut_and_methods_without_a_divergence_say_less(tmp_path: Path) -> None:
    long = [str(i % 10) for i in range(MOST_TOKENS + 7)]
    masked = [""] * (MOST_TOKENS + 6) + ["threshold"]
    kept = step_of(tmp_path, row(record(long, masked, divergence=None, weight=None, threshold=None)))
    tokens = kept.responses[0].tokens
    assert tokens is not None
    assert len(tokens.text) == len(tokens.masked) == len(tokens.columns["ratio"]) == MOST_TOKENS
    assert tokens.counts == {"threshold": 1, "budget": 0}
    assert token_notes(tokens)[0] == "token 1: ratio 1.2, advantage −0.5, kept"
    assert left_out(kept.responses[0]) == "7 more tokens"


def test_a_text_without_recorded_tokens_is_cut_and_says_by_how_much(tmp_path: Path) -> None:
    kept = step_of(tmp_path, row(None, completion="8 7 + " * 20_000))
    assert len(kept.responses[0].completion) == MOST_CHARACTERS
    assert left_out(kept.responses[0]) == f"{120_000 - MOST_CHARACTERS} more characters"


def test_problems_and_responses_are_numbered_as_in_inspect(tmp_path: Path) -> None:
    rows = [row(None), row(None, prompt="3 + 3?\n"), row(None)]
    numbers = [(one.problem, one.number) for one in step_of(tmp_path, *rows).responses]
    assert numbers == [(0, 1), (1, 1), (0, 2)]


@pytest.mark.parametrize(
    "tokens",
    [
        record(["a", "b"], [""]),
        {"text": "ab", "masked": ["", ""]},
        {"text": ["a"]},
        [1, 2],
        "tokens",
    ],
)
def test_a_record_that_does_not_fit_together_leaves_the_text(tmp_path: Path, tokens: Any) -> None:
    (response,) = step_of(tmp_path, row(tokens)).responses
    assert response.tokens is None
    assert response.completion == "4"


def test_a_column_of_another_length_is_left_out_and_numbers_that_are_none_are_dashes(tmp_path: Path) -> None:
    tokens = record(
        ["a", "b"], ["", "budget"], divergence=[0.1], ratio=[1.5, None], advantage=[float("inf"), "x"]
    )
    kept = step_of(tmp_path, row(tokens)).responses[0].tokens
    assert kept is not None
    assert "divergence" not in kept.columns
    assert kept.columns["ratio"] == (1.5, None)
    assert kept.columns["advantage"] == (None, None)
    assert "ratio –" in token_notes(kept)[1]


def test_a_row_may_lack_everything(tmp_path: Path) -> None:
    (response,) = step_of(tmp_path, {}).responses
    assert (response.answer, response.verdict, response.right) == ("–", "wrong", False)
    assert dict(response.facts)["advantage"] == "–"


def test_line_breaks_and_parts_of_characters_can_be_pointed_at(tmp_path: Path) -> None:
    tokens = step_of(tmp_path, row(record(["a\n", ""], ["", ""]))).responses[0].tokens
    assert tokens is not None
    assert tokens.text == ("a⏎\n", "◌")


def test_steps_are_those_nearest_to_the_places_asked_for_that_were_recorded(tmp_path: Path) -> None:
    for step in range(1, 21):
        recorded = step % 2 == 0 and step not in (2, 20)
        step_of(tmp_path, row(record(["a"], [""]) if recorded else None), step=step)
    evaluated = list(range(2, 21, 2))
    found = recorded_steps(kept_files(tmp_path), evaluated, (1.0, 0.0, 0.5))
    assert [kept.step for kept in found] == [18, 4, 10]


def test_as_many_steps_as_were_recorded_are_found_and_none_twice(tmp_path: Path) -> None:
    for step in range(1, 9):
        step_of(tmp_path, row(record(["a"], [""]) if step in (3, 7) else None), step=step)
    found = recorded_steps(kept_files(tmp_path), (), (1.0, 0.0, 0.5, 0.25))
    assert [kept.step for kept in found] == [7, 3]


def test_a_run_without_records_gives_its_last_responses_in_text(tmp_path: Path) -> None:
    for step in (1, 2):
        step_of(tmp_path, row(None), step=step)
    step_of(tmp_path, step=3)
    assert [kept.step for kept in recorded_steps(kept_files(tmp_path), (2, 3), (1.0, 0.0))] == [2]
    assert recorded_steps({}, (), (1.0,)) == []


def test_one_right_and_one_wrong_response_of_every_method_are_read_without_choosing(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("pg", "cppo"), seeds=(0, 1))
    chosen = choose(load_study(tmp_path, "quickstart"))
    assert [(one.method, one.response.right) for one in chosen] == [
        ("pg", True),
        ("pg", False),
        ("cppo", True),
        ("cppo", False),
    ]
    assert all(one.step == 12 and one.response.tokens for one in chosen)
    assert chosen[3].response.any_masked


def test_a_run_whose_last_groups_were_all_dropped_gives_way_to_one_with_tokens(tmp_path: Path) -> None:
    first, second = folders = write_sweep(tmp_path, algos=("cppo",), seeds=(0, 1))
    first_id, second_id = (folder.name.rpartition("-")[2] for folder in folders)
    for step in kept_files(first):
        step_of(first, row(None), row(None, reward=0.0), step=step)
    chosen = choose(load_study(tmp_path, "quickstart"))
    assert {sample.run_id for sample in chosen} == {second_id}
    for step in kept_files(second):
        step_of(second, row(None), step=step)
    chosen = choose(load_study(tmp_path, "quickstart"))
    assert [(sample.run_id, sample.response.right) for sample in chosen] == [
        (first_id, True),
        (first_id, False),
    ]


def test_it_is_said_which_responses_are_read_without_choosing(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=[f"rule_{number}" for number in range(9)], seeds=(0,), steps=2)
    study = load_study(tmp_path, "quickstart")
    assert len(choose(study)) == 16
    assert choice_in_words(study).startswith("One correct and one wrong response of the first 8 of 9 methods")


def test_a_study_that_kept_nothing_has_no_section_of_samples(tmp_path: Path) -> None:
    for folder in write_sweep(tmp_path, algos=("cppo",), seeds=(0, 1)):
        for path in kept_files(folder).values():
            path.unlink()
    content = collect(load_study(tmp_path, "quickstart"), set())
    html = html_page(content)
    assert 'href="#samples"' not in html
    assert 'id="samples"' not in html
    assert "application/json" not in html
    assert "## Samples" not in markdown_page(content)


def test_the_written_records_are_like_those_of_a_run(tmp_path: Path) -> None:
    (folder,) = write_sweep(tmp_path, algos=("cppo",), seeds=(0,))
    kept = read_step(12, kept_files(folder)[12])
    reasons = {reason for one in kept.responses if one.tokens for reason in one.tokens.masked}
    assert reasons == {"", "threshold", "budget"}
    assert max(one.tokens.length for one in kept.responses if one.tokens) == LONG_TOKENS
    assert not read_step(11, kept_files(folder)[11]).recorded
