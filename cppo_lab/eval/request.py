"""The options of `cppo-lab eval`, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cppo_lab.errors import UserError, one_of
from cppo_lab.eval.lm_eval import LmEvalGsm8k, lm_eval_protocol
from cppo_lab.models.folders import check_model_folder, is_local
from cppo_lab.rollouts.engine_config import engines
from cppo_lab.tasks.benchmarks import BENCHMARKS, CUSTOM, Benchmark, Question, benchmark, load_questions
from cppo_lab.tasks.chain import ChainTask
from cppo_lab.tracking.find_run import find_run
from cppo_lab.tracking.run_folder import RunFolder

CHAIN = "chain"
TASKS = (CHAIN, *BENCHMARKS)
SERVER = "openai"
"""The engine that is a server with the OpenAI completions API; the others are the registered rollout engines."""
CHECKPOINTS = ("last", "best")
PAPER_TEMPERATURE, PAPER_TOP_P = 0.7, 0.95
_CHAIN_PROBLEMS = 1024
_CHAIN_STEPS = 4


@dataclass(frozen=True)
class EvaluationRequest:
    """The options of `cppo-lab eval`; None where one was not given."""

    task: str
    model: str | None = None
    run: str | None = None
    checkpoint: str = "last"
    protocol: str = "native"
    data: str | None = None
    fewshot_data: str | None = None
    question_column: str | None = None
    answer_column: str | None = None
    revision: str | None = None
    limit: int | None = None
    samples: int = 1
    temperature: float | None = None
    top_p: float | None = None
    max_new_tokens: int | None = None
    batch_size: int = 64
    steps: int | None = None
    seed: int = 0
    engine: str = "native"
    base_url: str | None = None
    tokenizer: str | None = None
    chat: bool | None = None
    dtype: str = "float32"
    device: str = "auto"

    @property
    def lm_eval(self) -> LmEvalGsm8k | None:
        """The protocol of lm-evaluation-harness, or None for the lab's own. Raises UserError if unknown."""
        return None if self.protocol == "native" else lm_eval_protocol(self.protocol)

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark with its columns. Raises UserError if the task is not one."""
        return benchmark(self.task, self.question_column, self.answer_column)

    @property
    def used_temperature(self) -> float:
        """`temperature` if given, else 0 (greedy) for one sample and the paper's 0.7 for several."""
        if self.temperature is not None:
            return self.temperature
        return 0.0 if self.samples == 1 else PAPER_TEMPERATURE

    @property
    def used_top_p(self) -> float:
        """1 when greedy, else `top_p` if given, else the paper's 0.95."""
        if self.used_temperature == 0:
            return 1.0
        return PAPER_TOP_P if self.top_p is None else self.top_p

    def check(self) -> None:
        """Raise UserError for options that are invalid or do not go together."""
        for key, value, known in (
            ("task", self.task, TASKS),
            ("--engine", self.engine, (*engines, SERVER)),
            ("--checkpoint", self.checkpoint, CHECKPOINTS),
            ("--dtype", self.dtype, ("float32", "bfloat16")),
            ("--device", self.device, ("auto", "cpu", "cuda")),
        ):
            if value not in known:
                raise one_of(key, value, known)
        self._check_model()
        self._check_decoding()
        self._check_task()

    def _check_model(self) -> None:
        if (self.model is None) == (self.run is None):
            raise UserError("--model, --run: give exactly one of them.")
        if self.engine == SERVER:
            if self.base_url is None:
                raise UserError(
                    "--base-url: required by --engine openai; for example http://localhost:8000/v1."
                )
            if self.run is not None:
                raise UserError(
                    f"--run {self.run}: not with --engine openai; give the name of the served model by --model."
                )
        for key, value in (("--base-url", self.base_url), ("--tokenizer", self.tokenizer)):
            if value is not None and self.engine != SERVER:
                raise UserError(f"{key} {value}: only applies to --engine openai.")
        for key, value, usual in (("--dtype", self.dtype, "float32"), ("--device", self.device, "auto")):
            if value != usual and self.engine == SERVER:
                raise UserError(f"{key} {value}: does not apply to --engine openai; the server decides.")
        if self.engine != SERVER:
            engines[self.engine].check_installed(f"--engine {self.engine}")
        if self.run is None and self.checkpoint != "last":
            raise UserError(f"--checkpoint {self.checkpoint}: only applies to --run.")
        is_hub = self.engine != SERVER and self.model is not None and not is_local(self.model)
        if self.revision is not None and not is_hub:
            raise UserError(f"--revision {self.revision}: only applies to a model of the hub.")

    def _check_decoding(self) -> None:
        if self.temperature is not None and self.temperature < 0:
            raise UserError(f"--temperature {self.temperature}: must be 0 (greedy) or above.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"--top-p {self.top_p}: must be above 0 and at most 1.")
        if self.top_p is not None and self.used_temperature == 0:
            raise UserError(
                f"--top-p {self.top_p}: has no effect on greedy decoding; give a --temperature above 0."
            )
        if self.samples > 1 and self.used_temperature == 0:
            raise UserError(
                f"--samples {self.samples}: greedy samples are all the same; give a --temperature above 0."
            )
        protocol = self.lm_eval
        if protocol is not None and (self.samples > 1 or self.used_temperature > 0):
            raise UserError(
                f"protocol={protocol.name}: is greedy with one sample; to sample, use --protocol native."
            )

    def _check_task(self) -> None:
        protocol = self.lm_eval
        if protocol is not None and self.task != "gsm8k":
            raise UserError(f"protocol={protocol.name}: for the task gsm8k, not for {self.task}.")
        if protocol is not None and (self.question_column or self.answer_column):
            raise UserError(f"protocol={protocol.name}: reads GSM8K's columns; leave the column options out.")
        if protocol is not None and self.chat:
            raise UserError(
                f"protocol={protocol.name}: without a chat template; to use one, --protocol native --chat."
            )
        if self.fewshot_data is not None and (protocol is None or not protocol.needs_pool):
            raise UserError(
                f"--fewshot-data {self.fewshot_data}: only applies to the protocol lm-eval:gsm8k."
            )
        if self.task == CHAIN:
            if self.data is not None:
                raise UserError(f"--data {self.data}: the chain task makes its own problems.")
            if self.question_column or self.answer_column:
                raise UserError("--question-column, --answer-column: the chain task makes its own problems.")
            if self.chat:
                raise UserError("--chat: the chain task has no chat prompts.")
        elif self.steps is not None:
            raise UserError(f"--steps {self.steps}: only applies to the chain task.")
        if self.task == CUSTOM and self.data is None:
            raise UserError("task=custom: needs problems; give --data FILE.")
        for file in filter(None, (self.data, self.fewshot_data)):
            if not Path(file).is_file():
                raise UserError(f"{file}: no such data file.")

    def questions(self) -> list[Question]:
        """All problems, in order, before `limit`."""
        if self.task != CHAIN:
            return load_questions(self.benchmark, self.data)
        task = ChainTask(steps=self.steps or _CHAIN_STEPS, heldout=_CHAIN_PROBLEMS)
        return [
            Question(problem.prompt, problem.answer, {"question": problem.prompt, "answer": problem.answer})
            for problem in task.heldout_problems()
        ]

    def pool(self) -> list[Question]:
        """The problems that few-shot examples are drawn from; empty if the protocol draws none."""
        protocol = self.lm_eval
        if protocol is None or not protocol.needs_pool:
            return []
        return load_questions(self.benchmark, self.fewshot_data, split="train")

    def data_source(self) -> dict[str, Any]:
        """The source of the problems: a file with its hash, a pinned revision, or the lab's own generator."""
        from cppo_lab.files import file_sha256

        if self.task == CHAIN:
            return {"generator": "chain", "steps": self.steps or _CHAIN_STEPS}
        found: dict[str, Any]
        if self.data:
            found = {"path": self.data, "sha256": file_sha256(Path(self.data))}
        else:
            source = self.benchmark
            found = {"hub_id": source.hub_id, "revision": source.revision, "split": source.split}
        if self.fewshot_data:
            found["fewshot"] = {"path": self.fewshot_data, "sha256": file_sha256(Path(self.fewshot_data))}
        return found


def checkpoint_of(folder: RunFolder, which: str) -> Path:
    """The `last` or `best` checkpoint of a run. Raises UserError if it has none."""
    found = folder.checkpoints("best_step_" if which == "best" else "step_")
    if not found:
        raise UserError(f"--run {folder.path.name}: has no {which} checkpoint yet.")
    return found[-1][1]


def resolved(request: EvaluationRequest, root: Path) -> EvaluationRequest:
    """The request with the checkpoint of `run` as its model, and on the chain task with the run's difficulty."""
    if request.run is None:
        if request.engine != SERVER and request.model is not None and is_local(request.model):
            check_model_folder(request.model)
        return request
    import yaml

    folder = find_run(root, request.run)
    path = str(checkpoint_of(folder, request.checkpoint))
    config = yaml.safe_load((folder.path / "config.yaml").read_text(encoding="utf-8"))
    steps = request.steps
    if request.task == CHAIN and steps is None:
        steps = config["task"].get("steps")
    return replace(request, model=path, steps=steps)


def model_identity(request: EvaluationRequest) -> dict[str, Any]:
    """What identifies the model: the bytes of a local folder, hub id and revision, or its name on a server."""
    from cppo_lab.config.identity import folder_hashes

    assert request.model is not None
    if request.engine == SERVER:
        return {"name": request.model, "base_url": request.base_url}
    if Path(request.model).is_dir():
        return {"files": folder_hashes(Path(request.model))}
    return {"hub_id": request.model, "revision": request.revision}


def questions_hash(questions: Sequence[Question]) -> str:
    """The hash of the problems and their answers: evaluations with equal hashes are comparable."""
    from cppo_lab.config.identity import digest

    return digest([[question.question, question.answer] for question in questions])
