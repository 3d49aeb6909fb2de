"""The typed schema of every configuration group: what a run is, checked before any work starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny, model_validator

from cppo_lab.fields import Count, Group, NotNegative, Positive, Revision, Seed, Share, by_kind
from cppo_lab.models.config import ModelConfig, ScratchModel
from cppo_lab.objectives.spec import AlgoSpec
from cppo_lab.rollouts.engine_config import EngineConfig, engines


class Seeds(Group):
    """One seed per random stream of a run; by default all are the run's `seed`."""

    prompts: Seed
    sampling: Seed
    minibatches: Seed
    shuffled_weights: Seed


@dataclass(frozen=True)
class HeldoutSampling:
    """How held-out problems are answered while training: `samples` responses each.

    `temperature` None is that of the training rollouts.
    """

    samples: int = 1
    temperature: float | None = None
    top_p: float = 1.0


class ProblemTask(Group):
    """What tasks have in common."""

    @property
    def heldout_sampling(self) -> HeldoutSampling:
        """One response per problem, sampled as in training."""
        return HeldoutSampling()


class ChainTask(ProblemTask):
    """The embedded word problems; `steps` is the difficulty."""

    kind: Literal["chain"]
    steps: Annotated[int, Field(ge=1, le=64)]
    heldout: Annotated[int, Field(ge=16, le=100_000)]
    multiply_probability: Share
    max_response_tokens: Count | None

    @property
    def response_limit(self) -> int:
        """A quarter more tokens than the longest correct solution (9 per step, and 4), unless set.

        Shaping of long responses begins at four fifths of the limit, and must not reach correct ones.
        """
        return self.max_response_tokens or 12 * self.steps + 6


class Gsm8kTask(ProblemTask):
    """GSM8K from the hub (pinned revision) or local files."""

    kind: Literal["gsm8k"]
    path: str | None
    heldout_path: str | None
    heldout: Count
    revision: Revision
    max_response_tokens: Count

    @property
    def response_limit(self) -> int:
        """The response length limit in tokens."""
        return self.max_response_tokens


MathBenchmark = Literal["aime24", "aime25", "aime26"]
_AIME_PROBLEMS = 30


class HeldoutPaths(Group):
    """A local file for each benchmark; None takes the hub's, at the revision that `cppo-lab eval` pins."""

    aime24: str | None
    aime25: str | None
    aime26: str | None

    def of(self, benchmark: MathBenchmark) -> str | None:
        """The file of `benchmark`."""
        paths = {"aime24": self.aime24, "aime25": self.aime25, "aime26": self.aime26}
        return paths[benchmark]


class DapoMathTask(ProblemTask):
    """DAPO-Math-17k from the hub (pinned revision) or a local file, with AIME held out.

    `prompt` chat puts the data set's instruction and the problem into the model's chat template. `samples`,
    `evaluation_temperature` and `evaluation_top_p` are those of the held-out problems, and of nothing else.
    """

    kind: Literal["dapo_math"]
    path: str | None
    revision: Revision
    prompt: Literal["plain", "chat"]
    benchmarks: Annotated[tuple[MathBenchmark, ...], Field(min_length=1)]
    heldout_paths: HeldoutPaths
    samples: Annotated[int, Field(ge=1, le=1024)]
    evaluation_temperature: Positive
    evaluation_top_p: Annotated[float, Field(gt=0, le=1)]
    max_response_tokens: Count

    @model_validator(mode="after")
    def _fits_together(self) -> DapoMathTask:
        if len(set(self.benchmarks)) < len(self.benchmarks):
            raise ValueError(f"benchmarks = {list(self.benchmarks)}: must name each benchmark once")
        for name, path in self.heldout_paths.model_dump().items():
            if path and name not in self.benchmarks:
                raise ValueError(
                    f"heldout_paths.{name} = {path}: must be null unless benchmarks (now {list(self.benchmarks)}) "
                    f"name {name}"
                )
        return self

    @property
    def response_limit(self) -> int:
        """The response length limit in tokens."""
        return self.max_response_tokens

    @property
    def heldout(self) -> int:
        """Held-out problems: each AIME has 30."""
        return _AIME_PROBLEMS * len(self.benchmarks)

    @property
    def heldout_sampling(self) -> HeldoutSampling:
        """See `ProblemTask.heldout_sampling`."""
        return HeldoutSampling(self.samples, self.evaluation_temperature, self.evaluation_top_p)


class Warmup(Group):
    """Supervised warm-up of a from-scratch model into the starting policy.

    Training goes on past `steps`, `extra_steps` at a time and up to `max_steps`, until the sampled accuracy on the
    task's problems lies in `band`. `corruption` is the share of wrong steps in the embedded task's solutions: it
    leaves the policy room to improve. `longest` bounds the embedded task's problem length.
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
    """The loop: what a step is, and how the optimizer (AdamW) takes it."""

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
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]
    weight_decay: NotNegative
    grad_clip: Positive | None
    evaluate_every: Count
    evaluation_problems: Count | None
    checkpoint_every: Count
    samples_per_step: Annotated[int, Field(ge=0)]
    threads: Count
    device: Literal["cpu", "cuda", "auto"]

    @model_validator(mode="after")
    def _fits_together(self) -> Trainer:
        if self.prompts_per_minibatch > self.prompts_per_step:
            raise ValueError(
                f"prompts_per_minibatch = {self.prompts_per_minibatch}: must be at most "
                f"prompts_per_step = {self.prompts_per_step}"
            )
        return self

    @property
    def updates_per_step(self) -> int:
        """Optimizer updates of a step in which no group is dropped."""
        return self.epochs * math.ceil(self.prompts_per_step / self.prompts_per_minibatch)


class Tracking(Group):
    """MLflow. `uri` null means `$MLFLOW_TRACKING_URI`, else a SQLite file in the output folder."""

    enabled: bool
    uri: str | None
    experiment: str
    every_s: Positive


class Paths(Group):
    """Where everything is written."""

    output: Path


class RunConfig(Group):
    """Everything that one run is made of."""

    seed: Seed
    seeds: Seeds
    algo: AlgoSpec
    model: Annotated[ModelConfig, Field(discriminator="kind")]
    warmup: Warmup
    task: Annotated[ChainTask | Gsm8kTask | DapoMathTask, Field(discriminator="kind")]
    engine: Annotated[SerializeAsAny[EngineConfig], by_kind(engines)]
    trainer: Trainer
    tracking: Tracking
    paths: Paths
    plugins: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _makes_sense(self) -> RunConfig:
        group_advantage = self.algo.advantage.kind.startswith(("group", "leave"))
        if group_advantage and self.trainer.group_size < 2:
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
        if self.model.is_pretrained and self.warmup.steps:
            raise ValueError(
                f"warmup.steps = {self.warmup.steps}: must be 0 (warmup=none) for a pretrained model"
            )
        if isinstance(self.task, DapoMathTask) and isinstance(self.model, ScratchModel):
            raise ValueError(
                f"model.kind = {self.model.kind}: must be pretrained (model=pretrained model.path=…) for "
                "task.kind = dapo_math, which has no written solutions to warm a model up with"
            )
        if isinstance(self.task, ChainTask) and isinstance(self.model, ScratchModel):
            needed = 6 * self.task.steps + 16 + self.task.response_limit
            if self.model.context < needed:
                raise ValueError(
                    f"model.context = {self.model.context}: must be at least {needed} "
                    f"for task.steps = {self.task.steps}"
                )
        return self

    def _check_engine(self) -> None:
        """Raise ValueError where the method needs rollouts that the engine does not give."""
        top_p, needs = self.engine.sampling_top_p, self.algo.requirements
        if top_p < 1 and (self.algo.anchor == "rollout" or self.algo.correction.kind != "none"):
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
