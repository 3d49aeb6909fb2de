"""The lm-eval protocols give lm-evaluation-harness's numbers: both commands on the same models, row by row."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lmeval
pytest.importorskip("pebble", reason="the lab is not installed: make test-lmeval")

from lm_eval_models import chaotic_policy, problems, taught_policy  # noqa: E402
from lm_eval_runs import (  # noqa: E402
    FILES,
    LM_EVAL,
    Found,
    Rows,
    by_the_harness,
    by_the_lab,
    in_the_harness,
    local_tasks,
)

from cppo_lab.eval.lm_eval import FLEXIBLE, STRICT, TASKS  # noqa: E402
from cppo_lab.tasks.benchmarks import Question  # noqa: E402
from cppo_lab.training.checkpoint import save_checkpoint  # noqa: E402

LIMIT = 100
FEWER = 20
PENALTY, LONGER = 1.1, 300
GOLDEN = ("32680f263ba83280", "e6b9a0195411932e", "97eb2662b11bbd7b")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not LM_EVAL.is_file():
        pytest.skip(f"lm-evaluation-harness is not installed ({LM_EVAL.name} is not there): make test-lmeval")
    return tmp_path_factory.mktemp("harness")


@pytest.fixture(scope="module")
def data(shared_data: Path) -> Path:
    return shared_data / "gsm8k"


@pytest.fixture(scope="module")
def tasks(scratch: Path, data: Path) -> Path:
    return local_tasks(scratch, data)


@pytest.fixture(scope="module")
def taught(scratch: Path, data: Path) -> Path:
    """The folder of a model whose answers are right, wrong and missing."""
    train, test = (problems(data / f"{split}.jsonl") for split in ("train", "test"))
    save_checkpoint(scratch / "taught", taught_policy(train, test[:LIMIT]))
    return scratch / "taught"


@pytest.fixture(scope="module")
def of_taught(scratch: Path, data: Path, taught: Path, tasks: Path) -> tuple[Found, Found]:
    """The harness's and the lab's files on the taught model, both one response at a time."""
    return (
        by_the_harness(scratch, taught, tasks, list(FILES), LIMIT),
        by_the_lab(scratch, taught, data, list(FILES), LIMIT, 1),
    )


def set_generation(model: Path, **settings: Any) -> None:
    """Change the generation_config.json of a model folder."""
    file = model / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    # Whoever changes a model says so.
    (model / "manifest.json").unlink()


@pytest.fixture(scope="module")
def of_penalised(scratch: Path, data: Path, taught: Path, tasks: Path) -> tuple[Found, Found]:
    """The same for a copy of the model that asks for a repetition penalty."""
    model = scratch / "penalised"
    shutil.copytree(taught, model)
    set_generation(model, repetition_penalty=PENALTY)
    return (
        by_the_harness(scratch, model, tasks, list(FILES), FEWER),
        by_the_lab(scratch, model, data, list(FILES), FEWER, 16),
    )


@pytest.fixture(scope="module")
def of_chaotic(scratch: Path, data: Path, tasks: Path) -> tuple[Found, Found]:
    """The same for random weights, whose text is none and goes on to a limit of the model's own."""
    model = scratch / "chaotic"
    save_checkpoint(model, chaotic_policy())
    set_generation(model, max_new_tokens=LONGER)
    return (
        by_the_harness(scratch, model, tasks, list(FILES), FEWER),
        by_the_lab(scratch, model, data, list(FILES), FEWER, 16),
    )


PAIRS = ("of_taught", "of_penalised", "of_chaotic")


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[Found, Found]:
    found: tuple[Found, Found] = request.getfixturevalue(request.param)
    return found


def texts(rows: Rows) -> list[str]:
    return [row["resps"][0][0] for row in rows if row["filter"] == STRICT]


@pytest.mark.parametrize("task", FILES)
def test_rows_are_equal_to_the_last_key(pair: tuple[Found, Found], task: str) -> None:
    theirs, ours = (found.samples[task] for found in pair)
    assert len(theirs) in (2 * LIMIT, 2 * FEWER)
    for their, our in zip(theirs, ours, strict=True):
        assert our == their


@pytest.mark.parametrize("task", FILES)
def test_scores_and_what_goes_with_them_are_equal(pair: tuple[Found, Found], task: str) -> None:
    theirs, ours = pair
    scores = theirs.of("results", task)
    assert len(scores) == 7
    assert ours.of("results", task) == pytest.approx(scores, abs=1e-12)
    for key in ("versions", "n-shot", "higher_is_better", "n-samples", "task_hashes"):
        assert ours.of(key, task) == theirs.of(key, task), key
    for key in ("group_subtasks", "fewshot_as_multiturn", "chat_template_sha"):
        assert ours.results[task].get(key) == theirs.results[task].get(key), key
    parameters = "model_num_parameters"
    assert ours.results[task]["config"][parameters] == theirs.results[task]["config"][parameters]
    for metric in (STRICT, FLEXIBLE):
        own = ours.own[task]["metrics"][metric]
        assert own["accuracy"] == pytest.approx(scores[f"exact_match,{metric}"], abs=1e-12)
        assert own["stderr"] == pytest.approx(scores[f"exact_match_stderr,{metric}"], abs=1e-12)


def test_the_harness_ran_its_own_tasks(of_taught: tuple[Found, Found]) -> None:
    theirs = of_taught[0]
    for task, protocol in TASKS.items():
        config = theirs.of("configs", task)
        assert config["num_fewshot"] == protocol.count
        assert config["generation_kwargs"] == protocol.generation
        assert [chain["name"] for chain in config["filter_list"]] == list(protocol.metrics)
        assert config["filter_list"][0]["filter"][0]["regex_pattern"] == protocol.strict.pattern
    assert theirs.of("configs", "gsm8k")["fewshot_split"] == "train"
    assert theirs.of("n-samples", "gsm8k") == {"original": 1319, "effective": LIMIT}


def test_golden_hashes_are_those_of_the_harness(of_taught: tuple[Found, Found]) -> None:
    rows = of_taught[0].samples["gsm8k"][: len(GOLDEN)]
    assert tuple(row["prompt_hash"][:16] for row in rows) == GOLDEN


def test_the_comparison_could_fail(of_taught: tuple[Found, Found], of_penalised: tuple[Found, Found]) -> None:
    rows = [row for task in FILES for row in of_taught[0].samples[task]]
    right = sum(row["exact_match"] for row in rows)
    assert 20 <= right <= len(rows) - 20
    assert sum(row["filtered_resps"] == ["[invalid]"] for row in rows) >= 10
    own = of_taught[1].own
    truncated = [own[task]["truncated_share"] for task in FILES]
    assert 0 < sum(truncated) < 2
    assert all(
        texts(of_taught[0].samples[task])[:FEWER] != texts(of_penalised[0].samples[task]) for task in FILES
    )


def test_generation_settings_of_the_model_are_in_the_results(
    of_penalised: tuple[Found, Found], of_chaotic: tuple[Found, Found]
) -> None:
    for penalised, chaotic in zip(of_penalised[1].own.values(), of_chaotic[1].own.values(), strict=True):
        assert penalised["decoding"]["repetition_penalty"] == PENALTY
        assert penalised["decoding"]["max_new_tokens"] == 256
        assert chaotic["decoding"]["repetition_penalty"] == 1.0
        assert chaotic["decoding"]["max_new_tokens"] == chaotic["length_max"] == LONGER
        assert not any("generation_config" in warning for warning in penalised["warnings"])


def test_chaotic_text_has_what_it_is_meant_to_have(of_chaotic: tuple[Found, Found]) -> None:
    found = [text for task in FILES for text in texts(of_chaotic[0].samples[task])]
    assert sum("\ufffd" in text for text in found) > len(found) / 2
    finished = [1 - own["truncated_share"] for own in of_chaotic[1].own.values()]
    assert 0 < sum(finished) < len(FILES)


def test_responses_do_not_depend_on_the_batch(
    scratch: Path, data: Path, taught: Path, of_taught: tuple[Found, Found]
) -> None:
    together = by_the_lab(scratch, taught, data, list(FILES), LIMIT, 16)
    for task in FILES:
        alone, batched = (texts(found.samples[task]) for found in (of_taught[1], together))
        different = sum(a != b for a, b in zip(alone, batched, strict=True))
        # Sums over padded rows may round otherwise on another processor, and two tokens may be as good as tied.
        assert different <= LIMIT // 100, task


def hostile_responses(rng: random.Random, number: int) -> list[str]:
    """Texts of the pieces that extraction and normalisation look at."""
    pieces = [
        *(
            "#### ",
            "####",
            "The answer is ",
            "the answer is",
            "A: ",
            "\n",
            " ",
            ".",
            ",",
            "$",
            "-",
            "--",
            "\\$",
        ),
        *(
            "18",
            "8",
            "1,234",
            "0",
            "00",
            "3.5",
            "½",
            "١٨",
            "\ufffd",
            "\r\n",
            "\u2028",
            "X",
            "ſ",
            "İ",
            "%",
            "[invalid]",
        ),
    ]
    return ["".join(rng.choices(pieces, k=rng.randint(0, 9))) for _ in range(number)]


def test_verdicts_on_hostile_text_are_the_harness_s(scratch: Path, tasks: Path) -> None:
    rng = random.Random(0)
    asked: list[tuple[str, dict[str, Any], str]] = []
    for task in FILES:
        for response in hostile_responses(rng, 3000):
            answer = rng.choice(["18", "8", "1,234", "-5", "0", "3.5"])
            row = {"question": "How many?", "answer": f"Because.\n#### {answer}"}
            asked.append((task, row, response))
    lines = [json.dumps({"task": task, "doc": row, "response": response}) for task, row, response in asked]
    script = str(Path(__file__).with_name("lm_eval_verdicts.py"))
    verdicts = in_the_harness(scratch, script, str(tasks), stdin="\n".join(lines)).splitlines()
    right = 0
    for (task, row, response), line in zip(asked, verdicts, strict=True):
        score = TASKS[task].score([response], [Question(row["question"], "", row)])[0]
        found = {metric: [one.extracted, float(one.correct)] for metric, one in score.items()}
        assert found == json.loads(line), (task, response)
        right += sum(one.correct for one in score.values())
    assert right > 300


def test_samples_of_the_harness_get_its_verdict_again(pair: tuple[Found, Found]) -> None:
    for task, rows in pair[0].samples.items():
        for row in rows:
            asked = Question(row["doc"]["question"], "", row["doc"])
            score = TASKS[task].score(row["resps"][0], [asked])[0][row["filter"]]
            assert [score.extracted] == row["filtered_resps"]
            assert float(score.correct) == row["exact_match"]
