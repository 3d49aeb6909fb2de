"""The steps of a run: which stream decides what, staleness, micro-batches, dropped groups, and every method."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import loop_for, same_weights, tiny_config

from cppo_lab.config.compose import group_options
from cppo_lab.tasks.grading.answers import grade
from cppo_lab.training.experience import Experience, minibatch_order
from cppo_lab.training.loop import TrainingLoop


def streams_of(output: Path, *overrides: str) -> dict[str, Any]:
    """What each random stream of a run decides in its first two steps."""
    loop = loop_for(tiny_config(output, "algo=cppo_shuffled", *overrides))
    found: dict[str, Any] = {"prompts": [], "sampling": [], "minibatches": [], "shuffled_weights": []}
    for step in range(2):
        experience = loop.rollouts.collect(step, version=0)
        found["prompts"].append([problem.prompt for problem in experience.problems])
        # Uniform numbers cannot be seen, responses can; they also depend on the prompts.
        found["sampling"].append(experience.rollout.texts(loop.policy.tokenizer))
        seed = loop.rollouts.seeds.minibatches
        found["minibatches"].append(
            [[m.tolist() for m in minibatch_order(loop.settings, seed, range(6), step, e)] for e in range(2)]
        )
        order = experience.weight_order
        assert order is not None
        found["shuffled_weights"].append(order[:, :4].tolist())
    return found


def test_two_seeds_differ_in_every_stream(output: Path) -> None:
    first, second = (streams_of(output, f"seed={seed}") for seed in (0, 1))
    for stream, drawn in first.items():
        assert drawn != second[stream], stream
        for before, after in zip(drawn, second[stream], strict=True):
            assert before != after, f"{stream}: every step differs"
        assert drawn[0] != drawn[1], f"{stream}: steps of a run differ"


@pytest.mark.parametrize(
    ("seed", "changed"),
    [
        ("prompts", {"prompts", "sampling"}),
        ("sampling", {"sampling"}),
        ("minibatches", {"minibatches"}),
        ("shuffled_weights", {"shuffled_weights"}),
    ],
)
def test_each_seed_changes_its_own_stream_alone(seed: str, changed: set[str], output: Path) -> None:
    first, second = streams_of(output), streams_of(output, f"seeds.{seed}=9")
    assert {stream for stream in first if first[stream] != second[stream]} == changed


def test_minibatches_hold_whole_groups_and_each_group_once_an_epoch(output: Path) -> None:
    config = tiny_config(output, "trainer.prompts_per_minibatch=4")
    for epoch in range(3):
        batches = list(minibatch_order(config.trainer, 0, [0, 2, 3, 4, 5], 7, epoch))
        assert [len(rows) for rows in batches] == [4 * 8, 8]
        assert sorted(torch.cat(batches).tolist()) == [g * 8 + i for g in (0, 2, 3, 4, 5) for i in range(8)]
        for rows in batches:
            assert (rows.view(-1, 8) // 8 == rows.view(-1, 8)[:, :1] // 8).all()
    orders = {
        tuple(torch.cat(list(minibatch_order(config.trainer, 0, range(6), 7, e))).tolist()) for e in range(3)
    }
    assert len(orders) == 3


@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_rollouts_are_as_old_as_the_staleness_says(
    staleness: int, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = loop_for(tiny_config(output, "trainer.steps=5", f"trainer.staleness={staleness}"))
    updates_before, versions, prompts = [], [], []
    learn = loop.learner.learn

    def recorded(experience: Experience, step: int, *rest: Any) -> Any:
        updates_before.append(loop.learner.updates)
        versions.append(experience.rollout.policy_version)
        prompts.append([problem.prompt for problem in experience.problems])
        return learn(experience, step, *rest)

    monkeypatch.setattr(loop.learner, "learn", recorded)
    for _ in range(5):
        loop._train_step()
    assert versions == [updates_before[max(0, step - staleness)] for step in range(5)]
    assert len(set(updates_before)) == 5, "every step took updates"
    assert not loop.pending, "nothing is sampled that no step learns from"
    expected = [
        [p.prompt for p in loop.rollouts.task.training_problems(step, 6, loop.rollouts.seeds.prompts)]
        for step in range(5)
    ]
    assert prompts == expected, "whatever the staleness, step k learns from the k-th prompts"


def learnt(output: Path, *overrides: str) -> tuple[TrainingLoop, dict[str, float]]:
    loop = loop_for(tiny_config(output, "trainer.prompts_per_minibatch=6", *overrides))
    metrics, _ = loop._train_step()
    return loop, metrics


@pytest.mark.parametrize("algo", ["cppo", "gspo", "dr_grpo", "ppo"])
@pytest.mark.parametrize(
    "bound",
    [
        ["trainer.microbatch_sequences=5"],
        ["trainer.microbatch_sequences=1"],
        ["trainer.microbatch_tokens=90"],
        ["trainer.microbatch_tokens=90", "model.implementation=transformers"],
    ],
)
def test_micro_batches_change_nothing_but_rounding(algo: str, bound: list[str], output: Path) -> None:
    whole, expected = learnt(output, f"algo={algo}", *bound[1:])
    cut, found = learnt(output, f"algo={algo}", *bound)
    assert whole.learner.updates == cut.learner.updates == 1
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        # Percentiles are estimated from what each part keeps.
        if math.isnan(value):
            assert math.isnan(found[key]), key
        else:
            assert found[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key
    for (name, left), right in zip(
        whole.policy.network.named_parameters(), cut.policy.network.parameters(), strict=True
    ):
        # The first step of Adam is the sign of the gradient: entries without one may go either way.
        close = (left - right).abs() < 1e-6
        assert close.float().mean() > 0.98, name


def test_groups_without_variance_are_dropped_when_asked_and_kept_otherwise(output: Path) -> None:
    loop = loop_for(tiny_config(output, "algo=cppo", "trainer.prompts_per_step=16"))
    assert loop.learner.algo.dynamic_sampling.kind == "skip"
    experience = loop.rollouts.collect(0, version=0)
    varied = [g for g, rewards in enumerate(experience.rewards) if rewards.min() != rewards.max()]
    assert 0 < len(varied) < 16
    assert experience.live.nonzero().flatten().tolist() == varied
    assert (experience.advantages.view(16, -1)[[g for g in range(16) if g not in varied]] == 0).all()
    metrics = loop.learner.learn(experience, 0)
    assert metrics["train/updates"] == math.ceil(len(varied) / 2)
    assert experience.metrics["train/zero_variance_groups"] == pytest.approx(1 - len(varied) / 16)
    keeps = loop_for(tiny_config(output, "algo=grpo", "trainer.prompts_per_step=16"))
    assert keeps.rollouts.collect(0, version=0).live.all()


@pytest.mark.parametrize("bonus", [0.0, 0.01])
def test_momentum_alone_moves_nothing(output: Path, bonus: float) -> None:
    """A rollout without variance: no update, unless the loss has another part."""
    loop = loop_for(tiny_config(output, "algo=grpo", f"algo.regulariser.entropy_coefficient={bonus}"))
    experience = loop.rollouts.collect(0, version=0)
    assert loop.learner.learn(experience, 0)["train/updates"] == 3
    before = {name: each.clone() for name, each in loop.policy.network.state_dict().items()}
    alike = {
        "rewards": torch.ones_like(experience.rewards),
        "advantages": torch.zeros_like(experience.advantages),
    }
    metrics = loop.learner.learn(replace(experience, **alike), 1)
    assert metrics["train/updates"] == (3 if bonus else 0)
    assert same_weights(loop.policy.network.state_dict(), before) is (bonus == 0)
    assert loop.learner.updates == (6 if bonus else 3)


def test_refilled_steps_hold_as_many_live_groups_as_asked(output: Path) -> None:
    loop = loop_for(tiny_config(output, "algo=dapo", "algo.dynamic_sampling.max_rounds=8"))
    experience = loop.rollouts.collect(0, version=0)
    assert len(experience.rewards) == len(experience.problems) == 6
    right = torch.tensor([v.correct for v in experience.verdicts]).view(6, 8)
    assert (right.any(-1) & ~right.all(-1)).all(), "every kept group has right and wrong responses"
    assert experience.metrics["train/sampling_rounds"] > 1
    first_round = {p.prompt for p in loop.rollouts.task.training_problems(0, 6, 0)}
    kept = {p.prompt for p in experience.problems}
    assert kept & first_round, "the first round has the prompts of every method at this step"
    assert kept - first_round
    assert experience.sampled_tokens > int(experience.rollout.response_mask.sum())
    for row, text in enumerate(experience.rollout.texts(loop.policy.tokenizer)):
        problem = experience.problems[row // 8]
        assert grade(text, problem.answer) == experience.verdicts[row]


def test_old_logp_is_that_of_the_weights_that_sampled(output: Path) -> None:
    loop = loop_for(tiny_config(output))
    experience = loop.rollouts.collect(0, version=0)
    inside = experience.rollout.response_mask
    torch.testing.assert_close(
        experience.old_logp[inside], experience.rollout.logp[inside], rtol=0, atol=1e-4
    )
    assert (experience.old_logp[~inside] == 0).all()


def test_gradient_norm_is_clipped_to_the_bound(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    loop = loop_for(tiny_config(output, "trainer.grad_clip=1e-3"))
    step = loop.learner.optimizer.step

    def recorded(*args: Any, **kwargs: Any) -> Any:
        gradients = [p.grad for p in loop.policy.network.parameters() if p.grad is not None]
        seen.append(float(torch.stack([g.norm() for g in gradients]).norm()))
        return step(*args, **kwargs)

    monkeypatch.setattr(loop.learner.optimizer, "step", recorded)
    metrics, _ = loop._train_step()
    assert seen
    assert max(seen) <= 1.01e-3
    assert metrics["train/grad_norm"] > 1e-3, "what is logged is the norm before clipping"
    assert metrics["train/grad_clipped_share"] == 1.0


def test_learning_rate_rises_over_the_warm_up_updates(output: Path) -> None:
    loop = loop_for(tiny_config(output, "trainer.lr_warmup_updates=1000", "trainer.lr=1e-3"))
    metrics, _ = loop._train_step()
    updates = loop.learner.updates
    assert updates > 0
    assert loop.learner.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * updates / 1000)
    assert metrics["train/lr"] < 1e-3


# What a method leaves to whoever uses it.
OPEN = {"k3_clip": ["algo.trust_region.delta=0.1"]}


@pytest.mark.parametrize("name", group_options("algo"))
def test_every_method_takes_two_steps(name: str, output: Path) -> None:
    given = [f"algo={name}", *OPEN.get(name, []), "trainer.prompts_per_step=4", "trainer.steps=2"]
    loop = loop_for(tiny_config(output, *given))
    before = [p.detach().clone() for p in loop.policy.network.parameters()]
    for step in range(2):
        metrics, timings = loop._train_step()
        assert loop.step == step + 1
        assert math.isfinite(metrics["train/loss"])
        assert metrics["train/updates"] > 0
        assert timings["tokens_per_s"] > 0
    after = list(loop.policy.network.parameters())
    assert all(p.isfinite().all() for p in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_trainer_provides_what_a_predicted_change_needs_of_the_tail(output: Path) -> None:
    predicted = ["algo.trust_region.direction=predicted", "algo.trust_region.tail=second_moment"]
    loop = loop_for(tiny_config(output, "algo=dppo_topk_kl", "algo.divergence.k=3", *predicted))
    loop._sample_ahead(0)
    batch, _ = loop.learner.token_batch(loop.pending[0], torch.arange(8))
    assert batch.vocabulary is not None
    assert batch.vocabulary > 3
    assert batch.collision is not None
    assert batch.topk is not None
    mask = batch.response_mask
    largest = batch.topk.policy_logp.exp().square().sum(-1)
    assert (batch.collision[mask] >= largest[mask] - 1e-6).all()
    assert (batch.collision[mask] <= 1 + 1e-6).all()
    metrics, _ = loop._train_step()
    assert 0 < metrics["mask/direction_turned"] < 1
    assert {"mask/share_away", "mask/share_toward", "mask/direction_undecided"} <= metrics.keys()


def test_evaluation_is_fixed_and_leaves_training_untouched(output: Path) -> None:
    loop = loop_for(tiny_config(output))
    first = loop.held_out.evaluate(0)
    state: Callable[[], list[torch.Tensor]] = lambda: [  # noqa: E731
        p.detach().clone() for p in loop.policy.network.parameters()
    ]
    before = state()
    second = loop.held_out.evaluate(0)
    assert first.graded == second.graded
    assert len(first.graded) == 32
    assert all(torch.equal(a, b) for a, b in zip(before, state(), strict=True))
    right = sum(g.verdict.correct for g in first.graded)
    assert first.accuracy == pytest.approx(right / 32)
    p = right / 32
    assert first.stderr == pytest.approx(math.sqrt(p * (1 - p) / 31))


def parameters_of(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).clone()


@pytest.mark.parametrize("backbone", ["separate", "shared"])
def test_the_critics_warm_up_moves_the_critic_and_nothing_of_the_policy(backbone: str, output: Path) -> None:
    loop = loop_for(
        tiny_config(
            output,
            "algo=ppo",
            f"algo.critic.backbone={backbone}",
            "algo.critic.warmup_steps=1",
            "trainer.weight_decay=0.1",
        )
    )
    assert loop.learner.critic is not None
    policy, critic = loop.policy.network, loop.learner.critic
    before, values_before = parameters_of(policy), parameters_of(critic)
    loop._train_step()
    assert torch.equal(parameters_of(policy), before)
    assert not torch.equal(parameters_of(critic), values_before)
    loop._train_step()
    assert not torch.equal(parameters_of(policy), before)


def test_the_logged_learning_rate_is_the_one_used(output: Path) -> None:
    loop = loop_for(tiny_config(output, "trainer.lr=1e-3", "trainer.lr_warmup_updates=1000"))
    metrics, _ = loop._train_step()
    assert metrics["train/lr"] == pytest.approx(1e-3 * metrics["train/updates"] / 1000)


def test_ratios_are_also_logged_against_the_old_policy_where_methods_use_it(output: Path) -> None:
    grpo, _ = loop_for(tiny_config(output, "algo=grpo", "engine.weights=int4"))._train_step()
    assert grpo["policy/ratio_max_vs_old"] != grpo["policy/ratio_max_vs_rollout"]
    cppo, _ = loop_for(tiny_config(output, "algo=cppo"))._train_step()
    assert "policy/ratio_max_vs_old" not in cppo


def test_a_tenth_of_a_thousandth_of_a_weight_survives_a_bfloat16_models_update(output: Path) -> None:
    start = loop_for(tiny_config(output))
    path = output / "model"
    start.policy.network.save_pretrained(path)
    start.policy.tokenizer.save_pretrained(path)
    loop = loop_for(
        tiny_config(
            output,
            "model=pretrained",
            f"model.path='{path}'",
            "warmup.steps=0",
            "warmup.max_steps=0",
            "trainer.lr=1e-6",
        )
    )
    network = loop.policy.network
    assert loop.policy.dtype == "bfloat16"
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    before = parameters_of(network)
    metrics, _ = loop._train_step()
    moved = (parameters_of(network) - before).abs()
    assert 0 < float(moved.max()) < 1e-4
    assert float((moved > 0).float().mean()) > 0.9
    assert metrics["mismatch/logp_absdiff_max"] > 0, "bfloat16 sampling differs from bfloat16 autocast"
    assert metrics["mismatch/logp_absdiff_mean"] < 0.05


@pytest.mark.parametrize("staleness", [0, 1])
def test_the_engine_rests_while_the_policy_learns(
    staleness: int, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between `rest` and the next `load_weights` an engine on a GPU has neither weights nor cache."""
    loop = loop_for(tiny_config(output, f"trainer.staleness={staleness}", "trainer.evaluate_every=1"))
    awake: list[bool] = [False]
    engine, learner = loop.rollouts.engine, loop.learner
    load, sample, learn = engine.load_weights, engine.sample, learner.learn

    def wake(*arguments: Any) -> None:
        load(*arguments)
        awake[0] = True

    def sampled(*arguments: Any) -> Any:
        assert awake[0], "it would sample without weights"
        return sample(*arguments)

    def learning(*arguments: Any) -> Any:
        assert not awake[0], "it would hold the learner's memory"
        return learn(*arguments)

    monkeypatch.setattr(engine, "load_weights", wake)
    monkeypatch.setattr(engine, "sample", sampled)
    monkeypatch.setattr(engine, "rest", lambda: awake.__setitem__(0, False))
    monkeypatch.setattr(learner, "learn", learning)
    loop.run()
    assert loop.step == 3
    assert not awake[0]
