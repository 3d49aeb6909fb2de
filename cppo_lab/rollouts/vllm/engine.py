"""Sampling with vLLM, and the rollout engine that does so."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from cppo_lab.errors import UserError
from cppo_lab.models.loading import Policy
from cppo_lab.models.lora import plain_parameters
from cppo_lab.rollouts.rollout import Rollout, SamplingSettings
from cppo_lab.rollouts.vllm.offline import OfflineEngine, OfflineSettings
from cppo_lab.rollouts.vllm.outputs import requests_for, rollout_of
from cppo_lab.rollouts.vllm.probe import Probe


class VllmSampler:
    """Samples from the weights that vLLM holds; rollouts are put on `device`.

    The recorded log-probabilities are those of the distribution that was sampled from, temperature and top-p included.
    `stops` of the sampling settings need an engine that was started with `decodes`.
    """

    def __init__(
        self,
        settings: OfflineSettings,
        *,
        eos_token: int,
        pad_token: int,
        vocabulary: int,
        device: torch.device,
    ) -> None:
        self._eos, self._pad, self._vocabulary, self._device = eos_token, pad_token, vocabulary, device
        self._version = 0
        self._offline = OfflineEngine(settings)

    @property
    def context(self) -> int:
        """The longest sequence in tokens: the model's context, or what the cache can hold of it."""
        return self._offline.context

    def sample(self, prompts: Sequence[Sequence[int]], settings: SamplingSettings) -> Rollout:
        """See `Sampler.sample`."""
        ends = (self._eos, *settings.stop_tokens)
        requests = requests_for(prompts, settings, ends, self._vocabulary)
        outputs = self._offline.generate(requests.prompts, requests.parameters)
        return rollout_of(outputs, settings, ends, self._pad, self._version, self._device)

    def close(self) -> None:
        """See `Sampler.close`."""
        self._offline.close()


class VllmEngine(VllmSampler):
    """The rollout engine: samples from vLLM's copy of the policy's weights, in the settings' dtype."""

    def __init__(self, policy: Policy, settings: OfflineSettings) -> None:
        super().__init__(
            settings,
            eos_token=policy.eos_token,
            pad_token=policy.pad_token,
            vocabulary=int(policy.network.config.get_text_config().vocab_size),
            device=next(policy.network.parameters()).device,
        )
        self._policy = policy
        try:
            self._probe = Probe(self._offline, self._vocabulary, settings.dtype)
            self.load_weights(policy.network, 0)
        except BaseException:
            self.close()
            raise

    def load_weights(self, policy: nn.Module, version: int) -> None:
        """See `RolloutEngine.load_weights`. Raises UserError where vLLM then disagrees with the policy."""
        self._offline.push((name, parameter.detach()) for name, parameter in plain_parameters(policy))
        self._probe.check(self._policy, policy, version)
        self._version = version

    def sample(self, prompts: Sequence[Sequence[int]], settings: SamplingSettings) -> Rollout:
        """See `Sampler.sample`. Raises UserError where the context, or vLLM's cache, is too short."""
        needed = max(map(len, prompts)) + settings.max_new_tokens
        if needed > self.context:
            raise UserError(
                f"vLLM: a prompt and its response may need {needed} tokens, but the model's context and the cache "
                f"(engine.kv_cache_gib) hold {self.context}."
            )
        return super().sample(prompts, settings)

    def rest(self) -> None:
        """See `RolloutEngine.rest`."""
        self._offline.rest()
