"""From a configuration to a finished run folder: the one place that wires every part of a run."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from cppo_lab.config.identity import RESULT_VERSION, named_inputs, run_id
from cppo_lab.config.schema import RunConfig
from cppo_lab.config.size import active_parameter_count, checkpoint_bytes, cost_key
from cppo_lab.errors import UserError, first_line
from cppo_lab.files import full_disk
from cppo_lab.manifests import MANIFEST_FILE
from cppo_lab.models.device import resolved_device
from cppo_lab.plugins import loaded
from cppo_lab.tracking.run_folder import LOCK_FILE, RunFolder, run_folder

if TYPE_CHECKING:
    from torch import nn

    from cppo_lab.models.loading import Policy
    from cppo_lab.rollouts.rollout import OnTokens, RolloutEngine
    from cppo_lab.tasks.task import Task
    from cppo_lab.training.activity import OnActivity
    from cppo_lab.training.loop import HeldOut, OnStep, TrainingLoop
    from cppo_lab.training.starting_policy import StartingPolicy
    from cppo_lab.training.warmup import Progress


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def run(
    config: RunConfig,
    on_step: OnStep | None = None,
    on_warmup: Progress | None = None,
    on_start: Callable[[], None] = lambda: None,
    wait: bool = False,
    on_activity: OnActivity | None = None,
) -> RunFolder:
    """Train one run; resumes an interrupted one, and returns a finished one as it is.

    While another process works on the run, waits for it with `wait`, and raises UserError otherwise. `on_start` is
    called once run.json records the attempt, `on_activity` with what is being done within a step. Whatever stops the
    run is raised, after run.json says FAILED (with the reason) or INTERRUPTED.
    """
    from filelock import FileLock, Timeout

    folder = run_folder(config)
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.path / LOCK_FILE)
    try:
        # A short wait for processes that only check whether the run is alive.
        lock.acquire(timeout=-1 if wait else 1.0)
    except Timeout as error:
        raise UserError(f"run {folder.path.name}: another process is training it.") from error
    try:
        if folder.status != "FINISHED":
            _attempt(config, folder, on_step, on_warmup, on_start, on_activity)
    except UserError as error:
        error.exit_code = 1
        raise
    except Exception as error:
        said = full_disk(error, folder.path, checkpoint_bytes(config))
        if said is None:
            raise
        failed = UserError(said)
        failed.exit_code = 1
        raise failed from error
    finally:
        lock.release()
    return folder


def _attempt(
    config: RunConfig,
    folder: RunFolder,
    on_step: OnStep | None,
    on_warmup: Progress | None,
    on_start: Callable[[], None],
    on_activity: OnActivity | None,
) -> None:
    from cppo_lab.training.region_warnings import warnings_after
    from cppo_lab.training.update import Diverged

    started = time.monotonic()
    spent = folder.info.get("duration_s", 0.0)
    folder.create(config.model_dump(mode="python"))
    _open(config, folder)
    on_start()
    try:
        _go_on_from_what_is_whole(folder)
        _train(config, folder, on_step, on_warmup, on_activity)
        said = warnings_after(config, folder)
        said += folder.info.get("damaged", [])
        outcome: dict[str, Any] = {"status": "FINISHED", "reason": None, "warnings": said}
    except (KeyboardInterrupt, SystemExit):
        outcome = {
            "status": "INTERRUPTED",
            "reason": "interrupted; the same command resumes from the last checkpoint",
        }
        raise
    except Diverged as error:
        outcome = {"status": "FAILED", "reason": str(error), "diverged": True}
        raise
    except UserError as error:
        outcome = {"status": "FAILED", "reason": str(error)}
        raise
    except Exception as error:
        no_room = full_disk(error, folder.path, checkpoint_bytes(config))
        outcome = {"status": "FAILED", "reason": no_room or _reason(error)}
        raise
    finally:
        folder.update_info(**outcome, ended_at=_now(), duration_s=spent + time.monotonic() - started)


def _reason(error: Exception) -> str:
    """Why a run failed, in one line."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return (
            f"out of memory ({first_line(error)}); lower trainer.microbatch_tokens, trainer.microbatch_sequences or "
            "engine.batch_size, and the run goes on from its last checkpoint"
        )
    return f"{type(error).__name__}: {first_line(error)}"


def _go_on_from_what_is_whole(folder: RunFolder) -> None:
    """Drop damaged checkpoints, and say so."""
    from cppo_lab.training.checkpoint import drop_damaged

    (folder.path / MANIFEST_FILE).unlink(missing_ok=True)
    said = drop_damaged(folder)
    for each in said:
        print(f"Warning: run {folder.path.name}: {each}", file=sys.stderr)


def _open(config: RunConfig, folder: RunFolder) -> None:
    """Write run.json and the uncommitted changes for this attempt."""
    from cppo_lab.diagnostics.mask_overlap import mask_rule_id
    from cppo_lab.objectives.describe import admitted
    from cppo_lab.tracking.provenance import device_name, git_state, uncommitted_diff, versions
    from cppo_lab.training.region_warnings import warnings_before

    device = resolved_device(config.trainer.device)
    earlier = folder.info
    diff = uncommitted_diff()
    if diff:
        (folder.path / "uncommitted.diff").write_text(diff, encoding="utf-8")
    else:
        (folder.path / "uncommitted.diff").unlink(missing_ok=True)
    folder.update_info(
        run_id=run_id(config),
        name=f"{config.algo.name} seed {config.seed}",
        status="RUNNING",
        reason=None,
        diverged=False,
        method=config.algo.name,
        seed=config.seed,
        task=config.task.kind,
        steps=config.trainer.steps,
        steps_done=earlier.get("steps_done", 0),
        attempts=earlier.get("attempts", 0) + 1,
        started_at=earlier.get("started_at", _now()),
        device=f"{device} ({device_name(device)})",
        cost_key=cost_key(config),
        theorem_1=admitted(config.algo),
        warnings=warnings_before(config),
        mask_rule=mask_rule_id(config.algo),
        result_version=RESULT_VERSION,
        inputs=named_inputs(config),
        plugins=[plugin.described() for plugin in loaded(config.plugins)],
        versions=versions(),
        git=git_state(),
    )


def _train(
    config: RunConfig,
    folder: RunFolder,
    on_step: OnStep | None,
    on_warmup: Progress | None,
    on_activity: OnActivity | None,
) -> None:
    import torch

    from cppo_lab.training.asked_model import asked_model
    from cppo_lab.training.starting_policy import starting_policy

    torch.set_num_threads(config.trainer.threads)
    task_config = config.task.asked_of(asked_model(config.model))
    task = task_config.build()
    if task.data_counts:
        folder.update_info(data=task.data_counts)
    asking = task_config.asking
    folder.update_info(
        asked=None if asking is None else asdict(asking), response_limit=task_config.response_limit
    )
    start = starting_policy(config, task, on_warmup)
    folder.update_info(
        starting_policy={"recipe": start.recipe, "seed": config.warmup.seed, "accuracy": start.accuracy}
    )
    if config.backend.kind == "verl":
        from cppo_lab.training.verl.launch import train_by_verl

        train_by_verl(config, folder, start.path, on_step, on_activity)
    else:
        _train_here(config, folder, task, start, on_step, on_activity)


def _train_here(
    config: RunConfig,
    folder: RunFolder,
    task: Task,
    start: StartingPolicy,
    on_step: OnStep | None,
    on_activity: OnActivity | None,
) -> None:
    from cppo_lab.models.loading import ModelSource
    from cppo_lab.rollouts.run_engines import open_engines
    from cppo_lab.training.starting_policy import load_starting_policy
    from cppo_lab.training.update import trained

    checkpoints = folder.checkpoints()
    policy = load_starting_policy(config, start, checkpoints[-1][1] if checkpoints else None)
    parameters = sum(parameter.numel() for parameter in policy.network.parameters())
    folder.update_info(
        model={
            "name": config.model.name,
            "parameters": parameters,
            "active_parameters": active_parameter_count(config) or parameters,
            "trained_parameters": sum(each.numel() for each in trained(policy.network)),
        },
    )
    reference = None
    if config.algo.requirements.needs_reference:
        reference = load_starting_policy(config, start).network.requires_grad_(False)
    source = ModelSource(start.path, start.revision, resolved_device(config.trainer.device))
    with open_engines(config.engine, policy, source) as (engine, eval_engine):
        parts = (config, task, policy, engine, eval_engine, folder, reference)
        training_loop(*parts, on_step, on_activity).run()


def held_out(
    config: RunConfig, task: Task, policy: Policy, engine: RolloutEngine, on_tokens: OnTokens | None
) -> HeldOut:
    """The held-out evaluation of a run; `engine` samples from the policy as the trainer computes it."""
    from cppo_lab.training.loop import HeldOut

    sampling, temperature = config.task.heldout_sampling, config.trainer.temperature
    return HeldOut(
        engine=engine,
        policy=policy,
        problems=task.heldout_problems()[: config.trainer.evaluation_problems],
        response_limit=config.task.response_limit,
        temperature=temperature if sampling.temperature is None else sampling.temperature,
        sampling=sampling,
        grade=task.grade,
        on_tokens=on_tokens,
    )


def training_loop(
    config: RunConfig,
    task: Task,
    policy: Policy,
    engine: RolloutEngine,
    eval_engine: RolloutEngine,
    folder: RunFolder,
    reference: nn.Module | None = None,
    on_step: OnStep | None = None,
    on_activity: OnActivity | None = None,
) -> TrainingLoop:
    """The loop of a run, each part with what it needs of the configuration.

    `eval_engine` samples from the policy as the trainer computes it; `reference` is the frozen policy of the KL
    regularisers.
    """
    from cppo_lab.training.activity import Activity
    from cppo_lab.training.loop import TrainingLoop
    from cppo_lab.training.rollout_phase import RolloutPhase
    from cppo_lab.training.update import Learner

    def sampling_of(kind: Literal["rollout", "evaluation"]) -> OnTokens | None:
        return on_activity and (lambda done, most: on_activity(Activity(loop.step, kind, done, most)))

    trainer, limit = config.trainer, config.task.response_limit
    algo = config.algo.with_horizon(limit)
    learner = Learner(policy, algo, trainer, config.seeds.minibatches)
    rollouts = RolloutPhase(
        settings=trainer,
        seeds=config.seeds,
        response_limit=limit,
        top_p=config.engine.sampling_top_p,
        algo=algo,
        task=task,
        policy=policy,
        engine=engine,
        reference=reference,
        critic=learner.critic,
        on_tokens=sampling_of("rollout"),
    )
    evaluation = held_out(config, task, policy, eval_engine, sampling_of("evaluation"))
    loop = TrainingLoop(trainer, learner, rollouts, evaluation, folder, on_step, on_activity)
    return loop
