"""The coordinates of a method, as frozen dataclasses: what to measure, how far it may go, what to optimise.

Standard library only. Equation numbers without a source are those of CPPO (arXiv 2606.10968).
A parameter that belongs to an unselected choice of its own group (`w_min` under uniform weights) is kept, so
that an ablation changes one key; a parameter that contradicts the choice is refused.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Literal

from cppo_lab.objectives.validation import FORBID_UNKNOWN_KEYS, check_fields, check_range, fail

DivergenceKind = Literal[
    "none", "binary_tv", "binary_kl", "topk_tv", "topk_kl", "exact_tv", "exact_kl", "k2", "k3"
]
DIVERGENCE_REGIONS = (
    "divergence_threshold",
    "sequence_max",
    "sequence_mean",
    "sequence_max_mean",
    "prefix_budget",
)


@dataclass(frozen=True, kw_only=True)
class DivergenceSpec:
    """D_t between the rollout policy mu and the policy pi at one sampled prefix.

    binary: the sampled token against all others. topk: the K likeliest tokens under mu, the sampled token and
    one atom for the rest. exact: the whole vocabulary. k2, k3: estimators from the sampled log-ratio.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN_KEYS
    kind: DivergenceKind = "none"
    k: int = 20
    """Tokens of mu's top K; a vocabulary with fewer tokens gives all of them."""
    atoms: Literal["union", "replace"] = "union"
    """A sampled token outside the top K is added (the papers) or takes the place of rank K (Stable-RL)."""
    direction: Literal["forward", "reverse"] = "forward"
    """KL(mu || pi), or KL(pi || mu)."""
    mean_kind: DivergenceKind = "none"
    """The divergence of the sequence-mean test under sequence_max_mean; none: the same as `kind`."""

    def __post_init__(self) -> None:
        check_fields(self, "divergence")
        check_range("divergence.k", self.k, at_least=1)


@dataclass(frozen=True, kw_only=True)
class ScheduleSpec:
    """How a threshold changes over training, as a multiplying factor that starts at 1.

    linear and cosine go from 1 to `final` over `steps` training steps (null: over the whole run).
    piecewise interpolates linearly between `points`, [step, factor], constant outside them.
    target_share is a controller: after each step the factor moves so that the share of masked tokens
    approaches `target_share`; the trainer keeps its state.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN_KEYS
    kind: Literal["constant", "linear", "cosine", "piecewise", "target_share"] = "constant"
    final: float = 1.0
    steps: int | None = None
    points: tuple[tuple[int, float], ...] = ()
    target_share: float = 0.01
    rate: float = 0.1
    """target_share: gain of the controller on the logarithm of the factor."""
    factor_min: float = 0.1
    factor_max: float = 10.0

    def __post_init__(self) -> None:
        check_fields(self, "schedule")
        check_range("schedule.final", self.final, above=0)
        check_range("schedule.steps", self.steps, at_least=1)
        check_range("schedule.target_share", self.target_share, above=0, at_most=1)
        check_range("schedule.rate", self.rate, above=0)
        check_range("schedule.factor_min", self.factor_min, above=0, at_most=1)
        check_range("schedule.factor_max", self.factor_max, at_least=1)
        if self.kind == "piecewise" and not self.points:
            raise fail("schedule.points", [], "piecewise needs at least one [step, factor] pair")
        for point in self.points:
            if not isinstance(point, tuple) or len(point) != 2:
                raise fail("schedule.points", point, "must be a [step, factor] pair")
            check_range("schedule.points", point[0], at_least=0)
            check_range("schedule.points", point[1], above=0)
        steps = [point[0] for point in self.points]
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise fail("schedule.points", list(self.points), "steps must increase")


@dataclass(frozen=True, kw_only=True)
class WeightSpec:
    """Position weights w_t in (0, 1], functions of the fraction u = (t-1)/(T-1) of the response already made.

    uniform 1; linear 1 - (1-w_min)u (Eq. 9); reversed: linear from the end; shuffled: the linear weights in
    an order drawn once per rollout; cosine; exponential w_min^u; step: 1 before `step_at`, then w_min;
    remaining_horizon: max(w_min, (T-t)/(T-1)), proportional to lambda_t of Eq. 4.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN_KEYS
    kind: Literal[
        "uniform", "linear", "shuffled", "reversed", "cosine", "exponential", "step", "remaining_horizon"
    ] = "uniform"
    w_min: float = 0.8
    step_at: float = 0.5
    horizon: int | Literal["own"] = "own"
    """T: the response's own number of response tokens, or a fixed number (positions past it keep w_min)."""

    def __post_init__(self) -> None:
        check_fields(self, "trust_region.weights")
        check_range("trust_region.weights.w_min", self.w_min, above=0, at_most=1)
        check_range("trust_region.weights.step_at", self.step_at, at_least=0, at_most=1)
        if self.horizon != "own":
            check_range("trust_region.weights.horizon", self.horizon, at_least=1)


@dataclass(frozen=True, kw_only=True)
class BudgetSpec:
    """The allowance delta_b per unit of position weight that a prefix may spend (Eq. 5, 8, 22).

    fixed: `size`. adaptive: min(ceiling * size, max(size, multiple * quantile(D of the response))), Eq. 22.
    terminal: `size`, tested once at the end of the response, for all of its tokens alike.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN_KEYS
    kind: Literal["none", "fixed", "adaptive", "terminal"] = "none"
    size: float = 0.02
    """delta_b in units of the divergence, or as a multiple of delta when `relative`."""
    relative: bool = False
    quantile: float = 0.9
    multiple: float = 1.0
    ceiling: float = 2.0
    slack: Literal["threshold", "none"] = "threshold"
    """threshold: delta + delta_b W_{t-1}, Eq. 8. none: the strict form, Eq. 5."""
    schedule: ScheduleSpec = field(default_factory=ScheduleSpec)

    def __post_init__(self) -> None:
        check_fields(self, "trust_region.budget")
        check_range("trust_region.budget.size", self.size, at_least=0, finite=False)
        check_range("trust_region.budget.quantile", self.quantile, at_least=0, at_most=1)
        check_range("trust_region.budget.multiple", self.multiple, at_least=0)
        check_range("trust_region.budget.ceiling", self.ceiling, at_least=1)
        if self.kind == "terminal" and self.slack == "none":
            raise fail("trust_region.budget.slack", self.slack, "a terminal budget needs slack threshold")


@dataclass(frozen=True, kw_only=True)
class TrustRegionSpec:
    """Which tokens may still push the policy away from its anchor.

    ratio_clip: PPO. divergence_threshold: DPPO. sequence_max, sequence_mean, sequence_max_mean: TRM.
    prefix_budget: CPPO (position weights and a budget; either may be switched off).
    """

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN_KEYS
    kind: Literal[
        "none",
        "ratio_clip",
        "divergence_threshold",
        "sequence_max",
        "sequence_mean",
        "sequence_max_mean",
        "prefix_budget",
    ] = "none"
    delta: float | None = None
    """Threshold on D_t (w_t D_t under prefix_budget), in units of the divergence; may be infinite."""
    delta_mean: float | None = None
    """Threshold on the mean of D_t over a response; sequence_mean and sequence_max_mean."""
    clip_low: float | None = None
    clip_high: float | None = None
    """ratio_clip keeps the ratio in [1 - clip_low, 1 + clip_high], or exp of [-clip_low, clip_high] (log)."""
    clip_space: Literal["ratio", "log"] = "ratio"
    clip_power: float = 0.0
    """log: the window is scaled by t**clip_power, t counting response tokens from 1 (CTPO)."""
    dual_clip: float | None = None
    """Upper bound of the ratio where the advantage is negative (log: exp(dual_clip * t**clip_power))."""
    gate: Literal["hard", "inverse", "sapo"] = "hard"
    """hard: keep or drop. inverse: min(1, 1/x). sapo: 4 s (1-s) for x > 1 with
    s = sigmoid(gate_temperature (x-1)). x is the violation score of Eq. 19."""
    gate_temperature: float = 1.0
    weights: WeightSpec = field(default_factory=WeightSpec)
    budget: BudgetSpec = field(default_factory=BudgetSpec)
    schedule: ScheduleSpec = field(default_factory=ScheduleSpec)
    """Of delta and delta_mean."""

    def __post_init__(self) -> None:
        check_fields(self, "trust_region")
        check_range("trust_region.delta", self.delta, above=0, finite=False)
        check_range("trust_region.delta_mean", self.delta_mean, above=0, finite=False)
        check_range("trust_region.clip_low", self.clip_low, at_least=0, finite=False)
        check_range("trust_region.clip_high", self.clip_high, at_least=0, finite=False)
        check_range("trust_region.gate_temperature", self.gate_temperature, above=0)
        lowest_dual_clip = 0.0 if self.clip_space == "log" else 1.0
        check_range("trust_region.dual_clip", self.dual_clip, above=lowest_dual_clip)
        self._check_used(
            "delta", ("divergence_threshold", "sequence_max", "sequence_max_mean", "prefix_budget")
        )
        self._check_used("delta_mean", ("sequence_mean", "sequence_max_mean"))
        self._check_used("clip_low", ("ratio_clip",))
        self._check_used("clip_high", ("ratio_clip",))
        self._check_ratio_clip()
        self._check_divergence_options()

    def _check_used(self, name: str, kinds: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if self.kind in kinds and value is None:
            raise fail(f"trust_region.{name}", value, f"trust_region.kind {self.kind} needs a number")
        if self.kind not in kinds and value is not None:
            used = ", ".join(kinds)
            raise fail(f"trust_region.{name}", value, f"must be null; only trust_region.kind {used} reads it")

    def _check_ratio_clip(self) -> None:
        if self.kind != "ratio_clip":
            for name, unset in (("dual_clip", None), ("clip_power", 0.0), ("clip_space", "ratio")):
                if getattr(self, name) != unset:
                    raise fail(
                        f"trust_region.{name}",
                        getattr(self, name),
                        "only trust_region.kind ratio_clip reads it",
                    )
        if self.clip_space == "ratio" and self.clip_power != 0:
            raise fail("trust_region.clip_power", self.clip_power, "needs trust_region.clip_space log")

    def _check_divergence_options(self) -> None:
        if self.kind not in DIVERGENCE_REGIONS:
            if self.gate != "hard":
                raise fail(
                    "trust_region.gate", self.gate, f"trust_region.kind {self.kind} has only the hard gate"
                )
            if self.schedule.kind != "constant":
                raise fail("trust_region.schedule.kind", self.schedule.kind, "there is no delta to schedule")
        if self.kind != "prefix_budget":
            if self.weights.kind != "uniform":
                raise fail(
                    "trust_region.weights.kind", self.weights.kind, "needs trust_region.kind prefix_budget"
                )
            if self.budget.kind != "none":
                raise fail(
                    "trust_region.budget.kind", self.budget.kind, "needs trust_region.kind prefix_budget"
                )
        if self.budget.kind == "none" and self.budget.schedule.kind != "constant":
            raise fail(
                "trust_region.budget.schedule.kind",
                self.budget.schedule.kind,
                "there is no budget to schedule",
            )
        if self.schedule.kind == self.budget.schedule.kind == "target_share":
            raise fail(
                "trust_region.budget.schedule.kind",
                "target_share",
                "delta is controlled already; one masked share can steer only one of the two",
            )
        if "target_share" in (self.schedule.kind, self.budget.schedule.kind) and self.gate != "hard":
            raise fail("trust_region.gate", self.gate, "a target_share schedule needs the hard gate")


@dataclass(frozen=True, kw_only=True)
class SurrogateSpec:
    """What is optimised inside the trust region.

    kind - ratio: -A rho. clipped: -min(A rho, A clip(rho)) (PPO). truncated: -sg[clamp(rho, ratio_low,
    ratio_high)] A log pi (CISPO). log_probability: -A log pi. geometric: GMPO, clipped log-ratios averaged
    over the response. sapo: SAPO's sigmoid. quadratic: -A rho + |A| c (rho-1)^2 / (2 penalty_epsilon)
    (DRPO with c = mu(a), SPO with c = 1).
    ratio - token: rho_t. sequence: the geometric mean of the response (GSPO). prefix_minimum: rho_t times the
    smallest earlier ratio (MinPRO). prefix_product: the product of the ratios up to t (CTPO).
    prefix_mean: their geometric mean (PNPO). Gradient flows through token t's own log-probability only.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN_KEYS
    kind: Literal["ratio", "clipped", "truncated", "log_probability", "geometric", "sapo", "quadratic"] = (
        "ratio"
    )
    ratio: Literal["token", "sequence", "prefix_minimum", "prefix_product", "prefix_mean"] = "token"
    ratio_low: float = 0.0
    ratio_high: float = float("inf")
    """Absolute bounds of the detached weight; truncated only."""
    inclusive: bool = False
    """prefix_minimum: let the minimum include token t itself (a community variant; not the paper's)."""
    tau_positive: float = 1.0
    tau_negative: float = 1.05
    """SAPO's temperatures for positive and for other advantages."""
    penalty_epsilon: float = 12.5
    penalty_scale: Literal["anchor_probability", "one"] = "anchor_probability"

    def __post_init__(self) -> None:
        check_fields(self, "surrogate")
        check_range("surrogate.ratio_low", self.ratio_low, at_least=0)
        check_range("surrogate.ratio_high", self.ratio_high, above=self.ratio_low, finite=False)
        check_range("surrogate.tau_positive", self.tau_positive, above=0)
        check_range("surrogate.tau_negative", self.tau_negative, above=0)
        check_range("surrogate.penalty_epsilon", self.penalty_epsilon, above=0)
        bounded = self.ratio_low != 0 or self.ratio_high != float("inf")
        if bounded and self.kind != "truncated":
            raise fail(
                "surrogate.ratio_high" if self.ratio_low == 0 else "surrogate.ratio_low",
                self.ratio_high if self.ratio_low == 0 else self.ratio_low,
                f"surrogate.kind {self.kind} has no bounds; use truncated",
            )
        if self.ratio != "token" and self.kind not in ("ratio", "clipped", "truncated"):
            raise fail("surrogate.ratio", self.ratio, f"surrogate.kind {self.kind} uses the token ratio only")
        if self.inclusive and self.ratio != "prefix_minimum":
            raise fail("surrogate.inclusive", self.inclusive, "needs surrogate.ratio prefix_minimum")


@dataclass(frozen=True, kw_only=True)
class CorrectionSpec:
    """A detached factor of k = pi_old / mu against the mismatch of trainer and sampler (anchor old only).

    token_tis: min(k, high). sequence_tis: min(prod k, high). icepop: k inside [low, high], else 0.
    mis: prod k if at most high, else 0. geometric: keep the response if exp(mean log k) is in [low, high].
    k3: keep it if mean(k - 1 - log k) <= high. opsm: drop it if A < 0 and mean log(mu / pi) > high.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN_KEYS
    kind: Literal["none", "token_tis", "sequence_tis", "icepop", "mis", "geometric", "k3", "opsm"] = "none"
    low: float = 0.0
    high: float = 2.0

    def __post_init__(self) -> None:
        check_fields(self, "correction")
        check_range("correction.low", self.low, at_least=0)
        check_range("correction.high", self.high, above=self.low)
        if self.low != 0 and self.kind not in ("icepop", "geometric"):
            raise fail("correction.low", self.low, "only correction.kind icepop, geometric read it")


@dataclass(frozen=True, kw_only=True)
class AggregationSpec:
    """How token losses become one number; rows without response tokens never count."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN_KEYS
    kind: Literal[
        "token_mean", "sequence_mean_token_mean", "sequence_mean_token_sum", "sequence_mean_token_sum_norm"
    ] = "token_mean"
    horizon: int | None = None
    """H of sequence_mean_token_sum_norm, in tokens; null: the configured maximum response length, which the
    caller fills in with `AlgoSpec.with_horizon`."""

    def __post_init__(self) -> None:
        check_fields(self, "aggregation")
        check_range("aggregation.horizon", self.horizon, at_least=1)
        if self.horizon is not None and self.kind != "sequence_mean_token_sum_norm":
            raise fail(
                "aggregation.horizon", self.horizon, "needs aggregation.kind sequence_mean_token_sum_norm"
            )


@dataclass(frozen=True, kw_only=True)
class RegulariserSpec:
    """KL to a frozen reference policy (in the loss or in the reward) and an entropy bonus; off at 0."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN_KEYS
    kl_coefficient: float = 0.0
    kl_kind: Literal["k1", "k2", "k3"] = "k3"
    kl_where: Literal["loss", "reward"] = "loss"
    entropy_coefficient: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "regulariser")
        check_range("regulariser.kl_coefficient", self.kl_coefficient, at_least=0)
        check_range("regulariser.entropy_coefficient", self.entropy_coefficient, at_least=0)
