"""Results in lm-evaluation-harness's files: its keys, its hashes, its order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from text_models import byte_tokenizer, random_policy

from cppo_lab.eval.lm_eval_files import doc_hash, sha256, task_hash
from cppo_lab.training.checkpoint import save_checkpoint

Invoke = Callable[..., tuple[int, str, str]]
Rows = list[dict[str, Any]]

# lm_eval 0.4.13, lm_eval/result_schema.py.
RESULT_KEYS = {
    *(
        "results",
        "groups",
        "group_subtasks",
        "configs",
        "versions",
        "n-shot",
        "higher_is_better",
        "n-samples",
    ),
    *("samples", "config", "git_hash", "date", "pretty_env_info", "transformers_version", "lm_eval_version"),
    *("upper_git_hash", "tokenizer_pad_token", "tokenizer_eos_token", "tokenizer_bos_token", "eot_token_id"),
    *("max_length", "model_source", "model_name", "model_name_sanitized", "system_instruction"),
    *("system_instruction_sha", "fewshot_as_multiturn", "chat_template", "chat_template_sha", "task_hashes"),
    "total_evaluation_time_seconds",
}
WANTED_KEYS = {
    *(
        "results",
        "group_subtasks",
        "configs",
        "versions",
        "n-shot",
        "higher_is_better",
        "n-samples",
        "config",
    ),
    *("git_hash", "transformers_version", "task_hashes", "model_source", "model_name"),
}
CONFIG_KEYS = {
    *(
        "model",
        "model_args",
        "model_num_parameters",
        "model_dtype",
        "model_revision",
        "model_sha",
        "batch_size",
    ),
    *("batch_sizes", "device", "use_cache", "limit", "bootstrap_iters", "gen_kwargs", "random_seed"),
    *("numpy_seed", "torch_seed", "fewshot_seed"),
}
SAMPLE_KEYS = [
    *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash"),
    *("prompt_hash", "target_hash", "exact_match"),
]
PROBLEMS = [
    {"question": f"Ann has {i} apples and finds 2 – how many?", "answer": f"{i} + 2\n#### {i + 2}"}
    for i in range(9)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "random"
    save_checkpoint(folder, random_policy(byte_tokenizer(), gain=4.0))
    return folder


@pytest.fixture
def evaluate(model: Path, tmp_path: Path, invoke: Invoke) -> Callable[..., tuple[dict[str, Any], Rows]]:
    """The two files of evaluating the first seven problems."""
    data = tmp_path / "problems.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in PROBLEMS))

    def run(protocol: str, *options: str) -> tuple[dict[str, Any], Rows]:
        shots = ["--fewshot-data", str(data)] if protocol.startswith("lm-eval:gsm8k@") else []
        code, out, err = invoke(
            *("eval", "gsm8k", "--model", str(model), "-p", protocol, "--data", str(data), *shots, "--json"),
            *("--limit", "7", "--no-track", "-o", str(tmp_path / "o"), "--max-new-tokens", "12", *options),
        )
        assert code == 0, err
        files = Path(json.loads(out)["folder"]) / "lm-eval"
        lines = next(files.glob("samples_*.jsonl")).read_text().splitlines()
        return json.loads((files / "results.json").read_text()), [json.loads(line) for line in lines]

    return run


@pytest.mark.parametrize("task", ["gsm8k", "gsm8k_cot", "gsm8k_cot_zeroshot"])
def test_files_have_the_harness_s_keys_and_count_as_it_does(
    evaluate: Callable[..., tuple[dict[str, Any], Rows]], task: str
) -> None:
    results, rows = evaluate(f"lm-eval:{task}@3.0")
    assert WANTED_KEYS <= results.keys() <= RESULT_KEYS
    assert results["config"].keys() <= CONFIG_KEYS
    metrics = results["results"][task]
    filters = ("strict-match", "flexible-extract")
    scores = {f"{name},{way}" for name in ("exact_match", "exact_match_stderr") for way in filters}
    assert metrics.keys() == {"name", "alias", "sample_len", *scores}
    assert results["n-samples"] == {task: {"original": 9, "effective": 7}}
    assert results["versions"] == {task: 3.0}
    assert results["n-shot"] == {task: {"gsm8k": 5, "gsm8k_cot": 8, "gsm8k_cot_zeroshot": 0}[task]}
    assert results["higher_is_better"] == {task: {"exact_match": True}}
    assert [(row["filter"], row["doc_id"]) for row in rows] == [(way, i) for way in filters for i in range(7)]
    for way in filters:
        right = [row["exact_match"] for row in rows if row["filter"] == way]
        assert metrics[f"exact_match,{way}"] == sum(right) / 7
    assert results["task_hashes"] == {task: task_hash(rows)}


def test_rows_say_what_was_asked_and_how(evaluate: Callable[..., tuple[dict[str, Any], Rows]]) -> None:
    _, rows = evaluate("lm-eval:gsm8k_cot_zeroshot@3.0")
    for row in rows:
        assert list(row) == SAMPLE_KEYS
        problem = PROBLEMS[row["doc_id"]]
        assert row["doc"] == problem
        prompt, generation = row["arguments"]["gen_args_0"].values()
        assert prompt == f"Q: {problem['question']}\nA: Let's think step by step."
        assert generation == {"until": ["Q:", "</s>", "<|im_end|>"], "do_sample": False, "max_gen_toks": 12}
        assert row["prompt_hash"] == hashlib.sha256(prompt.encode()).hexdigest()
        assert row["target_hash"] == hashlib.sha256(problem["answer"].encode()).hexdigest()
        assert row["metrics"] == ["exact_match"]
        assert len(row["resps"]) == len(row["resps"][0]) == len(row["filtered_resps"]) == 1


def test_the_native_protocol_writes_the_same_shape(
    evaluate: Callable[..., tuple[dict[str, Any], Rows]],
) -> None:
    results, rows = evaluate("native")
    assert WANTED_KEYS <= results.keys() <= RESULT_KEYS
    assert [list(row) for row in rows] == [SAMPLE_KEYS] * 7
    assert rows[0]["arguments"]["gen_args_0"]["arg_1"] == {
        "until": [],
        "do_sample": False,
        "temperature": 0.0,
        "max_gen_toks": 12,
    }


def test_hashes_are_the_harness_s(shared_data: Path) -> None:
    row = json.loads((shared_data / "gsm8k" / "test.jsonl").read_text().splitlines()[0])
    assert doc_hash(row) == "986c19252f3c7f6eaeff2229e9a5777f96a85c0ceea931a92d2289084dfd518c"
    assert sha256("é") == hashlib.sha256("é".encode()).hexdigest()
    assert sha256("\ud800") == sha256("\\ud800"), "a lone surrogate has no bytes"
    rows = [{"doc_hash": "a", "prompt_hash": "b", "target_hash": "c"}] * 2
    assert task_hash(rows) == sha256("abcabc")
