"""The lm-eval protocols to the letter: prompts by their hashes in the harness's files, extraction, normalisation."""

from __future__ import annotations

from pathlib import Path

import pytest

from cppo_lab.errors import UserError
from cppo_lab.eval.lm_eval import FLEXIBLE, INVALID, STRICT, TASKS, lm_eval_protocol, normalise
from cppo_lab.eval.lm_eval_files import sha256
from cppo_lab.tasks.benchmarks import Question, benchmark, load_questions
from cppo_lab.tasks.grading.verdict import Outcome

Data = tuple[list[Question], list[Question]]

# The first rows of lm_eval 0.4.13's samples_gsm8k*.jsonl.
PROMPTS = {
    "gsm8k": (
        "32680f263ba83280e98a8a24ceefed10a722a4cdcd9f4d78e93c45d43143ca66",
        "e6b9a0195411932e5323ed20ad05e965b08b979103bbb26594a5bdf123d27990",
        "97eb2662b11bbd7bd0423f898efde0e9a04d22028ed5fc1f80576965b0f570fa",
    ),
    "gsm8k_cot": (
        "901fead9abd2535b6d0610c3c90125f38cad81678c4b2b98ec8fb818e3948bde",
        "d8ef3245c80f640811539185b957683e5036aab3d96e0ecf13cd5728c88cf30f",
        "dc37b83aca6e54ce0ed7be37efa94c2ba8f01755955ff2c04344d5acd546492b",
    ),
    "gsm8k_cot_zeroshot": (
        "3ecf69624b1ce95ae0b41a1fc9ccaf38e0c07a2bb6c7c959ffc1c5a749dc049b",
        "058ffcd1083d621e0798bff7669f73b6efa699d532e5d6db4585499bb01f8897",
        "7fbda39bc72ae81206812a8a833bcb03b86ed136add04225f240bedbf47d16cb",
    ),
}
TARGETS = {
    "gsm8k": "623a0fbdf774fcb55e485a3e6b012e6c3965616af5b8eb9b9aebd2f6712be2eb",
    "gsm8k_cot": "4ec9599fc203d176a301536c2e091a19bc852759b255bd6818810a42c5fed14a",
    "gsm8k_cot_zeroshot": "623a0fbdf774fcb55e485a3e6b012e6c3965616af5b8eb9b9aebd2f6712be2eb",
}
SHOTS = ([6374, 3610, 957, 61, 742], [7462, 6610, 4769, 286, 5501], [5677, 687, 806, 6279, 2905])


@pytest.fixture(scope="module")
def data(shared_data: Path) -> Data:
    files = (shared_data / "gsm8k" / f"{split}.jsonl" for split in ("test", "train"))
    test, train = (load_questions(benchmark("gsm8k"), str(file)) for file in files)
    return test, train


def question(answer: str) -> Question:
    return Question("How many?", answer, {"question": "How many?", "answer": f"So it is.\n#### {answer}"})


@pytest.mark.parametrize("task", TASKS)
def test_prompts_and_targets_are_the_harness_s(data: Data, task: str) -> None:
    test, train = data
    protocol = TASKS[task]
    prompts = protocol.prompts(test, train if protocol.needs_pool else [])
    assert tuple(sha256(prompt.text) for prompt in prompts[:3]) == PROMPTS[task]
    assert sha256(protocol.reference(test[0])) == TARGETS[task]
    assert not any(prompt.text.endswith(" ") or prompt.is_chat for prompt in prompts)


def test_examples_are_the_training_problems_that_the_harness_draws(data: Data) -> None:
    test, train = data
    for prompt, rows in zip(TASKS["gsm8k"].prompts(test[:3], train), SHOTS, strict=True):
        places = [prompt.text.index(str(train[row].row["question"])) for row in rows]
        assert places == sorted(places)
        assert prompt.text.count("Question: ") == 6


def test_examples_depend_on_the_place_and_not_on_how_many_are_asked(data: Data) -> None:
    test, train = data
    gsm8k = TASKS["gsm8k"]
    whole = gsm8k.prompts(test[:40], train)
    assert gsm8k.prompts(test[:10], train) == whole[:10]
    assert gsm8k.prompts(test[:1], train) == whole[:1]
    moved = gsm8k.prompts(test[1:11], train)
    assert moved[0].text.rpartition("\n\n")[0] == whole[0].text.rpartition("\n\n")[0]
    assert moved[0].text.rpartition("\n\n")[2] == whole[1].text.rpartition("\n\n")[2]


def test_too_few_problems_to_draw_from_are_refused() -> None:
    gsm8k = TASKS["gsm8k"]
    with pytest.raises(UserError, match="needs 5 examples, but the training split has 4 problems"):
        gsm8k.prompts([question("1")], [question(str(i)) for i in range(4)])
    assert gsm8k.prompts([question("1")], [question(str(i)) for i in range(5)])


@pytest.mark.parametrize(
    ("response", "strict", "flexible"),
    [
        # strict: the first number behind ####, with one space.
        ("#### 18", "18", "18"),
        (" 2 + 2 = 4\n#### 4\n\nso 5", "4", "5"),
        ("#### 18\n#### 19", "18", "19"),
        ("#### -18", "-18", "-18"),
        ("#### 1,234.", "1,234.", "1,234."),
        ("#### $18", INVALID, "$18"),
        ("####18", INVALID, "18"),
        ("####  18", INVALID, "18"),
        ("#### eighteen", INVALID, INVALID),
        ("#### .", ".", INVALID),
        # flexible: the last number, or what looks like one.
        ("so $18.00 per day.", INVALID, "$18.00"),
        ("price $,", INVALID, "$,"),
        ("ends with ...", INVALID, "..."),
        ("1,234.", INVALID, "1,234."),
        ("10-3", INVALID, "-3"),
        ("x5", INVALID, "5"),
        ("5.", INVALID, "5."),
        ("at 7 o'clock, $", INVALID, "7"),
        ("-", INVALID, INVALID),
        ("3 x 4 = 12 apples!", INVALID, "12"),
        ("½ or ١٨", INVALID, INVALID),
        ("", INVALID, INVALID),
    ],
)
def test_what_gsm8k_extracts(response: str, strict: str, flexible: str) -> None:
    assert TASKS["gsm8k"].filtered(response) == {STRICT: strict, FLEXIBLE: flexible}


@pytest.mark.parametrize("task", ["gsm8k_cot", "gsm8k_cot_zeroshot"])
@pytest.mark.parametrize(
    ("response", "strict", "flexible"),
    [
        ("The answer is 18.", "18", "18."),
        ("The answer is 18 apples", "18", "18"),
        # One more character is wanted behind the number.
        ("The answer is 18", "1", "18"),
        ("The answer is 8", INVALID, "8"),
        ("The answer is 8.", "8", "8."),
        ("The answer is 8..", "8.", "8.."),
        # That character is no line break.
        ("The answer is 18\n", "1", "18"),
        ("The answer is $18.", INVALID, "$18."),
        ("The answer is -5.", "-5", "-5."),
        ("The answer is 1,234.", "1,234", "1,234."),
        # Dots belong to the number as long as another character is left.
        ("The answer is 4. No, the answer is 5. The answer is 6.", "4.", "6."),
        ("the answer is 4.", INVALID, "4."),
        ("#### 4", INVALID, "4"),
    ],
)
def test_what_gsm8k_cot_extracts(task: str, response: str, strict: str, flexible: str) -> None:
    assert TASKS[task].filtered(response) == {STRICT: strict, FLEXIBLE: flexible}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("18", "18"),
        ("1,234", "1234"),
        ("$18.00", "18.00"),
        ("18.", "18"),
        ("5...", "5.."),
        ("$,", ""),
        ("-$5", "-5"),
        ("It is so.\n#### 1,234", "1234"),
        ("#### 1\n#### 2", "2"),
        ("####2", "####2"),
        (INVALID, INVALID),
        ("ABC", "abc"),
        # The order of deletions: a marker that a comma or a dollar had hidden, and a dot that the marker leaves.
        ("9##,## 18", "18"),
        ("9##$## 18", "18"),
        ("9#### .", ""),
        # The final dot goes before a last line break too.
        ("18.\n", "18\n"),
    ],
)
def test_normalisation_deletes_in_the_harness_s_order(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("response", "answer", "strict", "flexible"),
    [
        ("#### 18", "18", Outcome.CORRECT, Outcome.CORRECT),
        ("#### 1,234.", "1234", Outcome.CORRECT, Outcome.CORRECT),
        ("#### 18.00", "18", Outcome.WRONG, Outcome.WRONG),
        ("#### 018", "18", Outcome.WRONG, Outcome.WRONG),
        ("#### 18 and 19", "18", Outcome.CORRECT, Outcome.WRONG),
        ("so $18", "18", Outcome.UNPARSABLE, Outcome.CORRECT),
        ("nothing", "18", Outcome.UNPARSABLE, Outcome.UNPARSABLE),
    ],
)
def test_scores_compare_text_and_not_numbers(
    response: str, answer: str, strict: Outcome, flexible: Outcome
) -> None:
    scores = TASKS["gsm8k"].score([response], [question(answer)])[0]
    assert {name: score.outcome for name, score in scores.items()} == {STRICT: strict, FLEXIBLE: flexible}


def test_references_are_whole_solutions_or_the_number() -> None:
    asked = question("1,234")
    assert TASKS["gsm8k"].reference(asked) == "So it is.\n#### 1,234"
    assert TASKS["gsm8k_cot"].reference(asked) == "1,234"
    assert all(normalise(task.reference(asked)) == "1234" for task in TASKS.values())


def test_only_gsm8k_names_a_temperature() -> None:
    assert TASKS["gsm8k"].generation == {
        "until": ["Question:", "</s>", "<|im_end|>"],
        "do_sample": False,
        "temperature": 0.0,
    }
    for task in ("gsm8k_cot", "gsm8k_cot_zeroshot"):
        assert TASKS[task].generation == {"until": ["Q:", "</s>", "<|im_end|>"], "do_sample": False}


@pytest.mark.parametrize("name", ["lm-eval:gsm8k@2.0", "lm-eval:gsm9k", "gsm8k", "lm-eval:"])
def test_unknown_protocols_and_versions_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="protocol="):
        lm_eval_protocol(name)


@pytest.mark.parametrize("task", TASKS)
def test_a_protocol_is_found_by_its_name_with_and_without_version(task: str) -> None:
    assert lm_eval_protocol(f"lm-eval:{task}@3.0") is TASKS[task]
    assert lm_eval_protocol(f"lm-eval:{task}") is TASKS[task]
