"""Checks before any work starts: data and model files, the device, the engine, memory, and the output folder."""

from __future__ import annotations

from pathlib import Path

from cppo_lab.config.schema import RunConfig
from cppo_lab.config.size import parameter_count, state_bytes
from cppo_lab.errors import UserError
from cppo_lab.models.config import PretrainedModel
from cppo_lab.models.device import check_device, device_bytes, resolved_device
from cppo_lab.models.folders import check_model_folder, is_local


def check_inputs(config: RunConfig) -> None:
    """Raise UserError for local data files and model folders that cannot be read.

    Hub models and data sets are checked when they are loaded.
    """
    check_device("trainer.device", config.trainer.device)
    model = config.model
    if config.backend.kind == "verl":
        from cppo_lab.training.verl.launch import check

        check(config)
    else:
        config.engine.check(model, resolved_device(config.trainer.device))
    if isinstance(model, PretrainedModel) and is_local(model.path):
        from cppo_lab.training.asked_model import asked_model

        check_model_folder(model.path)
        config.task.asked_of(asked_model(model))
    config.task.check_files()


# Models that need less are not checked.
_SMALL_BYTES = 4 << 30


def check_memory(config: RunConfig) -> None:
    """Raise UserError if weights, gradients and optimizer moments alone exceed the memory of the device."""
    needed = state_bytes(config)
    if config.backend.kind == "verl":
        # Its devices are elsewhere, and each holds a share.
        return
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


def writable(output: Path) -> None:
    """Raise UserError for an output folder that cannot be written."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / ".write-test"
        probe.write_text("", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"paths.output={output}: cannot be written ({reason.lower()}).") from error
