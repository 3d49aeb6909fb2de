"""The options of `cppo-lab eval`, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, cast, get_args

from cppo_lab.errors import UserError, one_of
from cppo_lab.eval.gym import GYM, gym_questions, gym_task
from cppo_lab.eval.lm_eval import LmEvalGsm8k, lm_eval_protocol
from cppo_lab.models.config import Implementation
from cppo_lab.models.folders import check_model_folder, is_local
from cppo_lab.rollouts.engine_config import engines
from cppo_lab.tasks.asking import INSTRUCTION, QUESTION, AnswerForm, Asking, default_asking
from cppo_lab.tasks.benchmarks import BENCHMARKS, CUSTOM, Benchmark, Question, benchmark, load_questions
from cppo_lab.tasks.chain import ChainTask
from cppo_lab.tasks.grading.answers import Comparison
from cppo_lab.tasks.own_reward import OwnReward
from cppo_lab.tasks.reasoning_gym import FAMILIES, ReasoningGymConfig
from cppo_lab.tracking.find_run import find_run
from cppo_lab.tracking.run_folder import RunFolder

CHAIN = "chain"
TASKS = (CHAIN, GYM, *BENCHMARKS)
SERVER = "openai"
"""The engine that is a server with the OpenAI completions API; the others are the registered rollout engines."""
CHECKPOINTS = ("last", "best")
PAPER_TEMPERATURE, PAPER_TOP_P = 0.7, 0.95
_CHAIN_PROBLEMS = 1024
_CHAIN_STEPS = 4


@dataclass(frozen=True)
class TrainedWith:
    """How a run's problems were asked, None where they are prompts already, its response length limit if known, and who
    computed the model.
    """

    asking: Asking | None
    response_limit: int | None
    implementation: Implementation = "transformers"


@dataclass(frozen=True)
class EvaluationRequest:
    """The options of `cppo-lab eval`; None where one was not given.

    `trained` and `gym` are no options: `resolved` fills them in for the checkpoint of a run, and for reasoning-gym.
    """

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
    family: str | None = None
    difficulty: str | None = None
    seed: int = 0
    engine: str = "native"
    base_url: str | None = None
    tokenizer: str | None = None
    chat: bool | None = None
    prompt: str | None = None
    system: str | None = None
    answer_format: str | None = None
    grader: str | None = None
    reward: str | None = None
    reward_function: str = "reward"
    reward_correct: float = 1.0
    trained: TrainedWith | None = None
    gym: Mapping[str, Any] | None = None
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
            ("--answer-format", self.answer_format, get_args(AnswerForm)),
            ("--grader", self.grader, get_args(Comparison)),
        ):
            if value is not None and value not in known:
                raise one_of(key, value, known)
        refusals = chain(
            self._of_the_model(), self._of_decoding(), self._of_the_prompt(), self._of_the_task()
        )
        sentence = next((sentence for is_wrong, sentence in refusals if is_wrong), None)
        if sentence:
            raise UserError(sentence)
        if self.engine != SERVER:
            engines[self.engine].check_installed(f"--engine {self.engine}")

    def _of_the_model(self) -> Iterator[tuple[Any, str]]:
        is_served = self.engine == SERVER
        yield (self.model is None) == (self.run is None), "--model, --run: give exactly one of them."
        needed = "required by --engine openai; for example http://localhost:8000/v1."
        yield is_served and self.base_url is None, f"--base-url: {needed}"
        other = "not with --engine openai; give the name of the served model by --model."
        yield is_served and self.run is not None, f"--run {self.run}: {other}"
        for key, value in (("--base-url", self.base_url), ("--tokenizer", self.tokenizer)):
            yield value is not None and not is_served, f"{key} {value}: only applies to --engine openai."
        for key, value, usual in (("--dtype", self.dtype, "float32"), ("--device", self.device, "auto")):
            other = "does not apply to --engine openai; the server decides."
            yield is_served and value != usual, f"{key} {value}: {other}"
        is_choice = self.checkpoint != "last"
        yield is_choice and self.run is None, f"--checkpoint {self.checkpoint}: only applies to --run."
        is_hub = not is_served and self.model is not None and not is_local(self.model)
        yield (
            self.revision is not None and not is_hub,
            f"--revision {self.revision}: only applies to a model of the hub.",
        )

    def _of_decoding(self) -> Iterator[tuple[Any, str]]:
        temperature, top_p, is_greedy = self.temperature, self.top_p, self.used_temperature == 0
        yield (
            temperature is not None and temperature < 0,
            f"--temperature {temperature}: must be 0 (greedy) or above.",
        )
        yield top_p is not None and not 0 < top_p <= 1, f"--top-p {top_p}: must be above 0 and at most 1."
        sampled = "give a --temperature above 0."
        yield top_p and is_greedy, f"--top-p {top_p}: has no effect on greedy decoding; {sampled}"
        yield (
            self.samples > 1 and is_greedy,
            f"--samples {self.samples}: greedy samples are all the same; {sampled}",
        )
        is_prescribed = self.lm_eval is not None and (self.samples > 1 or not is_greedy)
        yield (
            is_prescribed,
            f"protocol={self.protocol}: is greedy with one sample; to sample, use --protocol native.",
        )

    def _of_the_prompt(self) -> Iterator[tuple[Any, str]]:
        harness, is_chain = self.lm_eval, self.task == CHAIN
        for key, value in (
            ("--prompt", self.prompt),
            ("--system", self.system),
            ("--answer-format", self.answer_format),
            ("--grader", self.grader),
            ("--reward", self.reward),
        ):
            fixed = "the protocol prescribes prompts and grading; leave it out, or use --protocol native."
            yield harness and value is not None, f"{key} {value}: {fixed}"
            own = "the chain task has prompts and a grader of its own."
            yield is_chain and value is not None, f"{key} {value}: {own}"
        yield (
            self.reward_function != "reward" and self.reward is None,
            f"--reward-function {self.reward_function}: needs its file; give --reward FILE.",
        )
        yield (
            self.grader is not None and self.reward is not None,
            f"--grader {self.grader}: has no effect beside --reward {self.reward}.",
        )
        yield (
            self.prompt is not None and QUESTION not in self.prompt,
            f"--prompt {self.prompt}: must contain {QUESTION}.",
        )
        yield (
            self.system is not None and self.chat is False,
            f"--system {self.system}: only applies to chat prompts; leave out --no-chat.",
        )

    def _of_the_task(self) -> Iterator[tuple[Any, str]]:
        harness, columns = self.lm_eval, self.question_column or self.answer_column
        key = f"protocol={self.protocol}"
        yield harness and self.task != "gsm8k", f"{key}: for the task gsm8k, not for {self.task}."
        yield harness and columns, f"{key}: reads GSM8K's columns; leave the column options out."
        yield harness and self.chat, f"{key}: without a chat template; to use one, --protocol native --chat."
        draws = harness is not None and harness.needs_pool
        only = "only applies to the protocol lm-eval:gsm8k."
        yield self.fewshot_data is not None and not draws, f"--fewshot-data {self.fewshot_data}: {only}"
        is_chain, is_gym = self.task == CHAIN, self.task == GYM
        own = f"the task {self.task} makes its own problems."
        yield (is_chain or is_gym) and self.data is not None, f"--data {self.data}: {own}"
        yield (is_chain or is_gym) and columns, f"--question-column, --answer-column: {own}"
        for key, given in (("--family", self.family), ("--difficulty", self.difficulty)):
            yield given is not None and not is_gym, f"{key} {given}: only applies to the task {GYM}."
        yield is_chain and self.chat, "--chat: the chain task has no chat prompts."
        yield self.steps and not is_chain, f"--steps {self.steps}: only applies to the chain task."
        yield self.task == CUSTOM and not self.data, "task=custom: needs problems; give --data FILE."
        for key, file in (("--data", self.data), ("--fewshot-data", self.fewshot_data)):
            yield file is not None and not Path(file).is_file(), f"{key} {file}: no such data file."

    def questions(self) -> list[Question]:
        """All problems, in order, before `limit`."""
        if self.gym is not None:
            return gym_questions(ReasoningGymConfig.model_validate(self.gym))
        if self.task != CHAIN:
            return load_questions(replace(self.benchmark, comparison=self.comparison), self.data)
        task = ChainTask(steps=self.steps or _CHAIN_STEPS, heldout=_CHAIN_PROBLEMS)
        return [
            Question(problem.prompt, problem.answer, {"question": problem.prompt, "answer": problem.answer})
            for problem in task.heldout_problems()
        ]

    @property
    def comparison(self) -> Comparison:
        """How answers are compared: as `grader` says, else as the benchmark does."""
        if self.task == CHAIN:
            return "number"
        if self.grader is not None:
            return cast(Comparison, self.grader)
        return self.benchmark.comparison if self.gym is None else FAMILIES[self.gym["family"]]

    @property
    def own_reward(self) -> OwnReward | None:
        """The reward function that takes the grader's place, if there is one."""
        if self.reward is None:
            return None
        return OwnReward(self.reward, self.reward_function, self.reward_correct)

    def asking(self, has_chat_template: bool) -> Asking | None:
        """How a model is asked: as the options say, else as its run was, else as in training by default.

        None where problems are prompts already. Raises UserError where the model has no chat template for a chat
        prompt that is asked for.
        """
        if self.task == CHAIN:
            return None
        if self.chat and not has_chat_template:
            raise UserError("--chat: the model's tokenizer has no chat template; leave this option out.")
        usual = None if self.trained is None else self.trained.asking
        if usual is None:
            usual = replace(default_asking(is_pretrained=True), is_chat=has_chat_template)
        is_chat = usual.is_chat if self.chat is None else self.chat
        if self.system is not None and not is_chat:
            raise UserError(
                f"--system {self.system}: only applies to chat prompts, and this model's is plain."
            )
        prompt = self.prompt or usual.prompt
        # Unasked for, a form changes nothing but whether `Answer: …` is read.
        if self.answer_format not in (None, "line") and INSTRUCTION not in prompt:
            raise UserError(
                f"--answer-format {self.answer_format}: has no effect on a prompt without {INSTRUCTION}; give --prompt."
            )
        return Asking(
            prompt,
            (self.system or usual.system) if is_chat else None,
            is_chat,
            usual.answer_format if self.answer_format is None else cast(AnswerForm, self.answer_format),
        )

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
        if self.gym is not None:
            keys = ("family", "difficulty", "version", "heldout", "problems_seed")
            return {"generator": GYM, **{key: self.gym[key] for key in keys}}
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
    """The request with the checkpoint of `run` as its model, asked as the run was, on its generated problems.

    A model folder that is a run's checkpoint is asked as that run was, too.
    """
    import yaml

    if request.run is not None:
        folder = find_run(root, request.run)
        request = replace(request, model=str(checkpoint_of(folder, request.checkpoint)))
    else:
        found = _run_of_model(request)
        if found is None:
            return _with_gym(request, {})
        folder = found
    config = yaml.safe_load((folder.path / "config.yaml").read_text(encoding="utf-8"))
    request = _with_gym(request, config["task"])
    steps = request.steps
    if request.task == CHAIN and steps is None:
        steps = config["task"].get("steps")
    if request.lm_eval:
        return replace(request, steps=steps)
    if request.reward is None and request.task != CHAIN and config["task"].get("reward"):
        keys = ("reward", "reward_function", "reward_correct")
        request = replace(request, **{key: config["task"][key] for key in keys})
    return replace(request, steps=steps, trained=_trained_with(folder.info, config))


def _run_of_model(request: EvaluationRequest) -> RunFolder | None:
    """The run that the model folder is a checkpoint of, if it is one."""
    if request.engine == SERVER or request.model is None or not is_local(request.model):
        return None
    check_model_folder(request.model)
    path = Path(request.model).resolve()
    folder = RunFolder(path.parent.parent)
    is_checkpoint = path.parent.name == "checkpoints" and (folder.path / "config.yaml").is_file()
    return folder if is_checkpoint else None


def _with_gym(request: EvaluationRequest, trained_on: Mapping[str, Any]) -> EvaluationRequest:
    if request.task != GYM:
        return request
    task = gym_task(request.family, request.difficulty, trained_on)
    return replace(request, gym=task.model_dump(mode="json"))


def _trained_with(info: Mapping[str, Any], config: Mapping[str, Any]) -> TrainedWith:
    asked, is_pretrained = info.get("asked"), config["model"]["kind"] == "pretrained"
    # The record of an earlier version does not say; it asked every model alike.
    usual = default_asking(is_pretrained) if "asked" not in info else None
    implementation = config["model"].get("implementation", "transformers")
    return TrainedWith(
        usual if asked is None else Asking(**asked), info.get("response_limit"), implementation
    )


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
