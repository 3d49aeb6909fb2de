"""What a model will be asked: some prompts of a run as the model reads them, with the grading of their answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cppo_lab.config.schema import RunConfig
from cppo_lab.diagnostics.token_traces import token_texts
from cppo_lab.models.config import PretrainedModel
from cppo_lab.models.loading import chat_text, load_tokenizer, problem_ids
from cppo_lab.tasks.asking import Asking
from cppo_lab.training.asked_model import asked_model
from cppo_lab.training.starting_policy import scratch_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from cppo_lab.tasks.task import Task, TaskConfig


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt as text and as tokens, its reference answer, and the verdict on a right response to it."""

    text: str
    tokens: list[str]
    answer: str
    response: str
    verdict: str


def sample_prompts(config: RunConfig, count: int = 3) -> list[SamplePrompt]:
    """The first prompts of a run. Raises UserError for a task or a tokenizer that cannot be loaded.

    The response is the written solution where the task has one, else the answer in the form that is asked for.
    """
    task_config = config.task.asked_of(asked_model(config.model))
    task, asking = task_config.build(), task_config.asking or Asking()
    tokenizer = _tokenizer(config, task_config, task)
    problems = task.training_problems(0, config.trainer.prompts_per_step, config.seeds.prompts)[:count]
    responses = [problem.solution or asking.stated(problem.answer) for problem in problems]
    verdicts = task.grade(responses, problems)
    return [
        SamplePrompt(
            text=chat_text(tokenizer, each.prompt, each.system) if each.is_chat else each.prompt,
            tokens=token_texts(tokenizer, problem_ids(tokenizer, each)),
            answer=each.answer,
            response=response,
            verdict=verdict.outcome.value,
        )
        for each, response, verdict in zip(problems, responses, verdicts, strict=True)
    ]


def prompt_lengths(config: RunConfig) -> list[int]:
    """The tokens of each prompt of a run's first step. Raises UserError as `sample_prompts` does."""
    task_config = config.task.asked_of(asked_model(config.model))
    task = task_config.build()
    tokenizer = _tokenizer(config, task_config, task)
    problems = task.training_problems(0, config.trainer.prompts_per_step, config.seeds.prompts)
    return [len(problem_ids(tokenizer, each)) for each in problems]


def _tokenizer(config: RunConfig, task_config: TaskConfig, task: Task) -> PreTrainedTokenizerBase:
    if isinstance(config.model, PretrainedModel):
        return load_tokenizer(config.model.path, config.model.revision)
    return scratch_tokenizer(config.model, task_config, task)
