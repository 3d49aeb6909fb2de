"""Checks, before any work starts, that vLLM can serve a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cppo_lab.errors import UserError
from cppo_lab.models.config import ModelConfig, PretrainedModel, ScratchModel
from cppo_lab.models.folders import is_local
from cppo_lab.rollouts.vllm.isolation import Isolation

# The CPU kernels of experts work on so many columns at a time.
_CPU_EXPERT_COLUMNS = 32


def check_run(model: ModelConfig, device: str, enforce_eager: bool | None) -> None:
    """Raise UserError where vLLM cannot serve `model` on `device`. A hub model is checked when it is loaded."""
    if device == "cpu" and enforce_eager is False:
        raise UserError("engine.enforce_eager=false: only a GPU has graphs to capture; give null or true.")
    if isinstance(model, ScratchModel):
        _check_experts(model, device)
    elif is_local(model.path):
        check_folder(model, device)


def _check_experts(model: ScratchModel, device: str) -> None:
    widths = {"model.width": model.width, "model.expert_feed_forward": model.expert_feed_forward}
    for key, value in widths.items():
        if model.experts and device == "cpu" and value % _CPU_EXPERT_COLUMNS:
            raise UserError(
                f"{key}={value}: must be a multiple of {_CPU_EXPERT_COLUMNS} for vLLM's mixture of experts on a CPU."
            )


def check_folder(model: PretrainedModel, device: str) -> None:
    """Raise UserError where vLLM cannot serve the model in a local folder."""
    content = json.loads((Path(model.path).expanduser() / "config.json").read_text(encoding="utf-8"))
    check_served(f"model {model.path}", content, device)


def check_served(name: str, config: Mapping[str, Any], device: str) -> None:
    """Raise UserError, starting with `name`, unless vLLM supports the architecture and, on a CPU, its head size.

    `config` is the content of a model's config.json.
    """
    architectures = config.get("architectures") or []
    if not set(architectures) & _architectures():
        raise UserError(
            f"{name}: vLLM does not support {', '.join(architectures) or 'a model without an architecture'}."
        )
    heads = config.get("num_attention_heads")
    size = config.get("head_dim") or (config["hidden_size"] // heads if heads else None)
    allowed = _cpu_head_sizes() if size and device == "cpu" else []
    if allowed and size not in allowed:
        raise UserError(
            f"{name}: vLLM has no CPU kernel for attention heads of size {size}; "
            f"supported are {', '.join(map(str, allowed))}."
        )


def _architectures() -> set[str]:
    with Isolation().inside():
        from vllm import ModelRegistry

        return set(ModelRegistry.get_supported_archs())


def _cpu_head_sizes() -> list[int]:
    with Isolation().inside():
        from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

        return list(CPUAttentionBackend.get_supported_head_sizes())
