"""How many tokens the prompts of a run have: counted where that takes no hub, else the task's usual number."""

from __future__ import annotations

import statistics
from pathlib import Path

from cppo_lab.config.schema import RunConfig
from cppo_lab.errors import UserError
from cppo_lab.models.config import PretrainedModel

_counted: dict[tuple[str, str], int] = {}


def prompt_tokens(config: RunConfig) -> int:
    """Mean tokens of the first prompts, for a model in a local folder and a task that is generated or read from files.

    Otherwise the task's usual number, `TaskConfig.prompt_tokens`, as where the task or the tokenizer cannot be loaded.
    """
    task, model = config.task, config.model
    is_local = task.kind == "reasoning_gym" or bool(task.local_files())
    if not (is_local and isinstance(model, PretrainedModel) and Path(model.path).is_dir()):
        return task.prompt_tokens
    # The runs of a sweep mostly share their model and task.
    key = model.model_dump_json(), task.model_dump_json()
    if key not in _counted:
        _counted[key] = _mean_length(config)
    return _counted[key]


def _mean_length(config: RunConfig) -> int:
    from cppo_lab.training.sample_prompts import prompt_lengths

    try:
        return round(statistics.fmean(prompt_lengths(config)))
    except UserError:
        return config.task.prompt_tokens
