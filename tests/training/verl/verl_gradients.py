"""In verl's environment: gradients of one update by the lab's own learner and by verl's workers, on the same rollout.

    python verl_gradients.py STARTING_POLICY SCRATCH WORKERS METHOD...

Prints, for each method, the relative differences of gradient and norm, the loss's own, and the masked share, as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cppo_lab.config.compose import compose_run
from cppo_lab.config.schema import RunConfig
from cppo_lab.diagnostics.metrics import Diagnostics
from cppo_lab.models.loading import Policy, load_policy
from cppo_lab.rollouts.native import NativeEngine
from cppo_lab.training.experience import Experience
from cppo_lab.training.rollout_phase import RolloutPhase
from cppo_lab.training.step_record import StepRecord
from cppo_lab.training.update import Learner
from cppo_lab.training.verl import driver
from cppo_lab.training.verl.cluster import SHARDS, Cluster
from cppo_lab.training.verl.remote import RemoteLearner
from cppo_lab.training.verl.translate import translate

BETA = 0.9


def main(start: str, scratch: Path, workers: int, methods: list[str]) -> None:
    """Start the workers once; a learning rate of 0 leaves their weights as they are."""
    configs = {name: composed(name, scratch, workers) for name in methods}
    first = next(iter(configs.values()))
    driver._start_ray(first)
    policy = load_policy(start)
    overrides = list(translate(first, start).overrides)
    cluster = Cluster(driver.verl_config(overrides), first.backend, 3)
    found, moments = {}, None
    for name, config in configs.items():
        algo = config.algo.with_horizon(config.task.response_limit)
        if moments is None:
            cluster.start(algo, [])
        else:
            cluster.actor_rollout_wg.set_method(algo, [])
        experience = collected(config, policy)
        rows = torch.arange(len(experience.rollout.logp))
        own = Native(*native(config, policy, experience, rows))
        learner = RemoteLearner(driver._described(start, config), algo, config.trainer, 0, cluster)
        learner.updates = 1
        taken = StepRecord(Diagnostics(), None, None)
        learner._update(experience, rows, 0, 0.0, taken)
        before, moments = moments, saved_moments(cluster, scratch / name, workers)
        gradient = [
            (after - (0 if before is None else BETA * before[i])) / (1 - BETA)
            for i, after in enumerate(moments)
        ]
        found[name] = {
            "gradient": distance(gradient, own.gradient),
            "loss": abs(taken.losses[0] - own.loss),
            "norm": abs(taken.norms[0] - own.norm) / own.norm,
            "masked": own.masked,
            "same_masked": taken.diagnostics.result()["mask/share"] == own.masked,
        }
    print(json.dumps(found))


@dataclass
class Native:
    """What the lab's own learner made of the update."""

    gradient: list[Tensor]
    loss: float
    norm: float
    masked: float


def composed(name: str, scratch: Path, workers: int) -> RunConfig:
    """Few responses under a rough sampler, whose ratios leave 1 before any update."""
    # As published, thresholds hardly act on a sampler that is only this far off.
    tight = ["algo.trust_region.delta=0.02"] if name in ("cppo", "cppo_binary", "dppo_tv") else []
    return compose_run(
        [
            f"algo={name}",
            *tight,
            "backend=verl",
            "backend.device=cpu",
            f"backend.workers={workers}",
            "model.implementation=transformers",
            "regime=mismatch",
            # The problems that the tests' small policy can solve at times.
            "task.steps=1",
            "trainer.prompts_per_step=9",
            "trainer.prompts_per_minibatch=9",
            "trainer.group_size=5",
            "trainer.epochs=1",
            "trainer.grad_clip=null",
            f"trainer.betas=[{BETA},0.99]",
            f"paths.output={scratch}",
        ]
    )


def collected(config: RunConfig, policy: Policy) -> Experience:
    """A rollout of int4 weights, graded and read again natively."""
    engine = NativeEngine(
        policy.network, pad_token=policy.pad_token, eos_token=policy.eos_token, weights="int4"
    )
    phase = RolloutPhase(
        settings=config.trainer,
        seeds=config.seeds,
        response_limit=config.task.response_limit,
        top_p=1.0,
        algo=config.algo.with_horizon(config.task.response_limit),
        task=config.task.build(),
        policy=policy,
        engine=engine,
    )
    return phase.collect(0, 0)


def native(config: RunConfig, policy: Policy, experience: Experience, rows: Tensor) -> tuple[Any, ...]:
    """Gradient, loss, its norm, and the masked share, by the lab's own learner."""
    algo = config.algo.with_horizon(config.task.response_limit)
    learner = Learner(policy, algo, config.trainer, 0)
    taken = StepRecord(Diagnostics(), None, None)
    learner._update(experience, rows, 0, 0.0, taken)
    gradient = [parameter.grad.clone() for parameter in policy.network.parameters()]
    return gradient, taken.losses[0], taken.norms[0], taken.diagnostics.result()["mask/share"]


def saved_moments(cluster: Cluster, folder: Path, workers: int) -> list[Tensor]:
    """Adam's first moments of all parameters, put together from the shards of a checkpoint."""
    folder.mkdir(parents=True)
    cluster.save(folder, to_resume=True)
    parts: list[list[Tensor]] = []
    for rank in range(workers):
        path = folder / SHARDS / f"optim_world_size_{workers}_rank_{rank}.pt"
        state = torch.load(path, weights_only=False)["state"]
        parts.append([local(state[index]["exp_avg"]) for index in sorted(state)])
    return [torch.cat(shards) for shards in zip(*parts, strict=True)]


def local(value: Tensor) -> Tensor:
    """A process's own part of a distributed tensor."""
    return value.to_local() if hasattr(value, "to_local") else value


def distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """Relative to the norm of all."""
    pairs = list(zip(found, expected, strict=True))
    apart = sum(float((left - right).square().sum()) for left, right in pairs)
    whole = sum(float(right.square().sum()) for right in expected)
    return (apart / whole) ** 0.5


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
