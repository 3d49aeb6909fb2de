"""verl's workers with the lab's updates in them."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict
from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_name
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker
from verl.workers.utils.padding import no_padding_2_padding

from cppo_lab.integrations.verl.updates import Policies, Update, policy_loss
from cppo_lab.objectives import AlgoSpec


class GlooTrainingWorker(TrainingWorker):
    """A training worker whose process group is gloo where there is no accelerator.

    verl asks for "cpu:gloo,<device>:<backend>", which torch refuses when the device is the CPU itself.
    """

    def __init__(self, config: Any) -> None:
        if get_device_name() == "cpu" and not torch.distributed.is_initialized():
            torch.set_num_threads(1)
            torch.distributed.init_process_group(
                "gloo", rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"])
            )
        super().__init__(config)


class TrustRegionWorker(ActorRolloutRefWorker):
    """Actor, rollout and reference of verl, which also takes the lab's updates."""

    actor_worker_cls = GlooTrainingWorker
    ref_worker_cls = GlooTrainingWorker

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def set_method(self, algo: AlgoSpec, plugins: Sequence[str]) -> None:
        """The method of all updates, with its horizon filled in, and the plug-ins that its rules are from."""
        from cppo_lab.plugins import load_plugins

        load_plugins(plugins)
        self.algo = algo

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def update_policy(self, data: TensorDict) -> TensorDict:
        """One optimizer update; what the policy said of each row before it, with the loss and the gradient norm [n]."""
        update: Update = tu.pop(data, key="update")
        rows, width = data["row"].clone(), data["token_mask"].shape[1]
        kept = Policies(width)
        if update.lr is not None:
            for group in self.actor.engine.optimizer.param_groups:
                group["lr"] = update.lr
        self.actor.set_loss_fn(functools.partial(policy_loss, self.algo, update, kept))
        output = self.actor.train_batch(data)
        metrics = tu.get(output, "metrics")
        columns = kept.in_order(rows)
        for name in ("loss", "grad_norm"):
            columns[name] = torch.full((len(rows),), float(metrics[name]), dtype=torch.float64)
        return TensorDict(columns, batch_size=[len(rows)])

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def policy_logp(self, data: TensorDict) -> TensorDict:
        """log pi of the responses [n, T] under the present weights."""
        return _response_logp(self.actor, data)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="ref"))
    def reference_logp(self, data: TensorDict) -> TensorDict:
        """The same under the frozen reference."""
        return _response_logp(self.ref, data)


def _response_logp(worker: TrainingWorker, data: TensorDict) -> TensorDict:
    width = int(data["max_response_len"])
    inputs = data.select("input_ids", "prompts", "responses")
    output = worker.infer_batch(data)
    tu.assign_non_tensor_data(inputs, "max_response_len", width)
    logp = no_padding_2_padding(output["log_probs"], inputs).float().cpu()
    return TensorDict({"logp": logp}, batch_size=[len(logp)])
