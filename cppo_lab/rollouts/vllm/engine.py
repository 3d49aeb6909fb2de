"""The rollout engine that samples with vLLM."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from cppo_lab.errors import UserError
from cppo_lab.models.loading import Policy
from cppo_lab.rollouts.rollout import Rollout, SamplingSettings
from cppo_lab.rollouts.vllm.offline import OfflineEngine, OfflineSettings
from cppo_lab.rollouts.vllm.outputs import requests_for, rollout_of
from cppo_lab.rollouts.vllm.probe import Probe


class VllmEngine:
    """Samples from vLLM's copy of the policy's weights, held and computed with in the settings' dtype.

    The recorded log-probabilities are those of the distribution that was sampled from, temperature and top-p included.
    `is_complete` of the sampling settings is not asked: responses go on to an end token or the limit.
    """

    def __init__(self, policy: Policy, settings: OfflineSettings) -> None:
        self._policy = policy
        self._vocabulary = int(policy.network.config.get_text_config().vocab_size)
        self._offline = OfflineEngine(settings)
        try:
            self._probe = Probe(self._offline, self._vocabulary, settings.dtype)
            self.load_weights(policy.network, 0)
        except BaseException:
            self._offline.close()
            raise

    def load_weights(self, policy: nn.Module, version: int) -> None:
        """See `RolloutEngine.load_weights`. Raises UserError where vLLM then does not agree with the policy."""
        self._offline.push((name, parameter.detach()) for name, parameter in policy.named_parameters())
        self._probe.check(self._policy, policy, version)
        self._version = version

    def sample(self, prompts: Sequence[Sequence[int]], settings: SamplingSettings) -> Rollout:
        """See `RolloutEngine.sample`. Raises UserError where the context, or vLLM's cache, is too short."""
        needed = max(map(len, prompts)) + settings.max_new_tokens
        if needed > self._offline.context:
            raise UserError(
                f"vLLM: a prompt and its response may need {needed} tokens, and the model's context and the cache "
                f"(engine.kv_cache_gib) hold {self._offline.context}."
            )
        ends = (self._policy.eos_token, *settings.stop_tokens)
        requests = requests_for(prompts, settings, ends, self._vocabulary)
        outputs = self._offline.generate(requests.prompts, requests.parameters)
        device = next(self._policy.network.parameters()).device
        return rollout_of(outputs, settings, ends, self._policy.pad_token, self._version, device)

    def rest(self) -> None:
        """See `RolloutEngine.rest`."""
        self._offline.rest()

    def close(self) -> None:
        """See `RolloutEngine.close`."""
        self._offline.close()
