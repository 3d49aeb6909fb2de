"""What a run on GPUs will cost: H100-hours by a FLOP model, and memory per device."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cppo_lab.config.schema import RunConfig
from cppo_lab.config.size import trained_networks
from cppo_lab.models.config import PretrainedModel
from cppo_lab.models.device import resolved_device
from cppo_lab.models.shapes import ModelShape, known_shape

# Models with fewer parameters are planned for the CPU; without a GPU, those with fewer than the second number too.
_GPU_SCALE, _CPU_SCALE = 100_000_000, 1_000_000_000
_H100_FLOPS = 989e12
"""Dense bfloat16 rate of an H100 SXM5 (its data sheet), floating-point operations per second."""
_TRAINING_UTILISATION = 0.35
_SAMPLING_UTILISATION = 0.10
_DEVICE_BYTES = 80 << 30
# The rest is left for CUDA itself and for fragmentation.
_USABLE = 0.95
# If so many are not enough, one microbatch is too large for any number.
_MOST_DEVICES = 1024
# Float32 weights and gradients, and AdamW's two moments.
_TRAINED_BYTES = 4 * 4
# Activations of one layer per token and unit of width without flash attention's maps, in numbers (Korthikanti et al.
# 2022, arXiv:2205.05198, Eq. 2: 34 bytes at two bytes each).
_LAYER_NUMBERS = 17

FLOP_MODEL = (
    "H100-hours: with 2N the operations of a token's forward pass (twice its active parameters, and attention over "
    "half a response), 6N operations per trained token and epoch (8N if activations are recomputed) and 2N to "
    f"recompute a rollout's log-probabilities, at {_TRAINING_UTILISATION:.0%} of an H100's {_H100_FLOPS / 1e12:.0f} "
    f"TFLOP/s in bfloat16, and 2N per sampled token, evaluations included, at {_SAMPLING_UTILISATION:.0%}; every "
    "response is assumed to reach its length limit, and both utilisations are assumptions, not measurements."
)
MEMORY_MODEL = (
    "Memory: float32 weights, gradients and AdamW's moments (sharded evenly over several devices), plus the larger of "
    "one microbatch's activations with a bfloat16 copy of the weights, and the rollout engine's memory while sampling."
)


@dataclass(frozen=True)
class GpuMemory:
    """Bytes per device; `peak` is `states` and the larger of `training` and `sampling`.

    `states` are weights, gradients, moments and every permanent copy of the weights; `training` is what an update needs
    in addition, and `sampling` what the rollout engine needs. Its `kv_cache` holds, over all devices, so many
    `sequences` of full length.
    """

    states: int
    training: int
    sampling: int
    kv_cache: int
    sequences: int

    @property
    def peak(self) -> int:
        """The most that is needed at any time."""
        return self.states + max(self.training, self.sampling)


@dataclass(frozen=True)
class GpuCost:
    """Upper bounds. `memory` is per device when sharded over `devices`, the fewest 80 GiB devices that hold the run;
    `one_device_bytes` is for a single device.
    """

    active_parameters: int
    h100_hours: float
    h100_hours_sampling: float
    sampled_tokens: int
    evaluation_tokens: int
    devices: int
    fits_one_device: bool
    one_device_bytes: int
    memory: GpuMemory


def gpu_cost(config: RunConfig, prompt_tokens: int, rollouts: int) -> GpuCost | None:
    """The cost of a run at GPU scale; None for a smaller model, a model of unknown size, or a run on a CPU.

    `rollouts` is the largest number of responses sampled for training; a prompt has about `prompt_tokens`.
    """
    model = config.model
    shape = known_shape(model.path) if isinstance(model, PretrainedModel) else None
    if not isinstance(model, PretrainedModel) or shape is None or shape.parameters < _GPU_SCALE:
        return None
    if config.trainer.device == "cpu" or (
        shape.parameters < _CPU_SCALE and resolved_device(config.trainer.device) == "cpu"
    ):
        return None
    trainer = config.trainer
    per_response = prompt_tokens + config.task.response_limit
    evaluations = 1 + math.ceil(trainer.steps / trainer.evaluate_every)
    problems = min(trainer.evaluation_problems or config.task.heldout_count, config.task.heldout_count)
    evaluated = evaluations * problems * config.task.heldout_sampling.samples
    trained = trainer.steps * trainer.prompts_per_step * trainer.group_size * per_response
    needs = config.algo.requirements
    forward = 2 * shape.multiplied_parameters + shape.attention_operations(per_response)
    recomputed = 1 + needs.needs_reference
    per_update = 3 + model.gradient_checkpointing
    networks = trained_networks(config)
    training = trained * forward * (recomputed + networks * trainer.epochs * per_update)
    sampling = (rollouts + evaluated) * per_response * forward
    sampling_s = sampling / (_H100_FLOPS * _SAMPLING_UTILISATION)
    hours = (training / (_H100_FLOPS * _TRAINING_UTILISATION) + sampling_s) / 3600
    devices = _fewest_devices(config, shape, per_response)
    one = _memory(config, shape, per_response, 1)
    return GpuCost(
        active_parameters=shape.active_parameters,
        h100_hours=hours,
        h100_hours_sampling=sampling_s / 3600,
        sampled_tokens=rollouts * config.task.response_limit,
        evaluation_tokens=evaluated * config.task.response_limit,
        devices=devices,
        fits_one_device=devices == 1,
        one_device_bytes=one.peak,
        memory=_memory(config, shape, per_response, devices),
    )


def _fewest_devices(config: RunConfig, shape: ModelShape, per_response: int) -> int:
    for devices in range(1, _MOST_DEVICES):
        memory = _memory(config, shape, per_response, devices)
        if memory.peak <= _USABLE * _DEVICE_BYTES and memory.sequences:
            return devices
    return _MOST_DEVICES


def _memory(config: RunConfig, shape: ModelShape, per_response: int, devices: int) -> GpuMemory:
    assert isinstance(config.model, PretrainedModel)
    needs, trainer = config.algo.requirements, config.trainer
    networks = trained_networks(config)
    number = 2 if config.model.dtype == "bfloat16" else 4
    weights = config.engine.weights
    held = 2 if weights == "bfloat16" else number if weights == "same" else 4
    # An evaluation engine of its own keeps its copy, as the rollout engine does unless it frees the memory.
    copies = (0 if config.engine.frees_gpu_memory else held) + (0 if config.engine.is_exact else number)
    states = shape.parameters * (_TRAINED_BYTES * networks + 4 * needs.needs_reference + copies)
    rows = trainer.microbatch_sequences or trainer.prompts_per_minibatch * trainer.group_size
    layer = _LAYER_NUMBERS * shape.width * number
    if config.model.gradient_checkpointing:
        # Every layer's input is kept; the rest of one layer at a time is recomputed.
        per_token = shape.layers * shape.width * number + layer
    else:
        per_token = shape.layers * layer
    # Autocast keeps the weights that it has cast until the update is done.
    cast = shape.parameters * number if number == 2 else 0
    share = config.engine.gpu_memory_share
    if share is not None:
        # The engine takes its share whatever the model; what its weights leave is for keys and values.
        sampling = int(share * _DEVICE_BYTES)
        cache = max(0, sampling - shape.parameters * held // devices)
        sequences = cache * devices // (shape.kv_bytes_per_token(number) * per_response)
    else:
        at_once = min(config.engine.batch_size, trainer.prompts_per_step * trainer.group_size)
        sequences = at_once
        cache = math.ceil(at_once / devices) * per_response * shape.kv_bytes_per_token(number)
        sampling = cache
    return GpuMemory(
        states=states // devices,
        training=cast // devices + trainer.tokens_at_once(rows, per_response) * per_token,
        sampling=sampling,
        kv_cache=cache,
        sequences=sequences,
    )
