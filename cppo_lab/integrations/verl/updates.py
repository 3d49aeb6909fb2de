"""What travels between the driver and verl's workers for an update: rows with all that the rules read, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.tensorclass import NonTensorData
from torch import Tensor
from torch.nn.functional import pad
from verl.workers.utils.padding import no_padding_2_padding

from cppo_lab.objectives import AlgoSpec, TokenBatch, TopK, aggregate, token_objective

PER_TOKEN = (
    "rollout_logp",
    "advantages",
    "old_logp",
    "reference_logp",
    "weight_order",
    "rollout_entropy",
    "version_lag",
    "selection_order",
)
"""Fields of a `TokenBatch` [B, T] that the driver knows; they travel under their names."""


FILLER = -1
"""The number of rows that only make minibatches divisible."""


@dataclass(frozen=True)
class Update:
    """What is the same for all rows of an update: the learning rate, the method, and where its schedules are.

    `denominator` is that of the whole minibatch, over all workers; without an `lr`, verl's own schedule decides.
    """

    lr: float | None
    denominator: float
    place: Mapping[str, Any]


def nested(rows: Sequence[Tensor]) -> Tensor:
    """Rows [n_i] of different lengths as verl's jagged tensor."""
    return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)


def model_inputs(prompts: Sequence[Tensor], responses: Sequence[Tensor]) -> dict[str, Tensor]:
    """verl's inputs of a forward pass over prompts and responses, int64 [p_i] and [r_i]."""
    together = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
    return {
        "input_ids": nested(together),
        "position_ids": nested([torch.arange(len(row)) for row in together]),
        "prompts": nested(prompts),
        "responses": nested(responses),
    }


def passed(
    prompts: Sequence[Tensor],
    responses: Sequence[Tensor],
    columns: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    world_size: int,
    sequences: int | None,
) -> TensorDict:
    """Rows [n] as verl's workers take them, filled up to a number that all devices share in whole passes.

    `columns` are of the rows, `row` their numbers; `metadata` holds for all. `sequences` is the number of rows of a
    forward pass on one device; None where verl packs them by tokens. Rows that fill up have the number `FILLER` and no
    tokens.
    """
    count = len(prompts)
    share = math.ceil(count / world_size)
    at_once = None if sequences is None else min(sequences, share)
    if at_once is not None:
        share = math.ceil(share / at_once) * at_once
    whole = torch.arange(share * world_size)
    order, filler = whole.clamp(max=count - 1), whole >= count
    tensors = {name: values[order] for name, values in columns.items()}
    tensors["row"] = tensors["row"].masked_fill(filler, FILLER)
    if "token_mask" in tensors:
        tensors["token_mask"] = tensors["token_mask"] & ~filler.unsqueeze(-1)
    tensors |= model_inputs([prompts[i] for i in order], [responses[i] for i in order])
    width = max(map(len, responses))
    # verl counts its tokens by this mask; the lab's denominators do not.
    tensors["loss_mask"] = torch.ones(len(order), width, dtype=torch.int64)
    data = TensorDict(tensors, batch_size=[len(order)])
    told = {"max_response_len": width, "global_token_num": None, **metadata}
    if at_once is not None:
        told |= {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": at_once}
    for name, value in told.items():
        data[name] = NonTensorData(value)
    return data


@dataclass
class Policies:
    """What the policy said of the rows of an update, kept over its micro-batches by row number."""

    width: int
    rows: list[Tensor] = field(default_factory=list)
    columns: dict[str, list[Tensor]] = field(default_factory=dict)

    def keep(self, rows: Tensor, **columns: Tensor | None) -> None:
        """Take note of micro-batch `rows` [b]; columns [b, T, ...]."""
        self.rows.append(rows.cpu())
        for name, values in columns.items():
            if values is not None:
                self.columns.setdefault(name, []).append(values.detach().float().cpu())

    def in_order(self, rows: Tensor) -> dict[str, Tensor]:
        """The columns of all micro-batches in the order of `rows` [n]."""
        found = torch.cat(self.rows)
        # Rows that only fill up share a number, and nobody reads what comes back of them.
        place = {int(row): index for index, row in enumerate(found)}
        order = torch.tensor([place[int(row)] for row in rows.cpu()])
        return {name: torch.cat(values)[order] for name, values in self.columns.items()}


def policy_loss(
    algo: AlgoSpec,
    update: Update,
    kept: Policies,
    model_output: Mapping[str, Any],
    data: TensorDict,
    dp_group: Any = None,
) -> tuple[Tensor, dict[str, Any]]:
    """A micro-batch's share of the loss of an update, in verl's signature of a loss function.

    FSDP averages gradients over the workers, and the denominator is that of all of them.
    """

    def of_responses(name: str) -> Tensor | None:
        if name not in model_output:
            return None
        values = no_padding_2_padding(model_output[name], data).float()
        return pad(values, (0, kept.width - values.shape[1]))

    logp = of_responses("log_probs")
    assert logp is not None, "verl computes log-probabilities for every loss"
    entropy, collision = of_responses("entropy"), of_responses("sum_pi_squared")
    topk_logp: Tensor | None = model_output.get("topk_logp")
    kept.keep(data["row"], logp=logp, entropy=entropy, collision=collision, topk_logp=topk_logp)
    batch = token_batch(algo, data, logp, entropy, collision, topk_logp)
    objective = token_objective(batch, algo, **update.place)
    whole = torch.tensor(update.denominator, device=logp.device)
    loss = aggregate(objective.loss, batch.response_mask, algo.aggregation, whole)
    return loss * data["dp_size"], {}


def token_batch(
    algo: AlgoSpec,
    data: Mapping[str, Any],
    logp: Tensor,
    entropy: Tensor | None,
    collision: Tensor | None,
    topk_logp: Tensor | None,
) -> TokenBatch:
    """What the rules read, from the rows that travelled and what the policy says of them."""
    mask: Tensor = data["token_mask"]
    columns = {name: data[name] for name in PER_TOKEN if name in data}
    topk = None
    if topk_logp is not None:
        contains = (data["topk_ids"] == data["sampled"].unsqueeze(-1)).any(-1)
        topk = TopK(data["rollout_topk_logp"], topk_logp, contains)
    if entropy is not None and not algo.requirements.needs_entropy:
        entropy = entropy.detach()
    return TokenBatch(
        logp=logp,
        response_mask=mask,
        entropy=entropy,
        collision=None if collision is None else collision.detach(),
        topk=topk,
        prompt=data["prompt"],
        vocabulary=int(data["vocabulary"]),
        **columns,
    )
