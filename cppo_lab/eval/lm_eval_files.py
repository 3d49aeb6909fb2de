"""Results in the files and keys of lm-evaluation-harness, for tools that read those."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cppo_lab.eval.lm_eval import LmEvalGsm8k
from cppo_lab.eval.results import Scored
from cppo_lab.eval.statistics import mean_stderr


def sha256(text: str) -> str:
    """The hash of a text, as in the harness. A lone surrogate, which cannot be encoded, is escaped."""
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def doc_hash(row: Mapping[str, Any]) -> str:
    """The hash of a row of the data set, as in the harness."""
    return sha256(json.dumps(dict(row), indent=2, default=str, ensure_ascii=False))


def sample_rows(
    scored: Scored, protocol: LmEvalGsm8k | None, generation: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The rows of `samples_TASK.jsonl`, one per filter and problem, filter by filter."""
    rows = []
    for metric in scored.metrics:
        for number, question in enumerate(scored.questions):
            prompt = scored.prompts[number].text
            target = question.answer if protocol is None else protocol.reference(question)
            scores = [score[metric] for score in scored.scores[number]]
            rows.append(
                {
                    "doc_id": number,
                    "doc": dict(question.row),
                    "target": target,
                    "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": dict(generation)}},
                    "resps": [[response.text for response in scored.responses[number]]],
                    "filtered_resps": [score.extracted or "" for score in scores],
                    "filter": metric,
                    "metrics": ["exact_match"],
                    "doc_hash": doc_hash(question.row),
                    "prompt_hash": sha256(prompt),
                    "target_hash": sha256(target),
                    "exact_match": sum(score.correct for score in scores) / len(scores),
                }
            )
    return rows


def task_hash(rows: Sequence[Mapping[str, Any]]) -> str:
    """The hash of all documents, prompts and targets, as in the harness."""
    return sha256("".join(row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in rows))


def results_file(
    task: str,
    scored: Scored,
    protocol: LmEvalGsm8k | None,
    rows: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """The harness's `results.json`; `about` holds its keys about model, decoding and environment."""
    n = len(scored.questions)
    metrics: dict[str, Any] = {"name": task, "alias": task, "sample_len": n}
    for metric in scored.metrics:
        means = scored.correct(metric).mean(axis=1)
        metrics[f"exact_match,{metric}"] = float(means.mean())
        metrics[f"exact_match_stderr,{metric}"] = mean_stderr(means)
    return {
        "results": {task: metrics},
        "group_subtasks": {},
        "configs": {task: {"task": task, "num_fewshot": 0 if protocol is None else protocol.count}},
        "versions": {task: 3.0 if protocol is not None else "native"},
        "n-shot": {task: 0 if protocol is None else protocol.count},
        "higher_is_better": {task: {"exact_match": True}},
        "n-samples": {task: {"original": about["problems_in_file"], "effective": n}},
        "config": about["config"],
        "git_hash": about["git_hash"],
        "transformers_version": about["transformers_version"],
        "task_hashes": {task: task_hash(rows)},
        "model_source": about["config"]["model"],
        "model_name": about["model_name"],
        "chat_template_sha": about["chat_template_sha"],
        "fewshot_as_multiturn": None,
    }
