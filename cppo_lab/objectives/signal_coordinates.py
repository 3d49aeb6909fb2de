"""The coordinates of the learning signal: advantages, the critic, and DAPO's treatment of rollouts.

Standard library only.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from cppo_lab.objectives.validation import FORBID_UNKNOWN_KEYS, check_fields, check_range


@dataclass(frozen=True, kw_only=True)
class AdvantageSpec:
    """How rewards become advantages.

    group_normalised: GRPO, (R - mean) / (std + epsilon). group_centred: Dr. GRPO, R - mean.
    leave_one_out: RLOO. batch_normalised: REINFORCE++. gae: PPO with a critic. none: the reward itself.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN_KEYS
    kind: Literal["none", "group_normalised", "group_centred", "leave_one_out", "batch_normalised", "gae"] = (
        "group_normalised"
    )
    epsilon: float = 1e-6
    """Added to the group's sample standard deviation (ddof 1); group_normalised only."""
    group_baseline: bool = False
    """batch_normalised: subtract the group mean before whitening over the batch."""
    gamma: float = 1.0
    """Discount per token; gae only."""
    lam: float = 1.0
    """The lambda of GAE."""
    whiten: bool = True
    """gae: whiten the advantages over all response tokens of the batch, after the returns are taken."""

    def __post_init__(self) -> None:
        check_fields(self, "advantage")
        check_range("advantage.epsilon", self.epsilon, at_least=0)
        check_range("advantage.gamma", self.gamma, at_least=0, at_most=1)
        check_range("advantage.lam", self.lam, at_least=0, at_most=1)


@dataclass(frozen=True, kw_only=True)
class CriticSpec:
    """The value function of PPO; read by the trainer when `advantage.kind` is gae."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN_KEYS
    backbone: Literal["separate", "shared"] = "separate"
    value_clip: float | None = 0.2
    """Clip of the new value around the old one, in units of reward; null for no clipping."""
    coefficient: float = 0.5
    """Weight of the value loss; it matters for a shared backbone."""
    warmup_steps: int = 0
    """Steps at the start that train the critic only."""
    learning_rate: float | None = None
    """Null: the policy's."""

    def __post_init__(self) -> None:
        check_fields(self, "critic")
        check_range("critic.value_clip", self.value_clip, above=0)
        check_range("critic.coefficient", self.coefficient, above=0)
        check_range("critic.warmup_steps", self.warmup_steps, at_least=0)
        check_range("critic.learning_rate", self.learning_rate, above=0)


@dataclass(frozen=True, kw_only=True)
class OverlongSpec:
    """DAPO's treatment of long responses.

    shaping: a penalty that grows linearly over the last `buffer` tokens before the limit, down to -penalty.
    filtering: rows cut at the limit get no loss and leave the denominator.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN_KEYS
    kind: Literal["none", "shaping", "filtering"] = "none"
    buffer: float = 0.2
    """Tokens when above 1, otherwise a share of the maximum response length."""
    penalty: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, "overlong")
        check_range("overlong.buffer", self.buffer, above=0)
        check_range("overlong.penalty", self.penalty, above=0)


@dataclass(frozen=True, kw_only=True)
class DynamicSamplingSpec:
    """Prompts whose rollouts all earn the same reward: keep, skip (the batch shrinks), or refill."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN_KEYS
    kind: Literal["none", "skip", "refill"] = "none"
    metric: Literal["accuracy", "reward"] = "accuracy"
    """accuracy: before overlong shaping; reward: after it."""
    max_rounds: int = 4
    """refill: rounds of generation at most; what is there is then used."""

    def __post_init__(self) -> None:
        check_fields(self, "dynamic_sampling")
        check_range("dynamic_sampling.max_rounds", self.max_rounds, at_least=1)
