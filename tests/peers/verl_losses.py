"""verl's registered policy losses, called with the lab's batches."""

from typing import Any

import torch
from peer_batches import HORIZON, Result, gradient
from torch import Tensor
from verl.trainer.ppo import core_algos
from verl.workers.config import ActorConfig

from cppo_lab.objectives import TokenBatch

AGGREGATIONS = {
    "token_mean": "token-mean",
    "sequence_mean_token_mean": "seq-mean-token-mean",
    "sequence_mean_token_sum": "seq-mean-token-sum",
    "sequence_mean_token_sum_norm": "seq-mean-token-sum-norm",
}
NEVER = 1e30
"""A dual clip or cap that nothing reaches; verl has no other way to switch either off."""


def clip(low: float, high: float, cap: float = NEVER) -> dict[str, float]:
    """verl's three keys of the window, which its defaults (0.2 and 3) fill in where one is left out."""
    return {"clip_ratio": low, "clip_ratio_low": low, "clip_ratio_high": high, "clip_ratio_c": cap}


def config(horizon: int | None = HORIZON, **fields: Any) -> ActorConfig:
    actor = ActorConfig(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, **fields)
    actor.global_batch_info.update(loss_scale_factor=horizon)
    return actor


def call(
    name: str,
    batch: TokenBatch,
    aggregation: str = "token_mean",
    *,
    anchor: str = "old",
    weights: Tensor | None = None,
    mask: Tensor | None = None,
    actor: ActorConfig | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """The loss with its graph, and verl's metrics; `anchor` says what goes into `old_log_prob`.

    The mask is an integer tensor, as in verl's own batches: its row lengths plus 1e-8 then round to the
    lengths.
    """
    chosen = batch.response_mask.long() if mask is None else mask
    return core_algos.get_policy_loss_fn(name)(
        old_log_prob=batch.rollout_logp if anchor == "rollout" else batch.old_logp,
        log_prob=batch.logp,
        advantages=batch.advantages.unsqueeze(-1).expand(batch.logp.shape),
        response_mask=chosen,
        loss_agg_mode=AGGREGATIONS[aggregation],
        config=config() if actor is None else actor,
        rollout_is_weights=weights,
    )


def theirs(name: str, batch: TokenBatch, aggregation: str = "token_mean", **options: Any) -> Result:
    """Loss and gradient of a registered policy loss."""
    return gradient(call(name, batch, aggregation, **options)[0], batch)


def metrics(name: str, batch: TokenBatch, **options: Any) -> dict[str, Any]:
    with torch.no_grad():
        return call(name, batch, **options)[1]
