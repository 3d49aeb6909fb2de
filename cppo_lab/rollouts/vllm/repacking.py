"""Repacking of weights that vLLM's CPU backend omits when it loads new ones."""

from __future__ import annotations

from torch import nn


def repack_for_cpu(model: nn.Module) -> None:
    """Update the packed copies of weights in vLLM's `model`. Call it once after each reload of all weights.

    The CPU kernels use packed copies, which `reload_weights` updates for plain linear layers only. A tied output head
    is packed by a module that a checkpoint without `lm_head.weight` never reaches; experts are packed when their kernel
    is first built, and a reload leaves unpacked weights there. Both give wrong results without an error. Packing is not
    idempotent. Does nothing on a GPU, which needs no packing.
    """
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        pack_output_head(model)
        pack_experts(model)


def pack_output_head(model: nn.Module) -> None:
    """Repack the output head."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


def pack_experts(model: nn.Module) -> None:
    """Repack the experts of every layer."""
    for module in model.modules():
        kernel = getattr(getattr(module, "quant_method", None), "moe_kernel", None)
        if kernel is not None:
            kernel.fused_experts.process_weights_after_loading(module)
