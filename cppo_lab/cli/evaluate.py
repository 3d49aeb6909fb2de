"""`eval`: accuracy of a model on a task's test problems."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from cppo_lab.cli.console import console, print_json
from cppo_lab.errors import UserError, one_of
from cppo_lab.evaluation import Evaluation, Graded, evaluate
from cppo_lab.experiment import check_device, writable
from cppo_lab.paths import output_root
from cppo_lab.policies.loading import Policy, load_policy
from cppo_lab.quiet import quiet_libraries
from cppo_lab.rollouts.native import NativeEngine
from cppo_lab.runs.folder import write_atomically
from cppo_lab.runs.identity import digest, file_sha256, resolved_device
from cppo_lab.runs.provenance import git_state, versions
from cppo_lab.tasks.chain import ChainTask
from cppo_lab.tasks.gsm8k import HUB_ID, HUB_REVISION, Gsm8kTask, load_problems
from cppo_lab.tasks.problem import Problem, Task

_TASKS = ("chain", "gsm8k")
_CHAIN_PROBLEMS = 1024
_CHAIN_STEPS = 4


@dataclass(frozen=True)
class EvaluationRequest:
    """What `cppo-lab eval` was asked."""

    task: str
    model: str
    data: str | None
    revision: str | None
    limit: int | None
    greedy: bool
    max_new_tokens: int
    batch_size: int
    steps: int | None
    device: str


def _problems(request: EvaluationRequest) -> tuple[Task, Sequence[Problem]]:
    if request.task not in _TASKS:
        raise one_of("task", request.task, _TASKS)
    if request.task == "chain":
        if request.data is not None:
            raise UserError(
                f"--data {request.data}: the chain task makes its own problems; only gsm8k reads a file."
            )
        task: Task = ChainTask(steps=request.steps or _CHAIN_STEPS, heldout=_CHAIN_PROBLEMS)
        return task, task.heldout_problems()[: request.limit]
    if request.steps is not None:
        raise UserError(f"--steps {request.steps}: only the chain task has a number of steps.")
    task = Gsm8kTask(path=None, heldout_path=request.data, heldout=1)
    return task, load_problems(request.data, "test")[: request.limit]


def evaluate_model(request: EvaluationRequest, output: Path | None, as_json: bool) -> None:
    """Evaluate, print the result and write it with the graded responses."""
    if request.device not in ("auto", "cpu", "cuda"):
        raise one_of("--device", request.device, ("auto", "cpu", "cuda"))
    check_device("--device", request.device)
    root = output or output_root()
    task, problems = _problems(request)
    writable(root)
    quiet_libraries()
    policy = load_policy(request.model, revision=request.revision, device=resolved_device(request.device))
    evaluation = Evaluation(_graded(request, policy, task, problems, as_json))
    result = _result(request, evaluation)
    folder = root / "evals" / f"{request.task}-{_slug(request.model)}-{digest(asdict(request))}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        json.dumps(_row(number, graded), ensure_ascii=False)
        for number, graded in enumerate(evaluation.graded)
    ]
    write_atomically(folder / "problems.jsonl", "\n".join(rows) + "\n")
    write_atomically(folder / "results.json", json.dumps(result, indent=2) + "\n")
    if as_json:
        print_json(result | {"folder": str(folder)})
        return
    low, high = result["accuracy_wilson_95"]
    console().print(
        f"{request.task}: {result['correct']} of {result['n']} correct, accuracy {100 * result['accuracy']:.1f}% "
        f"(95% Wilson interval {100 * low:.1f} to {100 * high:.1f}%); no answer found in "
        f"{100 * result['unparsed_share']:.1f}%, cut at the length limit {100 * result['truncated_share']:.1f}%."
    )
    console().print(f"Results and graded responses: {folder}")


def _graded(
    request: EvaluationRequest, policy: Policy, task: Task, problems: Sequence[Problem], as_json: bool
) -> list[Graded]:
    engine = NativeEngine(policy.network, pad_token=policy.pad_token, eos_token=policy.eos_token)
    # Problems of like length together: less padding. The order of the result is that of the data.
    order = sorted(range(len(problems)), key=lambda i: len(problems[i].prompt))
    batches = [order[i : i + request.batch_size] for i in range(0, len(order), request.batch_size)]
    found: dict[int, Graded] = {}
    quiet = as_json or not console().is_terminal
    for batch in batches if quiet else track(batches, f"{request.task}", console=console()):
        evaluation = evaluate(
            engine,
            policy,
            task,
            [problems[i] for i in batch],
            max_new_tokens=request.max_new_tokens,
            greedy=request.greedy,
            numbers=batch,
            context=getattr(policy.network.config, "max_position_embeddings", None),
        )
        found.update(zip(batch, evaluation.graded, strict=True))
    return [found[i] for i in range(len(problems))]


def _row(number: int, graded: Graded) -> dict[str, Any]:
    return {
        "id": number,
        "prompt": graded.problem.prompt,
        "completion": graded.completion,
        "answer": graded.problem.answer,
        "parsed": graded.verdict.parsed,
        "correct": graded.verdict.correct,
        "length": graded.length,
        "finish": "stop" if graded.finished else "length",
    }


def wilson(correct: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a share: `correct` of `n`, at the level of `z` standard deviations."""
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def _result(request: EvaluationRequest, evaluation: Evaluation) -> dict[str, Any]:
    n = len(evaluation.graded)
    correct = sum(graded.verdict.correct for graded in evaluation.graded)
    metrics = {key.rpartition("/")[2]: value for key, value in evaluation.metrics(request.task).items()}
    if request.task == "chain":
        data: dict[str, Any] = {"steps": request.steps or _CHAIN_STEPS}
    elif request.data:
        data = {"path": request.data, "sha256": file_sha256(Path(request.data))}
    else:
        data = {"hub_id": HUB_ID, "revision": HUB_REVISION}
    return {
        "task": request.task,
        "model": request.model,
        "revision": request.revision,
        "n": n,
        "correct": correct,
        **metrics,
        "accuracy_wilson_95": wilson(correct, n),
        "decoding": "greedy" if request.greedy else "sampled at temperature 1",
        "max_new_tokens": request.max_new_tokens,
        "data": data,
        "versions": versions(),
        "git": git_state(),
    }


def _slug(model: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model.rstrip("/")).strip("-.")[-60:]
