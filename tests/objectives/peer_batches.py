"""Random batches for comparisons with other libraries: every row has tokens, none lies on a threshold."""

from collections.abc import Iterator

import torch

from cppo_lab.objectives import TokenBatch, aggregate, denominator, token_objective
from cppo_lab.objectives.spec import AlgoSpec

BATCHES = 2000


def random_batches(count: int = BATCHES) -> Iterator[TokenBatch]:
    """Batches of 4 rows and 9 columns in float64, with mu = pi_old so that anchors agree; right-padded."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        old = -3 * torch.rand(4, 9, generator=generator, dtype=torch.float64)
        drift = torch.rand((), generator=generator, dtype=torch.float64)
        logp = (old + drift * torch.randn(4, 9, generator=generator, dtype=torch.float64)).clamp(max=-1e-3)
        lengths = torch.randint(1, 10, (4, 1), generator=generator)
        advantages = torch.randn(4, generator=generator, dtype=torch.float64)
        yield TokenBatch(
            logp=logp.requires_grad_(),
            rollout_logp=old,
            advantages=advantages,
            response_mask=torch.arange(9) < lengths,
            old_logp=old,
            reference_logp=old + 0.1,
        )


def loss_and_gradient(batch: TokenBatch, algo: AlgoSpec) -> tuple[torch.Tensor, torch.Tensor]:
    total = denominator(batch.response_mask, algo.aggregation)
    loss = aggregate(token_objective(batch, algo).loss, batch.response_mask, algo.aggregation, total)
    return loss.detach(), torch.autograd.grad(loss, batch.logp)[0]
