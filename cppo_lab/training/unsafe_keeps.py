"""Unsafe keeps of every rule on the same states: the updates of a run's first rollouts, made again.

The run's own method trains. At some of its updates every rule takes its own optimizer step from the same weights and
optimizer state, on the same minibatch and advantages and with the run's aggregation, and D is measured after each; then
weights and state are put back.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cppo_lab.config.schema import RunConfig
from cppo_lab.diagnostics.unsafe_keeps import (
    KeepCounts,
    TrueDivergence,
    counts_of,
    predicted_rise,
    true_divergence,
)
from cppo_lab.errors import UserError
from cppo_lab.models.loading import ModelSource
from cppo_lab.objectives.aggregation import aggregate, denominator
from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.named import method, method_names
from cppo_lab.objectives.objective import batch_statistics, token_objective
from cppo_lab.objectives.spec import AlgoSpec
from cppo_lab.rollouts.rollout import Rollout, RolloutEngine, SamplingSettings
from cppo_lab.rollouts.run_engines import open_engines
from cppo_lab.tracking.run_folder import RunFolder
from cppo_lab.training.asked_model import asked_model
from cppo_lab.training.experience import Experience
from cppo_lab.training.run import training_loop
from cppo_lab.training.starting_policy import load_starting_policy, starting_policy
from cppo_lab.training.update import Learner, trained

MOST_TOKENS = 4096
"""The largest vocabulary whose whole distributions are held for every token of a rollout."""
TOP = 20
"""K of the top-K divergences that are compared."""


@dataclass(frozen=True)
class Measured:
    """The counts of each rule over `states` updates, and why rules were left out."""

    states: int
    counts: Mapping[str, KeepCounts]
    left_out: Mapping[str, str]
    learnt: Sequence[Mapping[str, float]]
    """The metrics of the training steps that were made again."""


def measure_unsafe_keeps(
    config: RunConfig,
    folder: RunFolder,
    rules: Sequence[str] = (),
    *,
    divergence: TrueDivergence,
    delta: float,
    rollouts: int = 1,
    every: int = 8,
    on_state: Callable[[int], None] = lambda done: None,
) -> Measured:
    """Train the first `rollouts` steps of a run again, and apply `rules` (default: all methods) at each `every`-th
    update.

    Nothing is written. Raises UserError where whole distributions are unknown, or too large to hold.
    """
    if not config.engine.gives_distribution:
        raise UserError(
            f"engine.kind={config.engine.kind}: does not record whole distributions, which this needs."
        )
    torch.set_num_threads(config.trainer.threads)
    task = config.task.asked_of(asked_model(config.model)).build()
    start = starting_policy(config, task)
    policy = load_starting_policy(config, start)
    vocabulary = len(policy.network.get_output_embeddings().weight)
    if vocabulary > MOST_TOKENS:
        raise UserError(
            f"model.name={config.model.name}: has {vocabulary} tokens; whole distributions are held for at most "
            f"{MOST_TOKENS}."
        )
    specs, left_out = _specs(config.algo, rules or method_names())
    reference = None
    if config.algo.requirements.needs_reference:
        reference = load_starting_policy(config, start).network.requires_grad_(False)
    source = ModelSource(start.path, start.revision, str(policy.network.device))
    with open_engines(config.engine, policy, source) as (engine, eval_engine):
        whole = _WholeDistributions(engine)
        loop = training_loop(config, task, policy, whole, eval_engine, folder, reference)
        probe = _Probe(loop.learner, specs, left_out, divergence, delta, every, on_state)
        learnt = []
        for step in range(min(rollouts, config.trainer.steps)):
            experience = loop.rollouts.collect(step, loop.learner.updates)
            learnt.append(loop.learner.learn(experience, step, before_update=probe))
    return Measured(probe.states, probe.counts, left_out, learnt)


class _WholeDistributions:
    """An engine that records whatever any rule reads of the sampler's distributions."""

    def __init__(self, engine: RolloutEngine) -> None:
        self._engine = engine

    def sample(self, prompts: Sequence[Sequence[int]], settings: SamplingSettings) -> Rollout:
        """See `Sampler.sample`."""
        return self._engine.sample(
            prompts, replace(settings, full=True, topk=settings.topk or TOP, entropy=True)
        )

    def load_weights(self, policy: torch.nn.Module, version: int) -> None:
        """See `RolloutEngine.load_weights`."""
        self._engine.load_weights(policy, version)

    def rest(self) -> None:
        """See `RolloutEngine.rest`."""
        self._engine.rest()

    def close(self) -> None:
        """See `Sampler.close`."""
        self._engine.close()


def _specs(own: AlgoSpec, names: Sequence[str]) -> tuple[dict[str, AlgoSpec], dict[str, str]]:
    """The rules to apply by name, the run's own first, with its aggregation; and those left out with the reason."""
    specs, left_out = {own.name: _comparable(own, own)}, {}
    for name in names:
        if name == own.name:
            continue
        rule = method(name)
        if rule.requirements.needs_weight_order:
            left_out[name] = "draws an order of position weights with the rollout"
        elif rule.requirements.needs_topk not in (None, own.requirements.needs_topk or TOP):
            left_out[name] = (
                f"reads the top {rule.requirements.needs_topk}, the run's rollouts have another K"
            )
        else:
            specs[name] = _comparable(rule, own)
    return specs, left_out


def _comparable(rule: AlgoSpec, own: AlgoSpec) -> AlgoSpec:
    """The rule with the run's aggregation, and without the terms that need a reference or the entropy's gradient."""
    regulariser = rule.regulariser.replace(kl_coefficient=0.0, entropy_coefficient=0.0)
    return rule.replace(aggregation=own.aggregation, regulariser=regulariser)


class _Probe:
    """Called before each update of the run; applies every rule before each `every`-th one."""

    def __init__(
        self,
        learner: Learner,
        specs: Mapping[str, AlgoSpec],
        left_out: dict[str, str],
        divergence: TrueDivergence,
        delta: float,
        every: int,
        on_state: Callable[[int], None],
    ) -> None:
        self._learner, self._specs, self._left_out = learner, specs, left_out
        self._divergence, self._delta, self._every, self._on_state = divergence, delta, every, on_state
        self.counts = {name: KeepCounts() for name in specs}
        self.states = self._seen = 0
        self._parameters = trained(learner.policy.network)
        needs = learner.algo.requirements
        self._needs = replace(
            needs,
            needs_topk=needs.needs_topk or TOP,
            needs_full_distribution=True,
            needs_collision=True,
            needs_selection_order=True,
        )

    def __call__(self, experience: Experience, rows: Tensor) -> None:
        self._seen += 1
        if self._seen % self._every:
            return
        batch = self._batch(experience, rows)
        before = true_divergence(batch, self._divergence)
        predicted = predicted_rise(batch, self._divergence)
        counted = batch.response_mask & (batch.advantages != 0)
        # All gradients first: a step changes the weights that they are computed from.
        found = self._gradients(batch)
        for name, (masked, gradients) in found.items():
            after = self._after_step(experience, rows, gradients)
            self.counts[name] += counts_of(
                masked[counted], before[counted], after[counted], predicted[counted], self._delta
            )
        self.states += 1
        self._on_state(self.states)

    def _batch(self, experience: Experience, rows: Tensor) -> TokenBatch:
        batch, _ = self._learner.token_batch(experience, rows, needs=self._needs)
        return batch

    def _gradients(self, batch: TokenBatch) -> dict[str, tuple[Tensor, list[Tensor]]]:
        """The mask [B, T] of each rule and the gradients of its loss; rules that cannot be applied are left out."""
        found = {}
        for name, rule in self._specs.items():
            if name in self._left_out:
                continue
            try:
                objective = token_objective(batch, rule, statistics=batch_statistics([batch], rule))
            except ValueError as error:
                self._left_out[name] = str(error)
                del self.counts[name]
                continue
            whole = denominator(batch.response_mask, rule.aggregation)
            loss = aggregate(objective.loss, batch.response_mask, rule.aggregation, whole)
            gradients = torch.autograd.grad(loss, self._parameters, retain_graph=True, materialize_grads=True)
            found[name] = objective.masked, list(gradients)
        return found

    def _after_step(self, experience: Experience, rows: Tensor, gradients: list[Tensor]) -> Tensor:
        """D [B, T] after an optimizer step along `gradients`; weights and optimizer are as before afterwards."""
        optimizer = self._learner.optimizer
        weights = [parameter.detach().clone() for parameter in self._parameters]
        state: dict[str, Any] = copy.deepcopy(optimizer.state_dict())
        optimizer.zero_grad(set_to_none=True)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        limit = self._learner.settings.grad_clip or math.inf
        torch.nn.utils.clip_grad_norm_(self._parameters, limit)
        optimizer.step()
        with torch.no_grad():
            after = true_divergence(self._batch(experience, rows), self._divergence)
            for parameter, value in zip(self._parameters, weights, strict=True):
                parameter.copy_(value)
        optimizer.load_state_dict(state)
        optimizer.zero_grad(set_to_none=True)
        return after
