"""Divergences D_t between the anchor policy p (mu) and the current policy q (pi) at one position.

By data processing binary <= top-K (union) <= exact, for TV and for KL. All are detached and non-negative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from cppo_lab.lazy_torch import Tensor, torch
from cppo_lab.objectives.batch import ZERO_LOGP, FullDistributions, TopK
from cppo_lab.objectives.coordinate import OFF, Coordinate
from cppo_lab.objectives.log_ratios import log_ratio
from cppo_lab.objectives.parameters import Param
from cppo_lab.objectives.rules import Rules

MAX_PROBABILITY = 1 - 1e-7
"""Probabilities are kept below 1 by the resolution of float32 before log(1 - p)."""
MIN_REST = 1e-12
"""Least mass of the atom that gathers the tokens outside the top K."""
# Of the K or V log-probabilities that a rule reads at once: it makes half a dozen tensors of that size.
_PART_ENTRIES = 1 << 22

DPPO = "arXiv:2602.04879"
TRM = "arXiv:2512.23075"
Terms = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
TopSize = Annotated[
    int,
    Param(
        default=20, at_least=1, always_shown=True, about="Tokens of mu's top K; of a smaller vocabulary, all."
    ),
]
Atoms = Annotated[
    Literal["union", "replace"],
    Param(
        default="union",
        about="A sampled token outside the top K is added (the papers) or takes the place of rank K (Stable-RL).",
    ),
]


@dataclass(frozen=True)
class DivergenceInputs:
    """What is known of p and q at each position, in the direction asked for: KL is always KL(p || q)."""

    p_logp: Tensor
    """[B, T] log-probability of the sampled token under p."""
    q_logp: Tensor
    reverse: bool
    """p is pi and q is mu."""
    topk: TopK | None = None
    full: FullDistributions | None = None

    def top(self, k: int) -> tuple[TopK, Tensor, Tensor]:
        """The top K, and log p and log q of its tokens [B, T, K]. Raises ValueError for more than k of them."""
        assert self.topk is not None, "a rule that needs topk is given it"
        if self.topk.rollout_logp.shape[-1] > k:
            raise ValueError(f"TokenBatch.topk has {self.topk.rollout_logp.shape[-1]} tokens: must have {k}")
        return self.topk, *self._directed(self.topk)

    def whole(self) -> tuple[Tensor, Tensor]:
        """log p and log q over the vocabulary [B, T, V]."""
        assert self.full is not None, "a rule that needs full is given it"
        return self._directed(self.full)

    def rows(self, rows: slice) -> DivergenceInputs:
        """The same of some responses."""

        def of(pair: Any) -> Any:
            return pair and replace(pair, **{name: values[rows] for name, values in vars(pair).items()})

        return replace(
            self, p_logp=self.p_logp[rows], q_logp=self.q_logp[rows], topk=of(self.topk), full=of(self.full)
        )

    def _directed(self, pair: TopK | FullDistributions) -> tuple[Tensor, Tensor]:
        wide = []
        for values in (pair.rollout_logp, pair.policy_logp):
            values = values.detach().to(torch.promote_types(values.dtype, torch.float32))
            wide.append(values.clamp(min=ZERO_LOGP))
        return (wide[1], wide[0]) if self.reverse else (wide[0], wide[1])


divergences = Rules("divergence.kind")


@divergences.register(OFF)
def no_divergence(at: DivergenceInputs) -> Tensor:
    """No divergence is measured."""
    return torch.zeros_like(at.p_logp)


@divergences.register("binary_tv", paper=DPPO, largest=1.0)
def binary_tv(at: DivergenceInputs) -> Tensor:
    """The sampled token against all others: |mu(a) - pi(a)|."""
    return (at.p_logp.exp() - at.q_logp.exp()).abs()


@divergences.register("binary_kl", paper=DPPO)
def binary_kl(at: DivergenceInputs) -> Tensor:
    """KL of the two Bernoulli distributions "the sampled token, or another"."""
    p, q = at.p_logp.exp().clamp(max=MAX_PROBABILITY), at.q_logp.exp().clamp(max=MAX_PROBABILITY)
    rest = torch.log1p(-p) - torch.log1p(-q)
    return p * (at.p_logp - at.q_logp) + (1 - p) * rest


def tv_terms(p: Tensor, q: Tensor, p_logp: Tensor, q_logp: Tensor) -> Tensor:
    """What each atom adds to the total variation distance; any shape."""
    return (p - q).abs_().mul_(0.5)


def kl_terms(p: Tensor, q: Tensor, p_logp: Tensor, q_logp: Tensor) -> Tensor:
    """What each atom adds to KL(p || q); any shape."""
    return (p_logp - q_logp).mul_(p)


@divergences.register("topk_tv", paper=DPPO, needs=["topk"], largest=1.0)
def topk_tv(at: DivergenceInputs, *, k: TopSize, atoms: Atoms) -> Tensor:
    """TV over the K likeliest tokens under mu, the sampled token, and one atom for the rest."""
    return _over_reduced_atoms(tv_terms, at, k, atoms)


@divergences.register("topk_kl", paper=DPPO, needs=["topk"])
def topk_kl(at: DivergenceInputs, *, k: TopSize, atoms: Atoms) -> Tensor:
    """KL over the same reduced atoms."""
    return _over_reduced_atoms(kl_terms, at, k, atoms)


@divergences.register("exact_tv", needs=["full"], largest=1.0)
def exact_tv(at: DivergenceInputs) -> Tensor:
    """TV over the whole vocabulary."""
    return _over_vocabulary(tv_terms, at)


@divergences.register("exact_kl", needs=["full"])
def exact_kl(at: DivergenceInputs) -> Tensor:
    """KL over the whole vocabulary."""
    return _over_vocabulary(kl_terms, at)


@divergences.register("k2", paper=TRM)
def k2(at: DivergenceInputs) -> Tensor:
    """(log rho)^2 / 2, an estimator of KL with bounded tails."""
    return 0.5 * log_ratio(at.q_logp, at.p_logp)[0].square()


@divergences.register("k3", paper=TRM)
def k3(at: DivergenceInputs) -> Tensor:
    """rho - 1 - log rho, unbiased for KL(mu || pi)."""
    log_rho = log_ratio(at.q_logp, at.p_logp)[0]
    return torch.expm1(log_rho) - log_rho


@divergences.register("ratio_tv")
def ratio_tv(at: DivergenceInputs) -> Tensor:
    """|rho - 1| / 2, unbiased for TV under samples of mu."""
    return 0.5 * torch.expm1(log_ratio(at.q_logp, at.p_logp)[0]).abs()


def _over_vocabulary(terms: Terms, at: DivergenceInputs) -> Tensor:
    p_logp, q_logp = at.whole()
    return terms(p_logp.exp(), q_logp.exp(), p_logp, q_logp).sum(-1)


def _over_reduced_atoms(terms: Terms, at: DivergenceInputs, k: int, atoms: str) -> Tensor:
    """Over the top K, the sampled token where it is not among them, and all others as one atom.

    Under atoms `replace` a sampled token from outside takes the place of the least likely of the K under mu,
    whose mass falls to the others. Positions outside the mask may give anything.
    """
    topk, p_logp, q_logp = at.top(k)
    p, q = p_logp.exp(), q_logp.exp()
    value = terms(p, q, p_logp, q_logp).sum(-1)
    p_rest, q_rest = 1 - p.sum(-1), 1 - q.sum(-1)
    outside = ~topk.contains_sampled
    if atoms == "replace":
        last = topk.rollout_logp.argmin(-1, keepdim=True)
        removed = [values.gather(-1, last).squeeze(-1) for values in (p, q, p_logp, q_logp)]
        value = value - terms(*removed) * outside
        p_rest, q_rest = p_rest + removed[0] * outside, q_rest + removed[1] * outside
    p_sampled, q_sampled = at.p_logp.exp(), at.q_logp.exp()
    value = value + terms(p_sampled, q_sampled, at.p_logp, at.q_logp) * outside
    p_rest = (p_rest - p_sampled * outside).clamp(min=MIN_REST)
    q_rest = (q_rest - q_sampled * outside).clamp(min=MIN_REST)
    return value + terms(p_rest, q_rest, p_rest.log(), q_rest.log())


class DivergenceSpec(Coordinate, path="divergence"):
    """What distance between rollout policy mu and policy pi is measured at each sampled prefix."""

    kind: Annotated[str, divergences] = OFF
    direction: Annotated[
        Literal["forward", "reverse", "both"],
        Param(about="KL(mu || pi), KL(pi || mu), or the larger of the two."),
    ] = "forward"
    mean_kind: Annotated[
        str,
        divergences,
        Param(about="The divergence whose mean sequence_max_mean tests; none: the same as `kind`."),
    ] = OFF


def divergence(
    spec: DivergenceSpec,
    logp: Tensor,
    anchor_logp: Tensor,
    mask: Tensor,
    topk: TopK | None = None,
    full: FullDistributions | None = None,
    *,
    selector: Literal["kind", "mean_kind"] = "kind",
) -> Tensor | None:
    """D_t [B, T] of `spec.kind` (or of `spec.mean_kind`), detached, 0 outside the mask; None where that is none.

    `logp` and `anchor_logp` [B, T] have been read with `read_logp`. Raises ValueError when the tensors that the kind
    needs are missing.
    """
    kind = getattr(spec, selector)
    if kind == OFF:
        return None
    needs = divergences[kind].needs
    if "topk" in needs and topk is None:
        raise ValueError(f"divergence.{selector} {kind} needs the top-K log-probabilities, TokenBatch.topk")
    if "full" in needs and full is None:
        raise ValueError(f"divergence.{selector} {kind} needs the full distributions, TokenBatch.full")
    rule = spec.rule(selector)
    forward = DivergenceInputs(anchor_logp, logp, False, topk, full)
    reverse = DivergenceInputs(logp, anchor_logp, True, topk, full)
    with torch.no_grad():
        values = _in_parts(rule, reverse if spec.direction == "reverse" else forward)
        if spec.direction == "both":
            values = torch.maximum(values, _in_parts(rule, reverse))
    return values.to(logp.dtype).clamp(min=0).masked_fill(~mask, 0.0)


def _in_parts(rule: Callable[[DivergenceInputs], Tensor], at: DivergenceInputs) -> Tensor:
    """The rule's values [B, T], some responses at a time where the log-probabilities of K or V tokens are many."""
    entries = max((pair.rollout_logp.numel() for pair in (at.topk, at.full) if pair is not None), default=0)
    if entries <= _PART_ENTRIES:
        return rule(at)
    rows = max(1, len(at.p_logp) * _PART_ENTRIES // entries)
    return torch.cat([rule(at.rows(slice(start, start + rows))) for start in range(0, len(at.p_logp), rows)])
