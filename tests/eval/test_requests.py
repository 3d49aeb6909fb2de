"""What `cppo-lab eval` refuses before it loads anything, and what it fills in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cppo_lab.errors import UserError
from cppo_lab.eval.request import EvaluationRequest, checkpoint_of
from cppo_lab.tracking.find_run import find_run

Invoke = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["gsm9k", "--model", "m"], ["task=gsm9k", "Did you mean 'gsm8k'"]),
        (["gsm8k"], ["--model", "--run"]),
        (["gsm8k", "--model", "m", "--run", "r"], ["--model", "--run", "exactly one of them"]),
        (
            ["gsm8k", "--model", "m", "--protocol", "lm-eval:gsm8k@2.0"],
            ["lm-eval:gsm8k@2.0", "lm-eval:gsm8k@3.0"],
        ),
        (["svamp", "--model", "m", "-p", "lm-eval:gsm8k@3.0"], ["lm-eval:gsm8k@3.0", "not for svamp"]),
        (["gsm8k", "--model", "m", "-p", "lm-eval:gsm8k@3.0", "-k", "4"], ["lm-eval:gsm8k@3.0", "greedy"]),
        (["gsm8k", "--model", "m", "-p", "lm-eval:gsm8k@3.0", "--chat"], ["without a chat template"]),
        (["gsm8k", "--model", "m", "--fewshot-data", "x.jsonl"], ["--fewshot-data x.jsonl", "lm-eval:gsm8k"]),
        (["gsm8k", "--model", "m", "-k", "4", "--temperature", "0"], ["--samples 4", "greedy"]),
        (["gsm8k", "--model", "m", "--top-p", "0.9"], ["--top-p 0.9", "greedy"]),
        (["gsm8k", "--model", "m", "--temperature", "1", "--top-p", "0"], ["--top-p 0", "above 0"]),
        (["gsm8k", "--model", "m", "--temperature", "-1"], ["--temperature -1", "0 (greedy) or above"]),
        (["gsm8k", "--model", "m", "--steps", "3"], ["--steps 3", "chain"]),
        (["chain", "--model", "m", "--data", "x.jsonl"], ["--data x.jsonl", "makes its own"]),
        (["chain", "--model", "m", "--answer-column", "a"], ["--answer-column", "makes its own"]),
        (["chain", "--model", "m", "--chat"], ["--chat", "no chat prompts"]),
        (["gsm8k", "--model", "m", "--checkpoint", "best"], ["--checkpoint best", "--run"]),
        (["gsm8k", "--model", "./m", "--revision", "abc"], ["--revision abc", "hub"]),
        (["gsm8k", "--run", "r", "--revision", "abc"], ["--revision abc", "hub"]),
        (
            ["gsm8k", "--model", "m", "--engine", "openai", "--base-url", "http://x", "--dtype", "bfloat16"],
            ["--dtype bfloat16", "server"],
        ),
        (
            ["gsm8k", "--model", "m", "--engine", "openai", "--base-url", "http://x", "--device", "cpu"],
            ["--device cpu", "server"],
        ),
        (["gsm8k", "--model", "m", "--no-track", "--tracking-uri", "x"], ["--tracking-uri x", "--no-track"]),
        (["custom", "--model", "m"], ["--data FILE"]),
        (["gsm8k", "--model", "m", "--prompt", "Hello"], ["--prompt Hello", "{question}"]),
        (["gsm8k", "--model", "m", "--answer-format", "box"], ["--answer-format=box", "boxed, hashes"]),
        (["gsm8k", "--model", "m", "--grader", "exact"], ["--grader=exact", "number, symbolic, text"]),
        (["gsm8k", "--model", "m", "--system", "S", "--no-chat"], ["--system S", "--no-chat"]),
        (
            ["chain", "--model", "m", "--prompt", "{question}"],
            ["--prompt {question}", "prompts and a grader of its own"],
        ),
        (["gsm8k", "--model", "m", "-p", "lm-eval:gsm8k@3.0", "--system", "S"], ["--system S", "prescribes"]),
        (["gsm8k", "--model", "m", "--data", "absent.jsonl"], ["absent.jsonl", "no such data file"]),
        (["gsm8k", "--model", "m", "--engine", "llama"], ["--engine=llama", "native, openai"]),
        (["gsm8k", "--model", "m", "--engine", "openai"], ["--base-url", "http://"]),
        (["gsm8k", "--model", "m", "--base-url", "http://x"], ["--base-url http://x", "--engine openai"]),
        (["gsm8k", "--run", "r", "--checkpoint", "first"], ["--checkpoint=first", "best, last"]),
        (["gsm8k", "--model", "m", "--dtype", "int8"], ["--dtype=int8", "bfloat16, float32"]),
        (["chain", "--run", "absent"], ["--run absent", "no such run"]),
        (["--compare", "a", "b"], ["--compare a", "no such evaluation"]),
        (["gsm8k", "--compare", "a", "b"], ["--compare", "leave out the task, --model and --run"]),
        ([], ["needs a task"]),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(
    invoke: Invoke, tmp_path: Path, options: list[str], named: list[str]
) -> None:
    output = tmp_path / "o"
    code, out, err = invoke("eval", *options, "-o", str(output))
    assert code == 2
    assert not out
    assert all(word in err for word in named), err
    assert "Traceback" not in err
    assert not list(output.glob("evals/*")), "a refused request leaves nothing behind"


def test_decoding_is_greedy_for_one_sample_and_the_paper_s_for_several() -> None:
    one, many = EvaluationRequest("gsm8k", "m"), EvaluationRequest("gsm8k", "m", samples=16)
    assert (one.used_temperature, one.used_top_p) == (0.0, 1.0)
    assert (many.used_temperature, many.used_top_p) == (0.7, 0.95)
    own = EvaluationRequest("gsm8k", "m", temperature=1.0, top_p=1.0)
    assert (own.used_temperature, own.used_top_p) == (1.0, 1.0)


def make_run(output: Path, name: str, *checkpoints: str) -> Path:
    folder = output / "runs" / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}", encoding="utf-8")
    for checkpoint in checkpoints:
        (folder / "checkpoints" / checkpoint).mkdir(parents=True)
    return folder


def test_runs_are_found_by_path_name_and_id(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "cppo-0123456789ab", "step_000004", "step_000012", "best_step_000008")
    make_run(tmp_path, "grpo-ba9876543210")
    for name in (str(folder), "cppo-0123456789ab", "0123456789ab"):
        assert find_run(tmp_path, name).path == folder
    assert checkpoint_of(find_run(tmp_path, str(folder)), "last").name == "step_000012"
    assert checkpoint_of(find_run(tmp_path, str(folder)), "best").name == "best_step_000008"
    with pytest.raises(UserError, match="no last checkpoint"):
        checkpoint_of(find_run(tmp_path, "ba9876543210"), "last")
    with pytest.raises(UserError, match="Did you mean 'cppo-0123456789ab'"):
        find_run(tmp_path, "cppo-0123456789aa")
