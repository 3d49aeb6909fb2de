"""A pretrained model is asked the same in training, in held-out evaluation and by `cppo-lab eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from text_models import byte_tokenizer, random_policy

from cppo_lab.config.compose import compose_run
from cppo_lab.config.schema import RunConfig
from cppo_lab.errors import UserError
from cppo_lab.eval.request import EvaluationRequest
from cppo_lab.eval.run import evaluate_request
from cppo_lab.training.asked_model import asked_model
from cppo_lab.training.checkpoint import save_checkpoint
from cppo_lab.training.policy_cache import cache_folder
from cppo_lab.training.run import run
from cppo_lab.training.sample_prompts import sample_prompts
from cppo_lab.training.starting_policy import starting_policy

TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[bot]{% endif %}"
)


def model_folder(folder: Path, template: str | None) -> Path:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    save_checkpoint(folder, random_policy(tokenizer))
    return folder


def data_file(path: Path, count: int) -> Path:
    rows = [{"question": f"{i}?", "answer": f"{i % 3}\n#### {i % 3}"} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def config_of(tmp_path: Path, template: str | None, *overrides: str) -> RunConfig:
    model = tmp_path / "model"
    if not model.exists():
        model_folder(model, template)
    return compose_run(
        [
            *("task=gsm8k", f"task.path='{data_file(tmp_path / 'train.jsonl', 60)}'", "task.heldout=24"),
            *(
                "task.max_response_tokens=16",
                "model=pretrained",
                f"model.path='{model}'",
                "model.dtype=float32",
            ),
            *("trainer.steps=1", "trainer.prompts_per_step=4", "trainer.group_size=4", "trainer.epochs=1"),
            *("tracking=none", f"paths.output='{tmp_path / 'out'}'", "trainer.device=cpu"),
            *overrides,
        ]
    )


@pytest.mark.parametrize("template", [TEMPLATE, None], ids=["instruct", "base"])
def test_eval_gives_a_run_s_own_held_out_accuracy(tmp_path: Path, template: str | None) -> None:
    cold_start = ("warmup=cold_start", "warmup.steps=40", "warmup.max_steps=40", "warmup.lr=3e-3")
    folder = run(config_of(tmp_path, template, *cold_start))
    asked = folder.info["asked"]
    assert asked["is_chat"] is (template is not None)
    final = folder.rows("metrics.jsonl")[-1]
    assert 0.1 < final["eval/heldout/accuracy"] < 0.9, "neither nothing nor everything is learnt"
    # The last problems of the training file are held out.
    held_out = tmp_path / "held_out.jsonl"
    lines = (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    held_out.write_text("".join(lines[-24:]), encoding="utf-8")
    request: dict[str, Any] = {"task": "gsm8k", "data": str(held_out), "temperature": 1.0, "top_p": 1.0}
    by_run = evaluate_request(EvaluationRequest(run=folder.path.name, **request), tmp_path / "out")
    checkpoint = str(folder.checkpoints()[-1][1])
    by_path = evaluate_request(EvaluationRequest(model=checkpoint, **request), tmp_path / "out")
    for found in (by_run, by_path):
        assert found.results["accuracy"] == final["eval/heldout/accuracy"]
        assert found.results["length_mean"] == final["eval/heldout/length_mean"]
    prompts = [row["prompt"] for row in found.folder.rows("problems.jsonl")]
    assert prompts[0].startswith("[user]36?\n" if template else "36?\n")
    assert "\\boxed{}" in prompts[0]
    other = evaluate_request(
        EvaluationRequest(run=folder.path.name, prompt="Q: {question}", **request), tmp_path / "out"
    )
    assert other.folder.path != by_run.folder.path


def test_a_cold_start_is_made_once_and_depends_on_how_the_model_is_asked(tmp_path: Path) -> None:
    steps = ("warmup=cold_start", "warmup.steps=2", "warmup.max_steps=2")
    config = config_of(tmp_path, TEMPLATE, *steps)
    task = config.task.asked_of(asked_model(config.model)).build()
    told: list[int] = []
    first = starting_policy(config, task, lambda done, _planned, _loss: told.append(done))
    again = starting_policy(config, task, lambda done, _planned, _loss: told.append(done))
    assert first == again
    assert told == [1, 2]
    assert first.path == str(cache_folder(config))
    as_it_is = config_of(tmp_path, TEMPLATE)
    assert starting_policy(as_it_is, task).path == str(tmp_path / "model")
    plain = config_of(tmp_path, TEMPLATE, *steps, "task.chat=false")
    assert cache_folder(plain) != cache_folder(config)


def test_samples_show_what_the_model_reads_and_how_it_is_graded(tmp_path: Path) -> None:
    found = sample_prompts(
        config_of(tmp_path, TEMPLATE, "task.system=Be brief.", "task.answer_format=hashes")
    )
    assert len(found) == 3
    for each in found:
        assert each.text.startswith("[system]Be brief.[user]")
        assert each.text.endswith("followed by your final answer.[bot]")
        assert "".join(each.tokens) == each.text
        assert each.response.endswith(f"#### {each.answer}")
        assert each.verdict == "correct"


def test_a_run_s_way_of_asking_gives_way_to_options(tmp_path: Path) -> None:
    model = str(model_folder(tmp_path / "model", TEMPLATE))
    asking = EvaluationRequest("gsm8k", model, answer_format="line", chat=False).asking(
        has_chat_template=True
    )
    assert asking is not None
    assert (asking.is_chat, asking.system) == (False, None)
    assert "Answer: " in asking.text("How many?")
    chat = EvaluationRequest("gsm8k", model, system="Be brief.").asking(has_chat_template=True)
    assert chat is not None
    assert (chat.is_chat, chat.system) == (True, "Be brief.")
    with pytest.raises(
        UserError, match=r"--answer-format boxed: has no effect on a prompt without {instruction}"
    ):
        EvaluationRequest("gsm8k", model, prompt="{question}", answer_format="boxed").asking(False)
    assert EvaluationRequest("chain", model).asking(has_chat_template=True) is None


@pytest.mark.testbed
def test_eval_makes_the_problems_of_reasoning_gym_that_a_run_held_out(tmp_path: Path) -> None:
    """By the run, and by name for any other model."""
    family, difficulty = "chain_sum", "{min_terms: 2, max_terms: 2, min_digits: 1, max_digits: 1}"
    folder = run(
        compose_run(
            [
                *("task=reasoning_gym", f"task.family={family}", f"task.difficulty={difficulty}"),
                *(
                    "task.training=40",
                    "task.heldout=24",
                    "task.max_response_tokens=24",
                    "task.answer_format=hashes",
                ),
                *(
                    "model=pretrained",
                    f"model.path='{model_folder(tmp_path / 'model', None)}'",
                    "model.dtype=float32",
                ),
                *("warmup=cold_start", "warmup.steps=40", "warmup.max_steps=40", "warmup.lr=3e-3"),
                *(
                    "trainer.steps=1",
                    "trainer.prompts_per_step=4",
                    "trainer.group_size=4",
                    "trainer.epochs=1",
                ),
                *("tracking=none", f"paths.output='{tmp_path / 'out'}'", "trainer.device=cpu"),
            ]
        )
    )
    final = folder.rows("metrics.jsonl")[-1]
    sampled: dict[str, Any] = {"task": "reasoning_gym", "temperature": 1.0, "top_p": 1.0}
    of_run = evaluate_request(EvaluationRequest(run=folder.path.name, **sampled), tmp_path / "out")
    assert of_run.results["accuracy"] == final["eval/heldout/accuracy"]
    assert of_run.results["length_mean"] == final["eval/heldout/length_mean"]
    named = EvaluationRequest(model=str(tmp_path / "model"), family=family, difficulty=difficulty, **sampled)
    data = evaluate_request(named, tmp_path / "out").results["data"]
    assert (data["family"], data["heldout"], data["difficulty"]["max_terms"]) == (family, 128, 2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, r"task=reasoning_gym: give a --family of problems, or a --run"),
        ({"family": "sudoku"}, r"--family=sudoku.*chain_sum"),
        ({"family": "countdown"}, r"task\.family=countdown: .*running the answer as code"),
        ({"difficulty": "{max_terms: 3}"}, r"--difficulty {max_terms: 3}: is of a family"),
        (
            {"data": __file__, "family": "chain_sum"},
            r"--data .*: the task reasoning_gym makes its own problems",
        ),
        (
            {"task": "gsm8k", "family": "chain_sum"},
            r"--family chain_sum: only applies to the task reasoning_gym",
        ),
    ],
)
def test_problems_that_are_not_those_of_a_family_are_refused(
    options: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    asked = {"task": "reasoning_gym", "model": str(model_folder(tmp_path / "model", None))} | options
    with pytest.raises(UserError, match=sentence):
        evaluate_request(EvaluationRequest(**asked), tmp_path / "out")
