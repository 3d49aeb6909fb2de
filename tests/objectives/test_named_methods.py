"""The shipped configuration files: all valid, complete, and equal to what Hydra and pydantic make of them."""

import dataclasses
import math

import pytest
import torch

yaml = pytest.importorskip("yaml")

from cppo_lab.objectives import (  # noqa: E402
    TokenBatch,
    TopK,
    aggregate,
    batch_statistics,
    denominator,
    method,
    method_names,
    token_objective,
)
from cppo_lab.objectives.spec import AlgoSpec, neutral_tree  # noqa: E402
from cppo_lab.paths import conf_dir  # noqa: E402

FOLDER = conf_dir() / "algo"
PUBLISHED = [
    "pg",
    "ppo",
    "grpo",
    "dr_grpo",
    "dapo",
    "rloo",
    "reinforce_pp",
    "cispo",
    "minpro",
    "gspo",
    "gmpo",
    "sapo",
    "dppo_tv",
    "dppo_kl",
    "dppo_topk_tv",
    "dppo_topk_kl",
    "trm_max",
    "trm_avg",
    "trm_max_avg",
    "cppo",
    "cppo_fixed_budget",
    "cppo_binary",
    "cppo_kl",
    "cppo_soft",
    "cppo_no_weights",
    "cppo_no_budget",
    "cppo_shuffled",
    "drpo",
    "ctpo",
    "prime_rl_default",
    "prime_rl_ipo",
    "dro",
    "kpop",
    "luspo",
]


def tree_keys(tree: dict[str, object]) -> set[str]:
    keys = set()
    for key, value in tree.items():
        keys |= {f"{key}.{inner}" for inner in tree_keys(value)} if isinstance(value, dict) else {key}
    return keys


def random_batch(algo: AlgoSpec, rows: int = 4, width: int = 6, seed: int = 0) -> TokenBatch:
    """A batch with every tensor that `algo` asks for, from random policies over 30 tokens."""
    generator = torch.Generator().manual_seed(seed)
    mu, pi, old = (torch.randn(rows, width, 30, generator=generator).log_softmax(-1) for _ in range(3))
    sampled = torch.randint(30, (rows, width, 1), generator=generator)
    pick = lambda values: values.gather(-1, sampled).squeeze(-1)  # noqa: E731
    needs = algo.requirements
    topk = None
    if needs.needs_topk is not None:
        listed = mu.topk(needs.needs_topk, dim=-1).indices
        topk = TopK(mu.gather(-1, listed), pi.gather(-1, listed), (listed == sampled).any(-1))
    return TokenBatch(
        logp=pick(pi).requires_grad_(),
        rollout_logp=pick(mu),
        advantages=torch.randn(rows, generator=generator),
        response_mask=torch.rand(rows, width, generator=generator) < 0.8,
        old_logp=pick(old) if needs.needs_old_logp else None,
        topk=topk,
        weight_order=torch.rand(rows, width, generator=generator) if needs.needs_weight_order else None,
        rollout_entropy=torch.rand(rows, width, generator=generator) if needs.needs_rollout_entropy else None,
        version_lag=torch.full((rows, width), 2) if needs.needs_version_lag else None,
        selection_order=torch.rand(rows, width, generator=generator) if needs.needs_selection_order else None,
        prompt=torch.arange(rows) // 2 if needs.needs_prompt else None,
        vocabulary=30,
    )


def test_every_published_method_ships() -> None:
    assert set(PUBLISHED) <= set(method_names())


@pytest.mark.parametrize("name", method_names())
def test_file_name_is_the_method_and_the_paper_is_named(name: str) -> None:
    algo = method(name)
    assert algo.name == name
    assert algo.anchor == algo.paper_anchor
    assert algo.paper.startswith(("arXiv:", "doi:", "https://"))
    first_line = (FOLDER / f"{name}.yaml").read_text().splitlines()[0]
    assert first_line.startswith("# ")


def test_hydra_reads_the_same_methods_and_all_keys_of_each() -> None:
    compose = pytest.importorskip("cppo_lab.config.compose")
    trees = compose.compose_trees([[f"algo={name}"] for name in method_names()])
    for name, tree in zip(method_names(), trees, strict=True):
        assert AlgoSpec.build(tree["algo"]) == method(name)
        assert tree_keys(tree["algo"]) == tree_keys(neutral_tree())


@pytest.mark.parametrize("name", method_names())
def test_every_method_gives_a_finite_loss_and_gradient_from_what_it_requires(name: str) -> None:
    algo = method(name, max_response_length=16)
    batch = random_batch(algo)
    objective = token_objective(batch, algo, statistics=batch_statistics([batch], algo))
    total = denominator(batch.response_mask, algo.aggregation)
    aggregate(objective.loss, batch.response_mask, algo.aggregation, total).backward()
    assert torch.isfinite(batch.logp.grad).all()
    assert (batch.logp.grad[~batch.response_mask] == 0).all()
    assert objective.loss[~batch.response_mask].abs().max() == 0


@pytest.mark.parametrize("name", method_names())
def test_on_policy_every_gradient_is_the_policy_gradient(name: str) -> None:
    algo = method(name)
    batch = random_batch(algo)
    same = dataclasses.replace(
        batch,
        rollout_logp=batch.logp.detach(),
        old_logp=batch.logp.detach(),
        topk=None
        if batch.topk is None
        else dataclasses.replace(batch.topk, policy_logp=batch.topk.rollout_logp),
    )
    objective = token_objective(same, algo, statistics=batch_statistics([same], algo))
    objective.loss.sum().backward()
    want = -batch.advantages.unsqueeze(-1) * batch.response_mask
    if algo.selection.kind == "clip_cov":
        # What it draws is drawn on-policy too.
        assert objective.masked.any()
        want = want.masked_fill(objective.masked, 0.0)
    torch.testing.assert_close(batch.logp.grad, want, rtol=1e-5, atol=1e-6)


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"Did you mean 'cppo_soft'\?"):
        method("cppo_sofd")


def test_a_value_that_no_paper_gives_must_be_given() -> None:
    with pytest.raises(ValueError, match=r"trust_region.delta = \?\?\?: k3_clip leaves it open"):
        method("k3_clip")
    algo = method("k3_clip", given={"trust_region.delta": 0.0333})
    low, high = 0.7636361393741631, 1.280731039551605
    ratios = torch.tensor([[low - 1e-3, low + 1e-3, high - 1e-3, high + 1e-3]], dtype=torch.float64)
    for advantage, kept in ((1.0, [True, True, True, False]), (-1.0, [False, True, True, True])):
        old = torch.full_like(ratios, 0.5).log()
        batch = TokenBatch(
            logp=old + ratios.log(),
            rollout_logp=old,
            old_logp=old,
            advantages=torch.tensor([advantage]),
            response_mask=torch.ones(1, 4, dtype=torch.bool),
        )
        assert (token_objective(batch, algo).gate > 0).tolist() == [kept]


def test_horizon_is_filled_in_where_the_method_divides_by_it() -> None:
    assert method("dr_grpo", max_response_length=64).aggregation.horizon == 64
    assert method("grpo", max_response_length=64).aggregation.horizon is None
    assert math.isinf(method("cppo").surrogate.ratio_high)


def test_values_are_set_by_the_last_part_of_their_key() -> None:
    assert method("cppo", delta=0.1).trust_region.delta == 0.1
    assert method("cppo", budget__size=0.5).trust_region.budget.size == 0.5
    assert method("cppo", delta=method("cppo").trust_region.delta) == method("cppo")
    assert method("grpo", entropy_coefficient=0.01).regulariser.entropy_coefficient == 0.01
    with pytest.raises(
        ValueError, match=r"kind: several keys of cppo end so; give one of .*trust_region__budget__kind"
    ):
        method("cppo", kind="none")
    with pytest.raises(ValueError, match=r"delt: no key of cppo ends so\. Did you mean 'delta'"):
        method("cppo", delt=0.1)
    with pytest.raises(ValueError, match="delta"):
        method("cppo", delta=-1.0)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_masks_may_be_integers(dtype: torch.dtype) -> None:
    algo = method("grpo")
    batch = random_batch(algo)
    mask = batch.response_mask
    given = dataclasses.replace(batch, response_mask=mask.to(dtype))
    expected, found = token_objective(batch, algo), token_objective(given, algo)
    assert torch.equal(found.loss, expected.loss)
    whole = denominator(mask.to(dtype), algo.aggregation)
    assert whole == denominator(mask, algo.aggregation)
    assert torch.equal(
        aggregate(found.loss, mask.to(dtype), algo.aggregation, whole),
        aggregate(expected.loss, mask, algo.aggregation, whole),
    )
    with pytest.raises(ValueError, match=r"response_mask has dtype torch\.float32"):
        dataclasses.replace(batch, response_mask=mask.float())
