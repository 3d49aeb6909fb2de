"""The typed schema of a run configuration, validated before any work starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, SerializeAsAny, model_validator

from cppo_lab.addresses import without_credentials
from cppo_lab.config.backend import Backend, NativeBackend
from cppo_lab.fields import Count, Group, NotNegative, Positive, Seed, Share, by_kind, name_problem
from cppo_lab.models.config import ModelConfig, ScratchModel
from cppo_lab.objectives.describe import rules_of
from cppo_lab.objectives.spec import AlgoSpec
from cppo_lab.rollouts.engine_config import EngineConfig, engines
from cppo_lab.tasks.builtin import tasks
from cppo_lab.tasks.task import TaskConfig


class Seeds(Group):
    """One seed per random stream of a run; by default all are the run's `seed`."""

    prompts: Seed
    sampling: Seed
    minibatches: Seed
    shuffled_weights: Seed


class Warmup(Group):
    """Supervised warm-up into the starting policy: of a from-scratch model, or a cold start of a pretrained one.

    After `steps`, training continues `extra_steps` at a time, up to `max_steps`, until the sampled accuracy on the
    task's problems lies in `band`. `corruption` is the share of wrong steps in the embedded task's solutions, which
    leaves the policy room to improve. `longest` bounds the length of the embedded task's problems.
    """

    steps: Annotated[int, Field(ge=0)]
    lr: Positive
    batch: Count
    seed: Seed
    corruption: Share
    longest: Count
    band: tuple[Share, Share] | None
    extra_steps: Count
    max_steps: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _ordered(self) -> Warmup:
        if self.band and self.band[0] >= self.band[1]:
            raise ValueError(f"band = {list(self.band)}: its first number must be below its second")
        if self.max_steps < self.steps:
            raise ValueError(f"max_steps = {self.max_steps}: must be at least steps = {self.steps}")
        return self


class Trainer(Group):
    """The training loop and its optimizer (AdamW).

    The learning rate of an update is `lr` times the factors of the warm-up, of `lr_schedule`, which falls to the share
    `lr_floor` over the planned updates, and of `lr_control`. `ess`: (min(1, ESS / N / lr_ess_base)) to the power
    `lr_ess_exponent`, with the effective sample size of the minibatch's N responses under the weights prod pi / mu, pi
    that of the start of the training step.
    `length_decay`: halved every `lr_length_period_factor` times the step of a surge, down to `lr_length_floor`; a surge
    is a mean response length above `lr_length_multiple` times that of the first `lr_length_window` steps.

    At most `microbatch_sequences` responses, and `microbatch_tokens` tokens with their padding, go through the model at
    once; with the latter they are sorted by length.

    A `lora_rank` above 0 trains a LoRA adapter of the `lora_targets` alone, scaled by `lora_alpha` / `lora_rank`.
    """

    steps: Count
    prompts_per_step: Count
    group_size: Count
    prompts_per_minibatch: Count
    epochs: Count
    microbatch_sequences: Count | None
    staleness: Annotated[int, Field(ge=0, le=64)]
    temperature: Positive
    lr: Positive
    lr_warmup_updates: Annotated[int, Field(ge=0)]
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    lr_floor: Share = 0.0
    lr_control: Literal["none", "ess", "length_decay"] = "none"
    lr_ess_base: Annotated[float, Field(gt=0, le=1)] = 1.0
    lr_ess_exponent: Annotated[float, Field(gt=0, le=1)] = 0.5
    lr_length_multiple: Annotated[float, Field(gt=1)] | None = None
    lr_length_window: Count | None = None
    lr_length_period_factor: Positive | None = None
    lr_length_floor: Share | None = None
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]
    weight_decay: NotNegative
    grad_clip: Positive | None
    evaluate_every: Count
    evaluation_problems: Count | None
    evaluate_greedy: bool = False
    checkpoint_every: Count
    samples_per_step: Annotated[int, Field(ge=0)]
    threads: Count
    device: Literal["cpu", "cuda", "auto"]
    lora_rank: Annotated[int, Field(ge=0)] = 0
    lora_alpha: Positive = 32.0
    lora_targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    microbatch_tokens: Count | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Trainer:
        if self.prompts_per_minibatch > self.prompts_per_step:
            raise ValueError(
                f"prompts_per_minibatch = {self.prompts_per_minibatch}: must be at most "
                f"prompts_per_step = {self.prompts_per_step}"
            )
        return self

    @model_validator(mode="after")
    def _has_a_learning_rate(self) -> Trainer:
        scheduled = self.lr_schedule != "constant"
        if not scheduled and self.lr_floor != 0:
            raise ValueError(
                f"lr_floor = {self.lr_floor:g}: must be 0 unless lr_schedule is linear or cosine"
            )
        if scheduled and self.lr_warmup_updates >= self.planned_updates:
            raise ValueError(
                f"lr_warmup_updates = {self.lr_warmup_updates}: must be below the run's {self.planned_updates} planned "
                f"updates, or lr_schedule {self.lr_schedule} has nothing to fall over"
            )
        for key in ("lr_ess_base", "lr_ess_exponent"):
            default = type(self).model_fields[key].default
            if self.lr_control != "ess" and getattr(self, key) != default:
                raise ValueError(
                    f"{key} = {getattr(self, key):g}: must be {default:g} unless lr_control is ess"
                )
        for key, value in self.length_decay.items():
            if (value is None) == (self.lr_control == "length_decay"):
                rule = "needs a number" if value is None else "must be null unless lr_control is length_decay"
                raise ValueError(f"lr_length_{key} = {'null' if value is None else f'{value:g}'}: {rule}")
        if self.lr_length_window is not None and self.lr_length_window >= self.steps:
            raise ValueError(
                f"lr_length_window = {self.lr_length_window}: must be below steps = {self.steps}"
            )
        return self

    @model_validator(mode="after")
    def _has_an_adapter(self) -> Trainer:
        for key in ("lora_alpha", "lora_targets"):
            default, value = type(self).model_fields[key].default, getattr(self, key)
            if not self.lora_rank and value != default:
                told = f"[{', '.join(value)}]" if isinstance(value, tuple) else str(value)
                raise ValueError(f"{key} = {told}: must be {default} unless lora_rank is above 0")
        if self.lora_targets == ():
            raise ValueError(
                "lora_targets = []: must be all-linear, or names of modules such as [q_proj, v_proj]"
            )
        return self

    @property
    def length_decay(self) -> dict[str, Any]:
        """The numbers of the control by length, without the beginning of their keys."""
        names = ("multiple", "window", "period_factor", "floor")
        return {name: getattr(self, f"lr_length_{name}") for name in names}

    def tokens_at_once(self, rows: int, longest: int) -> int:
        """The most tokens of a pass over `rows` responses, which are at most `longest` with their prompts."""
        bound = rows * longest
        return bound if self.microbatch_tokens is None else min(bound, max(longest, self.microbatch_tokens))

    @property
    def planned_updates(self) -> int:
        """Optimizer updates of a run in which no group is dropped."""
        return self.steps * self.updates_per_step

    @property
    def updates_per_step(self) -> int:
        """Optimizer updates of a step in which no group is dropped."""
        return self.epochs * self.updates_per_epoch

    @property
    def updates_per_epoch(self) -> int:
        """Minibatches of one pass over a step's rollout, where no group is dropped."""
        return math.ceil(self.prompts_per_step / self.prompts_per_minibatch)


def _shown(uri: str | None) -> str | None:
    return None if uri is None else without_credentials(uri)


class Tracking(Group):
    """MLflow. `uri` null means `$MLFLOW_TRACKING_URI`, else a SQLite file in the output folder.

    A password in the address is used, and never written down.
    """

    enabled: bool
    uri: Annotated[str | None, PlainSerializer(_shown)]
    experiment: str
    every_s: Positive


class Paths(Group):
    """Where everything is written."""

    output: Path


def _method(value: AlgoSpec | Mapping[str, Any]) -> AlgoSpec:
    if isinstance(value, AlgoSpec):
        return value
    # The runs of a sweep share their methods, which are immutable. A plug-in may add rules that change what is valid.
    key = repr((value, [rules.additions for _, rules in rules_of()]))
    if key not in _METHODS:
        _METHODS[key] = AlgoSpec.build(value)
    return _METHODS[key]


_METHODS: dict[str, AlgoSpec] = {}


Method = Annotated[AlgoSpec, PlainValidator(_method), PlainSerializer(AlgoSpec.as_dict)]
"""A method; it validates its own keys."""


class RunConfig(Group):
    """The configuration of one run."""

    seed: Seed
    seeds: Seeds
    algo: Method
    model: Annotated[ModelConfig, Field(discriminator="kind")]
    warmup: Warmup
    task: Annotated[SerializeAsAny[TaskConfig], by_kind(tasks)]
    engine: Annotated[SerializeAsAny[EngineConfig], by_kind(engines)]
    trainer: Trainer
    tracking: Tracking
    paths: Paths
    plugins: tuple[str, ...] = ()
    backend: Backend = NativeBackend()

    @model_validator(mode="after")
    def _makes_sense(self) -> RunConfig:
        if problem := name_problem(self.algo.name):
            raise ValueError(f"algo.name = {self.algo.name!r}: {problem}")
        for key, text in {
            "model.name": self.model.name,
            "tracking.experiment": self.tracking.experiment,
        }.items():
            if not text.isprintable():
                raise ValueError(f"{key} = {text!r}: must be printable")
        if self.algo.needs("group") and self.trainer.group_size < 2:
            raise ValueError(
                f"trainer.group_size = {self.trainer.group_size}: must be at least 2 for "
                f"algo.advantage.kind = {self.algo.advantage.kind}, which compares the responses of a group"
            )
        if self.algo.dynamic_sampling.kind != "none" and self.trainer.group_size < 2:
            raise ValueError(
                f"trainer.group_size = {self.trainer.group_size}: must be at least 2 for "
                f"algo.dynamic_sampling.kind = {self.algo.dynamic_sampling.kind}, or every group would be dropped"
            )
        self._check_engine()
        if self.trainer.lora_rank and self.model.implementation == "lab":
            raise ValueError(
                f"trainer.lora_rank = {self.trainer.lora_rank}: needs model.implementation = transformers; the lab's "
                "decoder has no adapters"
            )
        if self.model.is_pretrained and self.warmup.steps and not self.task.has_solutions:
            raise ValueError(
                f"warmup.steps = {self.warmup.steps}: must be 0 (warmup=none) for a pretrained model on "
                f"task.kind = {self.task.kind}, which has no written solutions"
            )
        if isinstance(self.model, ScratchModel):
            self.task.check_scratch_model(self.model.context)
        return self

    def _check_engine(self) -> None:
        """Raise ValueError if the method needs rollouts that the engine does not provide."""
        top_p, needs = self.engine.sampling_top_p, self.algo.requirements
        if top_p < 1 and (self.algo.anchor == "rollout" or not self.algo.correction.is_off):
            raise ValueError(
                f"engine.top_p = {top_p}: must be 1 for a method whose ratio, or its correction, has the rollout "
                "policy in its denominator: a truncated distribution is not that policy's"
            )
        if needs.needs_topk and not self.engine.gives_topk:
            raise ValueError(
                f"engine.kind = {self.engine.kind}: does not record top-K log-probabilities, which "
                f"algo.name = {self.algo.name} needs"
            )
        if needs.needs_full_distribution and not self.engine.gives_distribution:
            raise ValueError(
                f"engine.kind = {self.engine.kind}: does not record whole distributions, which "
                f"algo.name = {self.algo.name} needs"
            )
        if needs.needs_rollout_entropy and not self.engine.gives_entropy:
            raise ValueError(
                f"engine.kind = {self.engine.kind}: does not record the entropy of the whole distribution, which "
                f"algo.name = {self.algo.name} needs (that of the top K alone is only a lower bound)"
            )
