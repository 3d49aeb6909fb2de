"""`TokenBatch`: the tensors every rule reads. Rules are pure functions of it; no model, no optimizer."""

from dataclasses import dataclass, fields, replace

from cppo_lab.lazy_torch import Tensor, torch

ZERO_LOGP = -100.0
"""What log-probability minus infinity is read as: e^-100 is zero in float32, and sums stay finite."""


def bool_mask(mask: Tensor) -> Tensor:
    """A mask [B, T] of 0 and 1 as bool. Raises ValueError for one of floating-point numbers."""
    if mask.dtype == torch.bool:
        return mask
    if mask.is_floating_point() or mask.is_complex():
        raise ValueError(f"response_mask has dtype {mask.dtype}: must be torch.bool, or integers 0 and 1")
    return mask != 0


@dataclass(frozen=True)
class TopK:
    """Log-probabilities of the K tokens that the rollout policy found likeliest at each position, detached.

    Both tensors are over the same tokens, in the same order (any); with a vocabulary of V < K tokens pass
    all V. Slots without a token hold minus infinity in both. The sampled token is not appended here: the rule
    adds it from `TokenBatch.logp` and `rollout_logp` where `contains_sampled` is False.
    """

    rollout_logp: Tensor
    """[B, T, K] log mu."""
    policy_logp: Tensor
    """[B, T, K] log pi of the same tokens."""
    contains_sampled: Tensor
    """[B, T] bool: the sampled token is one of the K."""

    @classmethod
    def of(cls, rollout_ids: Tensor, rollout_logp: Tensor, logits: Tensor, tokens: Tensor) -> "TopK":
        """From what the sampler returned, and the policy's logits now.

        `rollout_ids` and `rollout_logp` [B, T, K] are the tokens that the rollout policy found likeliest and their
        log mu, `logits` [B, T, V] the policy's divided by the sampling temperature, `tokens` [B, T] what was sampled.
        """
        with torch.no_grad():
            policy_logp = logits.float().log_softmax(-1).gather(-1, rollout_ids)
        return cls(rollout_logp, policy_logp, (rollout_ids == tokens.unsqueeze(-1)).any(-1))


@dataclass(frozen=True)
class FullDistributions:
    """Log-probabilities over the whole vocabulary, detached; for exact divergences on small vocabularies."""

    rollout_logp: Tensor
    """[B, T, V] log mu."""
    policy_logp: Tensor
    """[B, T, V] log pi."""


@dataclass(frozen=True)
class TokenBatch:
    """B responses, right-padded or not, of T columns; the mask says which columns are response tokens.

    Log-probabilities are natural logarithms under the sampling temperature. Values outside the mask are never
    read, whatever they hold. A row must hold its whole response: prefix rules are wrong on a chunk of one.
    Raises ValueError when shapes disagree.
    """

    logp: Tensor
    """[B, T] log pi(a_t); with `entropy`, the only tensor whose gradient is used."""
    rollout_logp: Tensor
    """[B, T] log mu(a_t), bit for bit what the sampler returned."""
    advantages: Tensor
    """[B, T], or [B] for one value per response."""
    response_mask: Tensor
    """[B, T] bool, or integers 0 and 1; set on tokens the policy emitted (end of sequence included). May have holes."""
    old_logp: Tensor | None = None
    """[B, T] log pi_old(a_t): the trainer's own evaluation of the weights that sampled."""
    reference_logp: Tensor | None = None
    """[B, T] log of the frozen reference policy."""
    entropy: Tensor | None = None
    """[B, T] entropy of pi in nats."""
    topk: TopK | None = None
    full: FullDistributions | None = None
    weight_order: Tensor | None = None
    """[B, T] sort keys drawn once per rollout and kept over its updates; order shuffled position weights."""
    rollout_entropy: Tensor | None = None
    """[B, T] entropy of mu in nats at the position of each token."""
    version_lag: Tensor | None = None
    """[B, T] int: training steps that the weights which sampled the token are behind those being trained."""
    selection_order: Tensor | None = None
    """[B, T] sort keys drawn once per update; decide which candidates a selection draws."""
    prompt: Tensor | None = None
    """[B] int: equal for responses to the same prompt, within a minibatch."""
    collision: Tensor | None = None
    """[B, T] the sum of pi^2 over the vocabulary."""
    vocabulary: int | None = None
    """The number of tokens that could be sampled."""

    def __post_init__(self) -> None:
        shape = tuple(self.logp.shape)
        if len(shape) != 2 or shape[1] == 0:
            raise ValueError(f"logp has shape {shape}: must be [B, T] with at least one column")
        object.__setattr__(self, "response_mask", bool_mask(self.response_mask))
        for name in (
            "rollout_logp", "response_mask", "old_logp", "reference_logp", "entropy", "weight_order",
            "rollout_entropy", "version_lag", "selection_order", "collision",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"{name} has shape {tuple(value.shape)}: must be {shape}, the shape of logp")
        if tuple(self.advantages.shape) not in (shape, shape[:1]):
            raise ValueError(
                f"advantages has shape {tuple(self.advantages.shape)}: must be {shape} or {shape[:1]}"
            )
        if self.prompt is not None and tuple(self.prompt.shape) != shape[:1]:
            raise ValueError(f"prompt has shape {tuple(self.prompt.shape)}: must be {shape[:1]}")
        for name in ("topk", "full"):
            pair = getattr(self, name)
            if pair is not None and (
                pair.rollout_logp.shape != pair.policy_logp.shape or pair.rollout_logp.shape[:2] != shape
            ):
                raise ValueError(
                    f"{name} has shape {tuple(pair.rollout_logp.shape)}: must start with {shape}"
                )

    def rows(self, index: Tensor | slice) -> "TokenBatch":
        """The rows that `index` picks (a slice, a bool mask or row numbers), for micro-batches."""
        picked: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, torch.Tensor):
                picked[field.name] = value[index]
            elif isinstance(value, int):
                picked[field.name] = value
            elif value is not None:
                parts = {part.name: getattr(value, part.name)[index] for part in fields(value)}
                picked[field.name] = replace(value, **parts)
        return TokenBatch(**picked)  # type: ignore[arg-type]
