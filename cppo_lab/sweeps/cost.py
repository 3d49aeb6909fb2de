"""What a run will cost: tokens, optimizer updates, and estimates of time and memory."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cppo_lab.config.schema import RunConfig
from cppo_lab.config.size import checkpoint_bytes, cost_key, disk_bytes, parameter_count, trained_networks
from cppo_lab.files import free_bytes
from cppo_lab.models.config import ScratchModel
from cppo_lab.models.device import resolved_device
from cppo_lab.sweeps.core_rate import core_flops
from cppo_lab.sweeps.gpu_cost import GpuCost, gpu_cost
from cppo_lab.sweeps.prompt_length import prompt_tokens
from cppo_lab.tracking.run_folder import run_folder

# Sustained rates in floating-point operations per second: of one processor core in the small products of a small model,
# and of one GPU.
_SMALL_CORE_FLOPS = 2.0e10
_GPU_FLOPS = 2.0e14
_SMALL_MODEL = 10_000_000
# A larger model's share of the rate at which this machine multiplies matrices, by its implementation: in sampling,
# which reads all weights for every token of a batch, and in updates. Measured with 134 million parameters and 64
# responses at once (benchmarks/results/decoder-smollm2-cpu.json).
_SHARES = {"lab": (0.75, 0.85), "transformers": (0.45, 0.4)}


@dataclass(frozen=True)
class Cost:
    """Upper bounds: responses may end early, groups may be dropped, and prompts may not need refilling.

    The time is estimated for one round of sampling per step. `gpu` is set for runs at GPU scale: their time is for the
    fewest H100s that hold the run, and their memory is per device.
    """

    rollouts: int
    tokens: int
    updates: int
    parameters: int | None
    time_s: float | None
    time_basis: str
    memory_bytes: int | None
    disk_bytes: int | None
    gpu: GpuCost | None = None


def cost(config: RunConfig, times: Mapping[str, float] | None = None) -> Cost:
    """The cost of the whole run that `config` describes; `times` are the `step_times` of its output folder."""
    trainer = config.trainer
    trained = trainer.steps * trainer.prompts_per_step * trainer.group_size
    sampling = config.algo.dynamic_sampling
    rollouts = trained * (sampling.max_rounds if sampling.kind == "refill" else 1)
    parameters = parameter_count(config)
    prompt = prompt_tokens(config)
    gpu = gpu_cost(config, prompt, rollouts)
    step_s = (step_times(config.paths.output) if times is None else times).get(cost_key(config))
    if step_s is not None:
        time_s, basis = step_s * trainer.steps, "finished runs of the same size in this output folder"
    elif gpu is not None:
        time_s, basis = gpu.h100_hours * 3600 / gpu.devices, "FLOP model of H100s"
    elif parameters is not None:
        is_measured = parameters >= _SMALL_MODEL and resolved_device(trainer.device) == "cpu"
        time_s = _estimated_time(config, parameters, trained, prompt)
        rate = " at the measured rate of this machine" if is_measured else ""
        basis = f"FLOP model{rate}, with every response at its limit"
    else:
        time_s, basis = None, "unknown model size"
    return Cost(
        rollouts=rollouts,
        tokens=rollouts * config.task.response_limit,
        updates=trainer.steps * trainer.updates_per_step,
        parameters=parameters,
        time_s=time_s,
        time_basis=basis,
        memory_bytes=_planned_memory(config, parameters, gpu, prompt),
        disk_bytes=disk_bytes(config),
        gpu=gpu,
    )


def _planned_memory(
    config: RunConfig, parameters: int | None, gpu: GpuCost | None, prompt: int
) -> int | None:
    if gpu is not None:
        return gpu.memory.peak
    return None if parameters is None else _memory(config, parameters, prompt)


def _estimated_time(config: RunConfig, parameters: int, rollouts: int, prompt: int) -> float:
    trainer = config.trainer
    per_rollout = prompt + config.task.response_limit
    evaluations = 1 + trainer.steps // trainer.evaluate_every
    problems = trainer.evaluation_problems or config.task.heldout_count
    greedy = 2 * problems * trainer.evaluate_greedy
    judged = evaluations * problems * config.task.heldout_sampling.samples + greedy
    # Two operations per parameter and token forward, twice that backward; the recomputation is one forward pass.
    sampling = 2 * parameters * (rollouts + judged) * per_rollout
    training = 2 * parameters * rollouts * per_rollout * (1 + 3 * trainer.epochs)
    sampling_rate, training_rate = _rates(config, parameters)
    # At a hundred thousand parameters the interpreter, not arithmetic, sets the pace: about 20 ms per update.
    overhead = 0.02 * trainer.steps * trainer.updates_per_step
    return sampling / sampling_rate + training / training_rate + overhead


def _rates(config: RunConfig, parameters: int) -> tuple[float, float]:
    """Operations per second in sampling and in updates."""
    if resolved_device(config.trainer.device) == "cuda":
        return _GPU_FLOPS, _GPU_FLOPS
    threads = config.trainer.threads
    if parameters < _SMALL_MODEL:
        return _SMALL_CORE_FLOPS * threads, _SMALL_CORE_FLOPS * threads
    sampling, training = _SHARES[config.model.implementation]
    return core_flops() * threads * sampling, core_flops() * threads * training


def needed_disk(configs: Sequence[RunConfig], jobs: int = 1) -> int:
    """Bytes that the checkpoints of runs will take beyond those that are there, with `jobs` runs at a time.

    A run that goes on keeps a second checkpoint, and the weights of two more best ones.
    """
    finished = sum(disk_bytes(config) or 0 for config in configs)
    while_training = sorted(
        ((checkpoint_bytes(config) or 0) + 8 * (parameter_count(config) or 0) for config in configs),
        reverse=True,
    )
    folders = [run_folder(config).path / "checkpoints" for config in configs]
    there = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    return max(0, finished + sum(while_training[:jobs]) - there)


def short_of_disk(configs: Sequence[RunConfig], output: Path, jobs: int = 1) -> str | None:
    """The sentence for runs whose checkpoints take more than the output folder's disk has free; None if they fit."""
    needed, free = needed_disk(configs, jobs), free_bytes(output)
    if needed <= free:
        return None
    return (
        f"{output}: the checkpoints of the runs to do take about {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB "
        "are free; give another --output, or run in parts. A run that finds no room stops, and goes on when there is "
        "some."
    )


def step_times(output: Path) -> dict[str, float]:
    """Median seconds per step of the finished runs of an output folder, by their cost key."""
    times: dict[str, list[float]] = {}
    for path in sorted((output / "runs").glob("*/run.json")):
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            continue
        if isinstance(info, dict) and info.get("status") == "FINISHED" and "cost_key" in info:
            times.setdefault(info["cost_key"], []).append(info["duration_s"] / info["steps"])
    return {key: statistics.median(each) for key, each in times.items()}


def _memory(config: RunConfig, parameters: int, prompt: int) -> int:
    """Networks, one microbatch's activations in the dtype that is computed in, and the interpreter; in bytes."""
    trainer = config.trainer
    rows = trainer.microbatch_sequences or trainer.prompts_per_minibatch * trainer.group_size
    tokens = trainer.tokens_at_once(rows, prompt + config.task.response_limit)
    layers, hidden = _shape(config)
    activations = tokens * layers * hidden * 34 * _computed_bytes(config)
    interpreter = (600 << 20) + config.engine.reserved_bytes
    return parameters * _bytes_per_parameter(config) + activations + interpreter


def _bytes_per_parameter(config: RunConfig) -> int:
    """Float32 weights, gradients and two moments of what is trained; engine copies; the reference."""
    needs = config.algo.requirements
    weights = config.engine.weights
    engine = 2 if weights == "bfloat16" else _computed_bytes(config) if weights == "same" else 4
    # The evaluation engine has its own copy where the rollout engine's weights are not the trainer's.
    evaluation = 0 if config.engine.is_exact else _computed_bytes(config)
    return 4 * 4 * trained_networks(config) + engine + evaluation + 4 * needs.needs_reference


def _computed_bytes(config: RunConfig) -> int:
    return 2 if config.model.dtype == "bfloat16" else 4


def _shape(config: RunConfig) -> tuple[int, int]:
    if isinstance(config.model, ScratchModel):
        return config.model.layers, config.model.width
    path = Path(config.model.path) / "config.json"
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        return int(content.get("num_hidden_layers", 28)), int(content.get("hidden_size", 2048))
    return 28, 2048
