"""verl's own FSDP engines, on a CPU as well, and with the policy's log-probabilities of the sampler's top K tokens."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nn.functional import pad
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead


class TrustRegionEngine(FSDPEngineWithLMHead):
    """Its model output has `topk_logp` [b, T, K] where a micro-batch has `topk_ids` [b, T, K]."""

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, Any]:
        """See verl; before it divides the logits by the temperature, in place."""
        topk = None
        if "topk_ids" in micro_batch and torch.is_grad_enabled():
            topk = _topk_logp(output.logits.detach(), output_args, micro_batch)
        found: dict[str, Any] = super().prepare_model_outputs(
            output, output_args, micro_batch, logits_processor_func
        )
        return found if topk is None else found | {"topk_logp": topk}


def _topk_logp(logits: Tensor, output_args: dict[str, Any], micro_batch: TensorDict) -> Tensor:
    """log pi of `topk_ids` [b, T, K], 0 behind a response, from logits [b, L, V] or packed ones [1, N, V]."""
    ids: Tensor = micro_batch["topk_ids"]
    offsets = micro_batch["input_ids"].offsets().tolist()
    prompts = micro_batch["prompts"].offsets().diff().tolist()
    packed = "temperature" not in output_args
    rows = []
    for row, (start, end, prompt) in enumerate(zip(offsets[:-1], offsets[1:], prompts, strict=True)):
        length = end - start - prompt
        own = logits[0, start:end] if packed else logits[row]
        scale = output_args["temperature_rmpad"][start] if packed else output_args["temperature"][row]
        # The logits at a position say what comes next.
        own = own[prompt - 1 : prompt - 1 + length].float() / scale
        found = own.gather(-1, ids[row, :length]) - own.logsumexp(-1, keepdim=True)
        rows.append(pad(found, (0, 0, 0, ids.shape[1] - length)))
    return torch.stack(rows)


# A vendor's own key is looked up before verl's, which has none.
EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")(
    TrustRegionEngine
)
EngineRegistry.register(
    model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor="nvidia"
)(TrustRegionEngine)
