"""A rollout of verl that samples by the lab's own engine: `actor_rollout_ref.rollout.name=cppo_lab`.

One actor per replica holds the weights in the format that the run asks for, and once more as they are, for evaluation.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray
import torch
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

from cppo_lab.integrations.verl.private import register_rollout_adapter
from cppo_lab.rollouts.rollout import Rollout, SamplingSettings

NAME = "cppo_lab"
DEFAULTS = {"device": "cpu", "implementation": "transformers", "weights": "same", "batch_size": 512}
_GATHERING_S = 0.05
"""How long a server waits for more requests before it samples."""


@dataclass(frozen=True)
class Share:
    """What a server is told of its part of a rollout: `first` prompts come before it in the whole.

    `exact`: from the weights as they are, whatever format rollouts are sampled in. `end` and `pad` are tokens.
    """

    first: int
    exact: bool
    end: int
    pad: int


def server_name(rank: int) -> str:
    """The name of a replica's actor."""
    return f"{NAME}_server_{rank}"


class Server:
    """The lab's engines over one copy of the policy, `settings` being the configuration's `rollout.custom`."""

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        from cppo_lab.models.implementation import implement
        from cppo_lab.models.loading import load_policy
        from cppo_lab.rollouts.native import NativeEngine

        torch.set_num_threads(1)
        self.policy = load_policy(path, device=settings["device"])
        implement(self.policy.network, settings["implementation"])
        build = partial(
            NativeEngine,
            self.policy.network,
            pad_token=self.policy.pad_token,
            eos_token=self.policy.eos_token,
            batch_size=settings["batch_size"],
        )
        self._limit = settings["response_length"]
        self._asked: list[tuple[list[int], float, asyncio.Future[TokenOutput]]] = []
        self._answering: asyncio.Task[None] | None = None
        # Replicas draw apart from each other.
        self._drawn = settings["rank"] << 32
        self.exact = build()
        self.engine = self.exact if settings["weights"] == "same" else build(weights=settings["weights"])

    def ready(self) -> bool:
        """True once the actor exists."""
        return True

    def load(self, state: dict[str, Any], version: int) -> int:
        """Take over weights by their names; the number of those known here."""
        known = dict(self.policy.network.named_parameters())
        taken = 0
        with torch.no_grad():
            for name, value in state.items():
                if name in known:
                    known[name].copy_(value)
                    taken += 1
        if taken < len(known):
            raise ValueError(f"{len(known) - taken} of {len(known)} weights did not come with the update")
        for engine in {id(each): each for each in (self.engine, self.exact)}.values():
            engine.load_weights(self.policy.network, version)
        return taken

    def sample(self, prompts: Sequence[Sequence[int]], settings: SamplingSettings, share: Share) -> Rollout:
        """One response to each prompt."""
        engine = self.exact if share.exact else self.engine
        return engine.sample(prompts, replace(settings, rows_before=share.first))

    async def generate(
        self, prompt_ids: Sequence[int], sampling_params: dict[str, Any], request_id: str, **_: Any
    ) -> TokenOutput:
        """One response to one prompt, as verl's own agents ask; what comes in together is sampled together."""
        answer: asyncio.Future[TokenOutput] = asyncio.get_running_loop().create_future()
        temperature = float(sampling_params.get("temperature", 1.0))
        self._asked.append((list(prompt_ids), temperature, answer))
        if self._answering is None or self._answering.done():
            self._answering = asyncio.create_task(self._answer_all())
        return await answer

    async def _answer_all(self) -> None:
        while self._asked:
            await asyncio.sleep(_GATHERING_S)
            asked, self._asked = self._asked, []
            for temperature in sorted({each for _, each, _ in asked}):
                alike = [(prompt, answer) for prompt, each, answer in asked if each == temperature]
                try:
                    outputs = self._outputs([prompt for prompt, _ in alike], temperature)
                except Exception as error:
                    for _, answer in alike:
                        answer.set_exception(error)
                else:
                    for (_, answer), output in zip(alike, outputs, strict=True):
                        answer.set_result(output)

    def _outputs(self, prompts: list[list[int]], temperature: float) -> list[TokenOutput]:
        self._drawn += 1
        settings = SamplingSettings(
            max_new_tokens=self._limit,
            temperature=temperature or 1.0,
            greedy=temperature == 0,
            stop_tokens=self.policy.stop_tokens,
            seed=self._drawn,
        )
        rollout = self.engine.sample(prompts, settings)
        rows = zip(rollout.responses, rollout.logp, rollout.response_mask, strict=True)
        version = {"global_steps": rollout.policy_version}
        return [
            TokenOutput(
                token_ids=tokens[mask].tolist(),
                log_probs=logp[mask].tolist(),
                stop_reason="completed",
                extra_fields=dict(version),
            )
            for tokens, logp, mask in rows
        ]

    def nothing(self, *_: Any, **__: Any) -> None:
        """There is nothing to wake, to put to sleep or to abort."""

    wake_up = sleep = clear_kv_cache = release_kv_cache = resume_kv_cache = nothing
    abort_all_requests = resume_generation = nothing


class Replica(RolloutReplica):
    """Starts the server of one replica beside the workers."""

    async def launch_servers(self) -> None:
        """See `RolloutReplica`."""
        settings = DEFAULTS | dict(self.config.custom or {})
        settings |= {"response_length": self.config.response_length, "rank": self.replica_rank}
        actor = ray.remote(Server).options(name=server_name(self.replica_rank), num_cpus=0)
        server = actor.remote(self.model_config.path, settings)
        await server.ready.remote()
        self.servers.append(server)
        self._server_handle, self._server_address = server, server_name(self.replica_rank)


class Adapter(BaseRollout):
    """The worker's side: the first worker of a replica pushes the weights to its server."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        super().__init__(config, model_config, device_mesh)
        self.replica_rank = int(os.environ["RANK"]) if replica_rank == -1 else replica_rank
        self.sleep_level = 1

    async def resume(self, tags: list[str]) -> None:
        """See `BaseRollout`; the server never rests."""

    async def release(self) -> None:
        """See `BaseRollout`; the server never rests."""

    async def update_weights(
        self, weights: Any, wire_format: str = "named_tensors", global_steps: int | None = None, **_: Any
    ) -> None:
        """See `BaseRollout`."""
        state = {name: value.detach().float().cpu() for name, value in weights}
        server = ray.get_actor(server_name(self.replica_rank))
        await server.load.remote(state, global_steps or 0)


def _vllm_replica() -> type[RolloutReplica]:
    from cppo_lab.training.verl.vllm_rollout import Replica as VllmReplica

    return VllmReplica


register_rollout_adapter(NAME, f"{Adapter.__module__}.{Adapter.__qualname__}")
RolloutReplicaRegistry.register(NAME, lambda: Replica)
RolloutReplicaRegistry.register("vllm", _vllm_replica)
