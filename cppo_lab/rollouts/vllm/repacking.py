"""What vLLM's CPU backend leaves undone when it takes new weights."""

from __future__ import annotations

from torch import nn


def repack_for_cpu(model: nn.Module) -> None:
    """Bring the packed copies of vLLM's `model` up to date, once after each reload of all weights.

    The CPU kernels work on copies that `reload_weights` renews for plain linear layers only. A tied output head is
    packed by a module of its own, which a checkpoint without `lm_head.weight` never reaches; experts are packed when
    their kernel is first built, and a reload puts unpacked weights there. Both stay silently wrong. Packing is not
    idempotent. Does nothing on a GPU, which computes with the weights as they are loaded.
    """
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        pack_output_head(model)
        pack_experts(model)


def pack_output_head(model: nn.Module) -> None:
    """Pack the output head anew."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


def pack_experts(model: nn.Module) -> None:
    """Pack the experts of every layer anew."""
    for module in model.modules():
        kernel = getattr(getattr(module, "quant_method", None), "moe_kernel", None)
        if kernel is not None:
            kernel.fused_experts.process_weights_after_loading(module)
