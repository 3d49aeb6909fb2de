"""verl's workers and rollout servers, as the lab's loop asks them: update, reread, sample, save. Imports verl."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch
from tensordict import TensorDict
from torch import Tensor
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from cppo_lab.config.backend import VerlBackend
from cppo_lab.errors import UserError
from cppo_lab.integrations.verl import TrustRegionWorker
from cppo_lab.integrations.verl.updates import FILLER, Update, passed
from cppo_lab.objectives.spec import AlgoSpec
from cppo_lab.rollouts.rollout import Rollout, SamplingSettings, joined
from cppo_lab.training.verl.rollout import Share

SHARDS = "verl"
"""The folder of a checkpoint that holds what verl resumes from."""


class Cluster(PPOTrainerSync):
    """The parts of verl's trainer without its loop: no data loader, no replay buffer, no agents.

    `config` is verl's whole configuration. `passes` is the number of sequences of a forward pass on one device; None
    where verl packs them by tokens.
    """

    def __init__(self, config: Any, backend: VerlBackend, passes: int | None) -> None:
        super().__init__(config)
        self.backend, self._passes = backend, passes
        self._synced: int | None = None

    def _build_replay_buffer(self) -> None:
        """The lab's loop samples whole steps."""

    def _init_dataloader(self) -> None:
        """The lab's task gives the prompts."""

    def _load_checkpoint(self) -> None:
        """The lab's loop says which."""
        self.global_steps = 0

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in self.role_worker_mapping:
            self.role_worker_mapping[role] = ray.remote(TrustRegionWorker)

    def start(self, algo: AlgoSpec, plugins: Sequence[str]) -> None:
        """Start workers and servers, with the method (its horizon filled in) of all updates."""
        self._setup()
        self.actor_rollout_wg.set_method(algo, list(plugins))

    # Weights

    def sync(self, version: int) -> None:
        """Let the servers sample from the present weights, which are `version`."""
        if version != self._synced:
            self.checkpoint_manager.update_weights(version)
            self._synced = version

    def rest(self) -> None:
        """Let the servers give back the memory that updates need, where they hold any."""
        if self.config.actor_rollout_ref.rollout.free_cache_engine:
            self.checkpoint_manager.sleep_replicas()
            self._synced = None

    def save(self, folder: Path, *, to_resume: bool) -> None:
        """Write the weights in Hugging Face format, and what verl resumes from in a folder of it."""
        shards = folder / SHARDS
        self.actor_rollout_wg.save_checkpoint(str(shards))
        for path in (shards / "huggingface").iterdir():
            path.rename(folder / path.name)
        (shards / "huggingface").rmdir()
        if not to_resume:
            shutil.rmtree(shards)

    def load(self, folder: Path) -> None:
        """Continue from a checkpoint. Raises UserError if other workers than these wrote it."""
        size = self.backend.world_size
        if not list((folder / SHARDS).glob(f"model_world_size_{size}_rank_*.pt")):
            found = sorted((folder / SHARDS).glob("model_world_size_*_rank_0.pt"))
            others = found[0].name.split("_")[3] if found else "no"
            raise UserError(
                f"{folder}: was written by {others} workers of verl, and the run has {size} now; resume it with as "
                "many, or train it anew in another output folder."
            )
        self.actor_rollout_wg.load_checkpoint(str(folder / SHARDS))

    # Passes through the model

    def update(
        self, rollout: Rollout, columns: Mapping[str, Tensor], update: Update, metadata: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """One optimizer update on a rollout's rows [n]; what the policy said of them before it, [n, T, ...]."""
        told = {"update": update, "calculate_entropy": True, **metadata}
        data = self._passed(rollout, columns, told)
        found: TensorDict = self.actor_rollout_wg.update_policy(data)
        kept = data["row"] != FILLER
        return {name: values[kept] for name, values in found.items()}

    def logp(self, rollout: Rollout, *, temperature: float, reference: bool = False) -> Tensor:
        """log pi of a rollout's tokens [B, T], 0 at padding; under the frozen reference if asked."""
        told = {"temperature": temperature, "compute_loss": False, "calculate_entropy": False}
        data = self._passed(rollout, {}, told)
        group = self.actor_rollout_wg
        found = group.reference_logp(data) if reference else group.policy_logp(data)
        logp: Tensor = found["logp"][: len(rollout.logp), : rollout.logp.shape[1]]
        return logp * rollout.response_mask

    def _passed(
        self, rollout: Rollout, columns: Mapping[str, Tensor], metadata: Mapping[str, Any]
    ) -> TensorDict:
        width = rollout.prompt_width
        pairs = zip(rollout.tokens[:, :width], rollout.attention_mask[:, :width], strict=True)
        prompts = [row[mask] for row, mask in pairs]
        responses = [row[mask] for row, mask in zip(rollout.responses, rollout.response_mask, strict=True)]
        rows = {"row": torch.arange(len(prompts)), **columns}
        return passed(prompts, responses, rows, metadata, self.backend.world_size, self._passes)


class RemoteEngine:
    """The lab's engine interface over the rollout servers of a cluster.

    Rows are dealt out in order, and no response's draws depend on where it is sampled. `exact`: from the weights as
    they are, whatever format rollouts are sampled in.
    """

    def __init__(self, cluster: Cluster, *, end: int, pad: int, exact: bool) -> None:
        self._cluster, self._share = cluster, Share(0, exact, end, pad)
        self._servers = [each.server_handle for each in cluster.llm_server_manager.get_replicas()]

    def load_weights(self, policy: torch.nn.Module, version: int) -> None:
        """See `RolloutEngine.load_weights`; the weights come from the workers."""
        self._cluster.sync(version)

    def sample(self, prompts: Sequence[Sequence[int]], settings: SamplingSettings) -> Rollout:
        """See `Sampler.sample`. How far it is is told at the start and the end alone."""
        if settings.on_tokens is not None:
            settings.on_tokens(0, len(prompts) * settings.max_new_tokens)
        size = math.ceil(len(prompts) / len(self._servers))
        calls = []
        for server, first in zip(self._servers, range(0, len(prompts), size), strict=False):
            part, seeds = slice(first, first + size), settings.row_seeds
            own = replace(settings, on_tokens=None, row_seeds=None if seeds is None else seeds[part])
            calls.append(server.sample.remote(prompts[part], own, replace(self._share, first=first)))
        rollout = joined(ray.get(calls), self._share.pad)
        if settings.on_tokens is not None:
            sampled = int(rollout.response_mask.sum())
            settings.on_tokens(sampled, sampled)
        return rollout

    def rest(self) -> None:
        """See `RolloutEngine.rest`."""
        self._cluster.rest()

    def close(self) -> None:
        """See `Sampler.close`; Ray ends the servers."""
