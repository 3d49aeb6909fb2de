"""From a configuration to a finished run folder: the only place that knows every part."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cppo_lab.config.identity import RESULT_VERSION, named_inputs, resolved_device, run_folder, run_id
from cppo_lab.config.schema import PretrainedModel, RunConfig, VllmEngine
from cppo_lab.errors import UserError
from cppo_lab.models.folders import check_model_folder, is_local
from cppo_lab.sweeps.cost import cost_key, parameter_count, state_bytes
from cppo_lab.tracking.run_folder import LOCK_FILE, RunFolder

if TYPE_CHECKING:
    from cppo_lab.training.loop import OnStep
    from cppo_lab.training.warmup import Progress


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def run(
    config: RunConfig,
    on_step: OnStep | None = None,
    on_warmup: Progress | None = None,
    on_start: Callable[[], None] = lambda: None,
    wait: bool = False,
) -> RunFolder:
    """Do the run, or what is left of it. A finished run is returned as it is.

    Another process that works on the same run is waited for with `wait`, and otherwise refused (UserError).
    `on_start` is called once the run folder tells of the attempt. Raises what stopped the run, after run.json says
    FAILED (with the reason) or INTERRUPTED.
    """
    from filelock import FileLock, Timeout

    folder = run_folder(config)
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.path / LOCK_FILE)
    try:
        # A moment's patience for those who only look whether a run is alive.
        lock.acquire(timeout=-1 if wait else 1.0)
    except Timeout as error:
        raise UserError(f"run {folder.path.name}: another process is working on it.") from error
    try:
        if folder.status != "FINISHED":
            _attempt(config, folder, on_step, on_warmup, on_start)
    finally:
        lock.release()
    return folder


def _attempt(
    config: RunConfig,
    folder: RunFolder,
    on_step: OnStep | None,
    on_warmup: Progress | None,
    on_start: Callable[[], None],
) -> None:
    from cppo_lab.training.update import Diverged

    started = time.monotonic()
    spent = folder.info.get("duration_s", 0.0)
    folder.create(config.model_dump(mode="python"))
    _open(config, folder)
    on_start()
    try:
        _train(config, folder, on_step, on_warmup)
        outcome: dict[str, Any] = {"status": "FINISHED", "reason": None}
    except (KeyboardInterrupt, SystemExit):
        outcome = {
            "status": "INTERRUPTED",
            "reason": "interrupted; the same command goes on from the last checkpoint",
        }
        raise
    except Diverged as error:
        outcome = {"status": "FAILED", "reason": str(error), "diverged": True}
        raise
    except UserError as error:
        outcome = {"status": "FAILED", "reason": str(error)}
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        outcome = {"status": "FAILED", "reason": f"{type(error).__name__}: {first}"}
        raise
    finally:
        folder.update_info(**outcome, ended_at=_now(), duration_s=spent + time.monotonic() - started)


def _open(config: RunConfig, folder: RunFolder) -> None:
    """Write run.json and the uncommitted changes for this attempt."""
    from cppo_lab.objectives.weights import admitted
    from cppo_lab.tracking.provenance import device_name, git_state, uncommitted_diff, versions

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
        result_version=RESULT_VERSION,
        inputs=named_inputs(config),
        versions=versions(),
        git=git_state(),
    )


def _train(config: RunConfig, folder: RunFolder, on_step: OnStep | None, on_warmup: Progress | None) -> None:
    import torch

    from cppo_lab.rollouts.build import engines
    from cppo_lab.tasks.build import build_task
    from cppo_lab.tasks.dapo_math import DapoMathTask
    from cppo_lab.training.loop import Parts, Trainer
    from cppo_lab.training.starting_policy import load_starting_policy, starting_policy

    torch.set_num_threads(config.trainer.threads)
    task = build_task(config.task)
    if isinstance(task, DapoMathTask):
        folder.update_info(data=asdict(task.data.counts))
    start = starting_policy(config, task, on_warmup)
    checkpoints = folder.checkpoints()
    policy = load_starting_policy(config, start, checkpoints[-1][1] if checkpoints else None)
    parameters = sum(parameter.numel() for parameter in policy.network.parameters())
    folder.update_info(
        starting_policy={"recipe": start.recipe, "seed": config.warmup.seed, "accuracy": start.accuracy},
        model={"name": config.model.name, "parameters": parameters},
    )
    reference = None
    if config.algo.requirements.needs_reference:
        reference = load_starting_policy(config, start).network.requires_grad_(False)
    with engines(config, policy, start.path) as (engine, judge):
        Trainer(config, Parts(task, policy, engine, judge, folder, reference), on_step).run()


def check_inputs(config: RunConfig) -> None:
    """Refuse local data files and model folders that cannot be read, before any work starts.

    Raises UserError. What the hub holds is checked when it is loaded.
    """
    from cppo_lab.tasks.build import check_local_files

    check_device("trainer.device", config.trainer.device)
    check_engine(config)
    model = config.model
    if isinstance(model, PretrainedModel) and is_local(model.path):
        check_model_folder(model.path)
    check_local_files(config.task)


def check_engine(config: RunConfig) -> None:
    """Refuse vLLM where it is not installed, or cannot serve the model."""
    if isinstance(config.engine, VllmEngine):
        from cppo_lab.rollouts.vllm.support import check_run

        check_run(config, config.engine)


def check_device(key: str, device: str) -> None:
    """Refuse a device that this machine does not have."""
    if device != "cuda":
        return
    import torch

    if not torch.cuda.is_available():
        raise UserError(f"{key}=cuda: this machine has no CUDA device; allowed are cpu and auto.")


# Below this no machine that runs the lab is asked what it has.
_SMALL_BYTES = 4 << 30


def check_memory(config: RunConfig) -> None:
    """Refuse a model whose weights, gradients and moments alone are more than this machine's device holds."""
    needed = state_bytes(config)
    if needed is None or needed < _SMALL_BYTES:
        return
    device = resolved_device(config.trainer.device)
    there = device_bytes(device)
    if needed > there:
        parameters = parameter_count(config) or 0
        key = f"model.path={config.model.path}" if isinstance(config.model, PretrainedModel) else "model"
        raise UserError(
            f"{key}: training {parameters / 1e9:.1f} billion parameters by {config.algo.name} holds "
            f"{needed / 2**30:.0f} GiB of weights, gradients and moments, on one device; {device} has "
            f"{there / 2**30:.0f} GiB here, enough for {parameters * there / needed / 1e9:.1f} billion at most."
        )


def device_bytes(device: str) -> int:
    """All memory of the device that the lab would use."""
    if device == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def writable(output: Path) -> None:
    """Refuse an output folder that cannot be written, before any work starts."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / ".write-test"
        probe.write_text("", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"paths.output={output}: cannot be written ({reason.lower()}).") from error
