"""Rules that read the whole minibatch: neither its split into micro-batches nor the order of its rows matters."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.objective import TokenObjective, batch_statistics, token_objective
from cppo_lab.objectives.pooled import quantile
from cppo_lab.objectives.spec import AlgoSpec

ROWS, WIDTH = 24, 9


def point(**coordinates: Any) -> AlgoSpec:
    return AlgoSpec(name="pooled", paper="", anchor="rollout", paper_anchor="rollout", **coordinates)


def region(kind: str, **keys: Any) -> AlgoSpec:
    return point(divergence={"kind": "k2"}, trust_region={"kind": kind, **keys})


def tail(kernel: str, ratio: str = "token") -> AlgoSpec:
    scale = {"scale": "staleness_tail", "tail_kernel": kernel, "tail_quantile": 0.6}
    window = {"kind": "ratio_clip", "clip_low": 0.5, "clip_high": 0.6, **scale}
    return point(trust_region=window, surrogate={"kind": "clipped", "ratio": ratio})


POOLED = {
    "batch": region("switched_mean", delta_mean=0.05, scope="batch"),
    "batch, soft": region("switched_mean", delta_mean=0.05, scope="batch", gate="inverse"),
    "batch and prompt": region("switched_mean", delta_mean=0.09, scope="batch_prompt"),
    "trimmed": region("trimmed_mean", delta_mean=0.04),
    "trimmed, soft": region("trimmed_mean", delta_mean=0.04, gate="inverse"),
    "trimmed from all": region("trimmed_mean", delta_mean=0.04, trimmed_from="all"),
    "tail, excess": tail("excess"),
    "tail, hill": tail("hill"),
    "tail of responses": tail("excess", ratio="sequence"),
    "widened clip": point(
        trust_region={"kind": "moment_clip", "moment_limit": 0.15, "clip_low": 0.1, "clip_high": 0.1},
        surrogate={"kind": "clipped"},
    ),
    "drawn by covariance": point(
        selection={"kind": "clip_cov", "covariance_share": 0.05, "covariance_low": 0.05}
    ),
}


def minibatch(dtype: torch.dtype = torch.float64) -> TokenBatch:
    """Six prompts with four responses each, whose log-ratios are wider from prompt to prompt."""
    generator = torch.Generator().manual_seed(3)
    mu = torch.rand(ROWS, WIDTH, generator=generator, dtype=torch.float64).log()
    prompt = torch.arange(ROWS) // 4
    spread = 0.15 * (1 + prompt).unsqueeze(-1)
    pi = (mu + spread * torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)).clamp(max=0)
    return TokenBatch(
        logp=pi.to(dtype),
        rollout_logp=mu.to(dtype),
        advantages=torch.randn(ROWS, generator=generator, dtype=torch.float64).to(dtype),
        response_mask=torch.rand(ROWS, WIDTH, generator=generator) < 0.8,
        selection_order=torch.rand(ROWS, WIDTH, generator=generator),
        prompt=prompt,
    )


def applied(parts: list[TokenBatch], algo: AlgoSpec) -> tuple[list[TokenObjective], list[Tensor]]:
    """The objectives of the micro-batches and the gradients of their summed losses."""
    statistics = batch_statistics(parts, algo)
    tracked = [replace(part, logp=part.logp.detach().requires_grad_()) for part in parts]
    found = [token_objective(part, algo, statistics=statistics) for part in tracked]
    torch.stack([objective.loss.sum() for objective in found]).sum().backward()
    return found, [part.logp.grad for part in tracked if part.logp.grad is not None]


@pytest.mark.parametrize("size", [1, 5, 24])
@pytest.mark.parametrize("algo", POOLED.values(), ids=POOLED)
def test_loss_and_gradient_do_not_depend_on_the_split_or_the_order(algo: AlgoSpec, size: int) -> None:
    batch = minibatch()
    (whole,), (gradient,) = applied([batch], algo)
    assert 0 < int(whole.masked.sum()) < int(batch.response_mask.sum()), "the rule acts"
    for seed in range(3):
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(seed))
        found, gradients = applied([batch.rows(rows) for rows in order.split(size)], algo)
        close = {"rtol": 1e-13, "atol": 1e-13}
        loss = torch.cat([each.loss for each in found])
        torch.testing.assert_close(loss, whole.loss[order], **close)
        torch.testing.assert_close(torch.cat(gradients), gradient[order], **close)
        assert torch.equal(torch.cat([each.masked for each in found]), whole.masked[order])


@pytest.mark.parametrize("algo", POOLED.values(), ids=POOLED)
def test_statistics_of_each_micro_batch_alone_would_give_another_loss(algo: AlgoSpec) -> None:
    batch = minibatch()
    (whole,), _ = applied([batch], algo)
    apart = [applied([batch.rows(rows)], algo)[0][0].loss for rows in torch.arange(ROWS).split(3)]
    assert not torch.allclose(torch.cat(apart), whole.loss)


@pytest.mark.parametrize("algo", POOLED.values(), ids=POOLED)
def test_without_the_minibatchs_statistics_the_objective_is_refused(algo: AlgoSpec) -> None:
    assert algo.requirements.needs_statistics
    with pytest.raises(ValueError, match="pooled reads statistics of the whole minibatch: pass statistics="):
        token_objective(minibatch(), algo)


def test_a_penalty_by_covariance_does_not_depend_on_the_split() -> None:
    algo = point(selection={"kind": "kl_cov", "covariance_share": 0.05, "covariance_penalty": 2.0})
    batch = minibatch()
    (whole,), (gradient,) = applied([batch], algo)
    plain = token_objective(batch, point()).loss
    assert int((whole.loss != plain).sum()) == int(0.05 * batch.response_mask.sum())
    found, gradients = applied([batch.rows(rows) for rows in torch.arange(ROWS).split(5)], algo)
    torch.testing.assert_close(torch.cat([each.loss for each in found]), whole.loss, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(torch.cat(gradients), gradient, rtol=1e-13, atol=1e-13)


def test_tokens_of_equal_covariance_are_selected_together() -> None:
    algo = point(selection={"kind": "kl_cov", "covariance_share": 0.2, "covariance_penalty": 1.0})
    rollout = torch.full((2, 3), -1.0, dtype=torch.float64)
    logp = torch.tensor([[0.0, 0.0, -2.0], [-0.5, -0.6, -0.7]], dtype=torch.float64)
    batch = TokenBatch(logp, rollout, torch.tensor([1.0, -1.0]).double(), torch.ones(2, 3) > 0)
    (found,), _ = applied([batch], algo)
    assert (found.loss != token_objective(batch, point()).loss).tolist() == [[True, True, False], [False] * 3]


def test_a_selection_is_refused_beside_a_region_that_reads_statistics() -> None:
    with pytest.raises(
        ValueError, match=r"selection\.kind = 'kl_cov': needs a trust region that reads no stat"
    ):
        POOLED["trimmed"].replace(selection={"kind": "kl_cov"})


def test_other_methods_read_no_statistics() -> None:
    for algo in (point(), region("switched_mean", delta_mean=0.05), region("sequence_mean", delta_mean=0.05)):
        assert not algo.requirements.needs_statistics
        assert batch_statistics([minibatch()], algo) == {}


@pytest.mark.parametrize("algo", POOLED.values(), ids=POOLED)
def test_a_minibatch_without_response_tokens_has_no_loss(algo: AlgoSpec) -> None:
    batch = minibatch()
    empty = replace(batch, response_mask=torch.zeros_like(batch.response_mask))
    (found,), (gradient,) = applied([empty], algo)
    assert not found.loss.any()
    assert not gradient.any()


def test_a_region_over_prompts_asks_for_them() -> None:
    algo = POOLED["batch and prompt"]
    with pytest.raises(ValueError, match=r"batch_prompt needs TokenBatch\.prompt"):
        batch_statistics([replace(minibatch(), prompt=None)], algo)


def test_trimming_drops_equal_divergences_together_and_no_more_than_needed() -> None:
    ratios = torch.tensor([[1.2, 1.5, 1.5, 1.1, 0.5]], dtype=torch.float64)
    batch = TokenBatch(
        logp=(ratios * 0.1).log(),
        rollout_logp=torch.full_like(ratios, 0.1).log(),
        advantages=torch.ones(1, dtype=torch.float64),
        response_mask=torch.ones_like(ratios) > 0,
    )
    d = ratios.log().square() / 2
    for limit, kept in (
        (1.0, [1, 1, 1, 1, 1]),
        (0.04, [1, 0, 0, 1, 1]),
        (0.005, [0, 0, 0, 1, 1]),
        (1e-4, [0, 0, 0, 0, 1]),
    ):
        (found,), _ = applied([batch], region("trimmed_mean", delta_mean=limit))
        assert found.gate[0].tolist() == kept, limit
        away = found.gate.bool() & (ratios > 1)
        assert not away.any() or float(d[away].mean()) <= limit


def test_rounding_moves_no_token_across_the_cutoff() -> None:
    batch, algo = minibatch(torch.float32), POOLED["trimmed"]
    cutoff = float(batch_statistics([batch], algo)["cutoff_divergence"])
    (found,), _ = applied([batch], algo)
    assert found.divergence is not None
    nearest = (found.divergence[batch.response_mask].double() - cutoff).abs().min()
    assert nearest > 1e-4 * cutoff


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 1.0])
def test_the_quantile_is_that_of_numpy(share: float) -> None:
    values = torch.rand(37, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert float(quantile(values, share)) == pytest.approx(
        float(np.quantile(values.numpy(), share)), abs=1e-15
    )
    assert float(quantile(values[:0], share)) == 0


PLUGIN = """
from typing import Annotated

import torch
from torch import Tensor

from cppo_lab.objectives import AlgoSpec, TokenBatch, batch_statistics, token_objective
from cppo_lab.objectives.pooled import PooledTokens
from cppo_lab.objectives.decisions import Decision
from cppo_lab.objectives.trust_regions import Delta, RegionInputs, trust_regions

{example}

algo = AlgoSpec(
    name="plug_in", paper="", anchor="rollout", paper_anchor="rollout",
    divergence={{"kind": "k2"}}, trust_region={{"kind": "over_the_mean", "delta": 2.0}},
)
batch = TokenBatch(
    logp=torch.tensor([[-0.9, -0.8], [-0.5, -0.1]]),
    rollout_logp=torch.full((2, 2), -1.0),
    advantages=torch.ones(2),
    response_mask=torch.ones(2, 2) > 0,
)
parts = [batch.rows(slice(0, 1)), batch.rows(slice(1, 2))]
statistics = batch_statistics(parts, algo)
print([token_objective(part, algo, statistics=statistics).gate.tolist() for part in parts])
"""


def test_a_rule_of_ones_own_reads_the_whole_minibatch_too() -> None:
    page = (Path(__file__).parents[2] / "docs" / "adding-a-method.md").read_text(encoding="utf-8")
    example = page.split("```python\n")[2].split("```")[0]
    script = PLUGIN.format(example=example)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # D is half of 0.01, 0.04, 0.25 and 0.81, their mean 0.139: only the last exceeds twice that.
    assert done.stdout.strip() == "[[[1.0, 1.0]], [[1.0, 0.0]]]"
