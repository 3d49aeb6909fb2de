"""verl's synchronous trainer under a method of the lab: `trainer.v1.trainer_mode=cppo_lab +cppo_lab.algo=NAME`.

Data, agents, rewards, validation, learning-rate schedules, checkpoints and logging stay verl's. Advantages, masks,
minibatches of whole groups, and the loss are the method's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
import torch
import transfer_queue as tq
from tensordict import TensorDict
from torch import Tensor
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.workers.utils.padding import response_to_nested

from cppo_lab.diagnostics.metrics import Diagnostics, mismatch
from cppo_lab.integrations.verl.method_limits import refusals
from cppo_lab.integrations.verl.updates import Update, passed, token_batch
from cppo_lab.integrations.verl.workers import TrustRegionWorker
from cppo_lab.objectives import denominator, method, token_advantages, token_objective
from cppo_lab.objectives.advantages import zero_variance
from cppo_lab.objectives.overlong import overlong_penalty, without_truncated
from cppo_lab.objectives.spec import AlgoSpec

_FIELDS = ("uid", "prompts", "responses", "response_mask", "rm_scores", "rollout_log_probs", "old_log_probs")


@dataclass(frozen=True)
class Rows:
    """A step's responses, the rows of a group adjacent: B = N G rows of at most T tokens.

    `places` [B] are their places in verl's batch; `rewards` [N, G]; the others [B, T], 0 behind a response.
    """

    places: list[int]
    prompts: list[Tensor]
    responses: list[Tensor]
    rewards: Tensor
    response_mask: Tensor
    rollout_logp: Tensor
    old_logp: Tensor
    reference_logp: Tensor | None


@register_trainer("cppo_lab")
class TrustRegionTrainer(PPOTrainerSync):
    """The trainer. Raises ValueError for a method, or settings, that it cannot honour."""

    def __init__(self, config: Any) -> None:
        self.algo = _method(config)
        found = refusals(self.algo, config)
        if found:
            raise ValueError(found[0])
        self._rows: Rows | None = None
        super().__init__(config)

    def _build_replay_buffer(self) -> Any:
        # verl decides by the name of the mode what is synchronous.
        self.trainer_mode = "sync"
        return super()._build_replay_buffer()

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in self.role_worker_mapping:
            self.role_worker_mapping[role] = ray.remote(TrustRegionWorker)

    def _setup(self) -> None:
        super()._setup()
        self.actor_rollout_wg.set_method(self.algo, [])

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        self._rows = rows = self._fetch(batch)
        limit = self.config.data.max_response_length
        lengths = rows.response_mask.sum(-1)
        shaped = rows.rewards + overlong_penalty(lengths, limit, self.algo.overlong).view_as(rows.rewards)
        self._mask = without_truncated(rows.response_mask, self._truncated(rows), self.algo.overlong)
        self._live = torch.ones(len(shaped), dtype=torch.bool)
        if self.algo.dynamic_sampling.kind == "skip":
            self._live = ~zero_variance(shaped)
        self._advantages, _ = token_advantages(shaped, self._mask, self.algo.advantage)
        metrics |= mismatch(rows.old_logp, rows.rollout_logp, rows.response_mask)
        return self._put_advantages(batch, rows)

    def _fetch(self, batch: Any) -> Rows:
        """verl's batch without the rows that only fill it up."""
        fields = [*_FIELDS, *(["ref_log_prob"] if self.use_reference_policy else [])]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        uids = list(data["uid"])
        groups: dict[str, list[int]] = {}
        for place, (uid, tag) in enumerate(zip(uids, batch.tags, strict=True)):
            if not tag.get("is_padding", False):
                groups.setdefault(uid, []).append(place)
        sizes = {len(places) for places in groups.values()}
        if sizes != {self.config.actor_rollout_ref.rollout.n}:
            raise ValueError(
                f"groups of {sorted(sizes)} rows came from the agents: each prompt must have "
                f"rollout.n = {self.config.actor_rollout_ref.rollout.n} responses of one turn"
            )
        places = [place for each in groups.values() for place in each]
        prompts, responses = data["prompts"].unbind(), data["responses"].unbind()
        padded = data.exclude("uid", "prompts", "responses").to_padded_tensor()
        scores = padded["rm_scores"].sum(-1)[places]
        return Rows(
            places=places,
            prompts=[prompts[place] for place in places],
            responses=[responses[place] for place in places],
            rewards=scores.view(len(groups), -1),
            response_mask=padded["response_mask"][places].bool(),
            rollout_logp=padded["rollout_log_probs"][places],
            old_logp=padded["old_log_probs"][places],
            reference_logp=padded["ref_log_prob"][places] if self.use_reference_policy else None,
        )

    def _truncated(self, rows: Rows) -> Tensor:
        last = torch.stack([response[-1] for response in rows.responses])
        return last != self.tokenizer.eos_token_id

    def _put_advantages(self, batch: Any, rows: Rows) -> Any:
        """Give verl the advantages, which its own metrics read."""
        masks = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["response_mask"]
        )["response_mask"]
        width = max(int(masks.offsets().diff().max()), self._advantages.shape[1])
        whole = torch.zeros(len(batch.keys), width)
        whole[rows.places, : self._advantages.shape[1]] = self._advantages.float()
        nested = response_to_nested(whole, masks)
        fields = TensorDict({"advantages": nested, "returns": nested}, batch_size=len(batch.keys))
        return tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """All updates of a step; a group is never divided between minibatches."""
        diagnostics, losses, norms = Diagnostics(), [], []
        minibatches = list(self._minibatches())
        for number, groups in enumerate(minibatches, 1):
            loss, norm = self._update(groups, number == len(minibatches), diagnostics)
            losses.append(loss)
            norms.append(norm)
        if losses:
            metrics |= {"actor/loss": sum(losses) / len(losses), "actor/grad_norm": sum(norms) / len(norms)}
        metrics |= {name: value for name, value in diagnostics.result().items() if not math.isnan(value)}
        return batch

    def _minibatches(self) -> Iterator[list[int]]:
        actor = self.config.actor_rollout_ref.actor
        live = self._live.nonzero().flatten()
        for epoch in range(actor.ppo_epochs):
            order = live
            if actor.shuffle:
                # A seed of its own for each epoch of each step, so that a resumed run draws what it would have drawn.
                seed = (actor.data_loader_seed << 32) + self.global_steps * actor.ppo_epochs + epoch
                order = live[torch.randperm(len(live), generator=torch.Generator().manual_seed(seed))]
            for first in range(0, len(order), actor.ppo_mini_batch_size):
                yield order[first : first + actor.ppo_mini_batch_size].tolist()

    def _update(self, groups: list[int], is_last: bool, diagnostics: Diagnostics) -> tuple[float, float]:
        rows = self._rows
        assert rows is not None, "verl computes advantages before updates"
        size = rows.rewards.shape[1]
        picked = [group * size + each for group in groups for each in range(size)]
        columns = self._columns(rows, picked)
        steps = self.total_training_steps
        place = {
            "step": self.global_steps - 1,
            "progress": min(1.0, (self.global_steps - 1) / max(1, steps - 1)),
        }
        whole = float(denominator(columns["token_mask"], self.algo.aggregation))
        told = {
            "temperature": self.config.actor_rollout_ref.rollout.temperature,
            "calculate_entropy": True,
            "calculate_sum_pi_squared": self.algo.requirements.needs_collision,
            "vocabulary": len(self.tokenizer),
            "update": Update(None, whole, place),
            "update_lr_scheduler": is_last,
        }
        prompts = [rows.prompts[row] for row in picked]
        responses = [rows.responses[row] for row in picked]
        data = passed(prompts, responses, columns, told, self._world_size, self._passes)
        said = self.actor_rollout_wg.update_policy(data)
        said = {name: values[data["row"] >= 0] for name, values in said.items()}
        seen = token_batch(
            self.algo,
            columns | {"vocabulary": told["vocabulary"]},
            said["logp"],
            said.get("entropy"),
            said.get("collision"),
            None,
        )
        diagnostics.update(seen, token_objective(seen, self.algo, **place))
        return float(said["loss"][0]), float(said["grad_norm"][0])

    def _columns(self, rows: Rows, picked: list[int]) -> dict[str, Tensor]:
        """What the rules read of the rows `picked` [n] besides the policy, cut to their longest response."""
        width = max(len(rows.responses[row]) for row in picked)
        size = rows.rewards.shape[1]
        known: dict[str, Tensor | None] = {
            "token_mask": self._mask,
            "rollout_logp": rows.rollout_logp,
            "advantages": self._advantages,
            "old_logp": rows.old_logp,
            "reference_logp": rows.reference_logp,
            "version_lag": torch.zeros_like(rows.rollout_logp, dtype=torch.int64),
        }
        needs = self.algo.requirements
        for name, wanted in (
            ("weight_order", needs.needs_weight_order),
            ("selection_order", needs.needs_selection_order),
        ):
            if wanted:
                seed = (self.config.actor_rollout_ref.actor.data_loader_seed << 32) + self.global_steps
                generator = torch.Generator().manual_seed(seed)
                known[name] = torch.rand(rows.rollout_logp.T.shape, generator=generator).T
        found = {name: values[picked, :width] for name, values in known.items() if values is not None}
        return found | {
            "row": torch.arange(len(picked)),
            "prompt": torch.tensor([row // size for row in picked]),
        }

    @property
    def _world_size(self) -> int:
        return int(self.config.trainer.nnodes * self.config.trainer.n_gpus_per_node)

    @property
    def _passes(self) -> int | None:
        actor = self.config.actor_rollout_ref.actor
        return None if actor.use_dynamic_bsz else int(actor.ppo_micro_batch_size_per_gpu)


def _method(config: Any) -> AlgoSpec:
    own = config.get("cppo_lab", None)
    if own is None or not own.get("algo"):
        raise ValueError(
            "cppo_lab.algo: needs a method's name, or the path of its file: +cppo_lab.algo=cppo_binary"
        )
    return method(str(own.algo), max_response_length=int(config.data.max_response_length))
