"""Loss and gradient equal TRL's GRPO loss types where both mean the same; where not, the difference is
stated.

TRL's loss is a method of its trainer; it is called on a stand-in that returns given log-probabilities.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.trl
grpo_trainer = pytest.importorskip("trl.trainer.grpo_trainer", reason="TRL is not installed")
pytest.importorskip("yaml")

from cppo_lab.objectives import TokenBatch, aggregate, denominator, method, token_objective  # noqa: E402
from cppo_lab.objectives.spec import AggregationSpec, AlgoSpec, RegulariserSpec  # noqa: E402

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


def theirs(loss_type: str, batch: TokenBatch, **settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
    entropy = torch.zeros_like(batch.logp)
    arguments = SimpleNamespace(
        delta=settings.get("delta"),
        use_bias_correction_kl=False,
        sapo_temperature_pos=1.0,
        sapo_temperature_neg=1.05,
        steps_per_generation=1,
    )
    accelerator = SimpleNamespace(
        num_processes=1,
        sync_gradients=True,
        gather=lambda value: value,
        gather_for_metrics=lambda value: value,
        reduce=lambda value, reduction: value,
    )
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *a, **k: (batch.logp, entropy, None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=settings.get("off_policy_mask_threshold"),
        get_off_policy_mask=grpo_trainer.GRPOTrainer.get_off_policy_mask,
        importance_sampling_level=settings.get("level", "token"),
        beta=settings.get("beta", 0.0),
        loss_type=loss_type,
        epsilon_low=settings.get("epsilon_low", 0.2),
        epsilon_high=settings.get("epsilon_high", 0.28),
        args=arguments,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        model=SimpleNamespace(training=False),
        current_gradient_accumulation_steps=1,
        max_completion_length=16,
        accelerator=accelerator,
        _entropy_bonus_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
    )
    mask = batch.response_mask.to(batch.logp.dtype)
    inputs = {
        "prompt_ids": torch.zeros(4, 1, dtype=torch.long),
        "prompt_mask": torch.ones(4, 1, dtype=torch.long),
        "completion_ids": torch.zeros(batch.logp.shape, dtype=torch.long),
        "completion_mask": mask,
        "advantages": batch.advantages,
        "old_per_token_logps": batch.old_logp,
        "ref_per_token_logps": batch.reference_logp,
        "num_items_in_batch": mask.sum(),
    }
    loss = grpo_trainer.GRPOTrainer._compute_loss(trainer, None, inputs)
    return loss.detach(), torch.autograd.grad(loss, batch.logp)[0]


def grpo(kind: str, horizon: int | None = None, **parts: Any) -> AlgoSpec:
    return replace(method("grpo"), aggregation=AggregationSpec(kind=kind, horizon=horizon), **parts)


CASES: dict[str, tuple[str, AlgoSpec, dict[str, Any]]] = {
    "grpo": ("grpo", grpo("sequence_mean_token_mean"), {}),
    "bnpo": ("bnpo", grpo("token_mean"), {}),
    "dapo": ("dapo", grpo("token_mean"), {}),
    "dr_grpo": ("dr_grpo", grpo("sequence_mean_token_sum_norm", 16), {}),
    "grpo with KL in the loss": (
        "grpo",
        grpo("sequence_mean_token_mean", regulariser=RegulariserSpec(kl_coefficient=0.1, kl_kind="k3")),
        {"beta": 0.1},
    ),
    "cispo": ("cispo", method("cispo"), {"epsilon_high": 1.28}),
    "sapo": ("sapo", method("sapo"), {}),
    "gspo": ("grpo", method("gspo"), {"level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4}),
}


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_equal_trl(case: str) -> None:
    loss_type, algo, settings = CASES[case]
    # TRL's SAPO temperatures are float32 whatever the log-probabilities are.
    tolerance = 1e-6 if loss_type == "sapo" else 1e-9
    for batch in random_batches(BATCHES // 2):
        ours = loss_and_gradient(batch, algo)
        for mine, other in zip(ours, theirs(loss_type, batch, **settings), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-6, atol=tolerance)


def test_two_sided_clip_equals_the_dual_clip() -> None:
    base = method("grpo")
    algo = replace(base, trust_region=replace(base.trust_region, dual_clip=1.6))
    for batch in random_batches():
        ours = loss_and_gradient(batch, algo)
        for mine, other in zip(ours, theirs("grpo", batch, delta=1.6), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9)


def test_sequence_level_with_the_default_loss_type_weighs_by_length() -> None:
    settings = {"level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4}
    differing = 0
    for batch in random_batches(50):
        ours, _ = loss_and_gradient(batch, method("gspo"))
        other, _ = theirs("dapo", batch, **settings)
        differing += int(not torch.isclose(ours, other, rtol=1e-3))
        weighed = replace(method("gspo"), aggregation=AggregationSpec(kind="token_mean"))
        torch.testing.assert_close(loss_and_gradient(batch, weighed)[0], other, rtol=1e-6, atol=1e-9)
    assert differing > 40


def test_empty_rows_count_in_trl_and_not_here() -> None:
    (batch,) = random_batches(1)
    empty = replace(batch, response_mask=batch.response_mask & (torch.arange(4) > 0).unsqueeze(-1))
    ours, _ = loss_and_gradient(empty, grpo("sequence_mean_token_mean"))
    other, _ = theirs("grpo", empty)
    torch.testing.assert_close(other, ours * 3 / 4, rtol=1e-6, atol=1e-9)
