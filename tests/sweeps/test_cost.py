"""What a run will cost: which runs are alike, how many tokens at most, and what must fit into memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_runs import loop_for, tiny_config

from cppo_lab.cli.time_left import time_left, time_left_text
from cppo_lab.config.compose import compose_run
from cppo_lab.config.size import cost_key, parameter_count, state_bytes
from cppo_lab.errors import UserError
from cppo_lab.models.scratch import scratch_policy
from cppo_lab.models.tokenizers import vocabulary_tokenizer
from cppo_lab.sweeps.core_rate import core_flops
from cppo_lab.sweeps.cost import Cost, cost
from cppo_lab.sweeps.prompt_length import prompt_tokens
from cppo_lab.tasks.chain import VOCABULARY
from cppo_lab.tasks.gsm8k import Gsm8kConfig

SETS_THE_TIME = [
    *("model=m", "model.layers=3", "model.width=128", "model.feed_forward=384", "model=moe"),
    *("task=gsm8k", "task.steps=5", "task.max_response_tokens=40"),
    *("trainer.prompts_per_step=16", "trainer.group_size=4", "trainer.prompts_per_minibatch=1"),
    *("trainer.device=cuda", "trainer.threads=2", "trainer.evaluate_every=1", "engine.weights=int8"),
    *("algo=ppo", "algo.regulariser.kl_coefficient=0.1", "algo=dapo"),
]
SETS_NO_TIME = ["seed=3", "trainer.lr=1e-5", "trainer.steps=99", "model.name=other", "tracking=none"]


def test_runs_are_alike_only_where_all_that_sets_the_time_is_equal() -> None:
    keys = {
        override: cost_key(compose_run(["trainer.device=cpu", override]))
        for override in ("seed=0", *SETS_THE_TIME)
    }
    assert len(set(keys.values())) == len(keys), keys


@pytest.mark.parametrize("override", SETS_NO_TIME)
def test_runs_that_differ_in_nothing_that_sets_the_time_are_alike(override: str) -> None:
    assert cost_key(compose_run([override])) == cost_key(compose_run([]))


def test_shared_and_separate_critics_are_not_alike() -> None:
    keys = {cost_key(compose_run(["algo=ppo", f"algo.critic.backbone={b}"])) for b in ("shared", "separate")}
    assert len(keys) == 2


def test_measured_times_are_those_of_runs_that_are_alike(tmp_path: Path) -> None:
    output = f"paths.output='{tmp_path}'"
    measured = compose_run([output, "trainer.steps=10"])
    info = {"status": "FINISHED", "cost_key": cost_key(measured), "duration_s": 50.0, "steps": 10}
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "run.json").write_text(json.dumps(info), encoding="utf-8")
    assert cost(compose_run([output, "trainer.steps=20", "seed=4"])).time_s == pytest.approx(100.0)
    other = cost(compose_run([output, "trainer.steps=20", "trainer.group_size=4"]))
    assert other.time_basis == "FLOP model, with every response at its limit"


def test_prompts_are_counted_where_model_and_problems_are_at_hand(tmp_path: Path) -> None:
    vocabulary_tokenizer(["what", "is", "1", "+", "?"]).save_pretrained(tmp_path / "model")
    rows = [
        {"question": "what is 1 + 1 ?", "answer": "2"},
        {"question": "what is 1 + 1 + 1 + 1 ?", "answer": "4"},
    ]
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    data = ["task=gsm8k", f"task.path='{tmp_path}/train.jsonl'", "task.heldout=1", "task.prompt='{question}'"]
    here = compose_run([*data, "model=pretrained", f"model.path='{tmp_path}/model'"])
    of_hub = compose_run([*data, "model=pretrained", "model.path=some/model"])
    special = 2
    assert prompt_tokens(here) in (6 + special, 10 + special), "the question that is not held out"
    assert prompt_tokens(of_hub) == Gsm8kConfig.prompt_tokens


def test_a_model_of_millions_is_planned_at_the_rate_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("cppo_lab.sweeps.cost", "cppo_lab.config.size"):
        monkeypatch.setattr(f"{module}.parameter_count", lambda _config: 134_000_000)
    run = ["task=gsm8k", "model=pretrained", "model.path=some/model", "trainer.device=cpu", "trainer.steps=2"]

    def planned(rate: float) -> Cost:
        monkeypatch.setattr("cppo_lab.sweeps.cost.core_flops", lambda: rate)
        return cost(compose_run([*run, f"paths.output='{tmp_path}'"]))

    slow, fast = planned(1e10), planned(1e11)
    assert "measured rate of this machine" in fast.time_basis
    assert slow.time_s is not None
    assert fast.time_s is not None
    assert fast.time_s > 3600, "a step of 256 responses of up to 192 tokens takes an hour on a core"
    assert 9 < slow.time_s / fast.time_s <= 10
    # Two checkpoints of float32 weights, one of them with two moments.
    assert fast.disk_bytes == 134_000_000 * 16


def test_the_rate_of_a_core_is_measured_once_and_leaves_the_threads_as_they_were() -> None:
    threads = torch.get_num_threads()
    assert 1e8 < core_flops() < 1e13
    assert core_flops() == core_flops()
    assert torch.get_num_threads() == threads


def test_refilled_prompts_count_as_often_as_they_may_be_sampled() -> None:
    once = cost(compose_run(["algo.dynamic_sampling.kind=skip"]))
    refill = ["algo.dynamic_sampling.kind=refill", "algo.dynamic_sampling.max_rounds=3"]
    thrice = cost(compose_run(refill))
    assert (thrice.tokens, thrice.rollouts) == (3 * once.tokens, 3 * once.rollouts)
    assert thrice.updates == once.updates


def memory(*overrides: str) -> int:
    found = cost(compose_run(list(overrides))).memory_bytes
    assert found is not None
    return found


def test_parameters_are_those_of_the_policy_that_is_built() -> None:
    for name in ("s", "m", "moe"):
        config = compose_run([f"model={name}"])
        assert config.model.kind == "scratch"
        network = scratch_policy(config.model, vocabulary_tokenizer(VOCABULARY), 0)
        assert cost(config).parameters == sum(parameter.numel() for parameter in network.parameters())


def test_separate_critic_needs_weights_gradients_and_moments_of_its_own() -> None:
    parameters = cost(compose_run([])).parameters
    assert parameters
    shared, separate = (memory("algo=ppo", f"algo.critic.backbone={b}") for b in ("shared", "separate"))
    assert separate - shared == 4 * 4 * parameters


@pytest.mark.parametrize("algo", ["cppo", "ppo"])
def test_states_are_what_training_holds_throughout(algo: str, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, f"algo={algo}", "algo.dynamic_sampling.kind=none", "trainer.steps=1")
    loop = loop_for(config)
    loop.run()
    learner = loop.learner
    held = 0
    for parameter in [*loop.policy.network.parameters(), *learner.critic_parameters()]:
        moments = learner.optimizer.state[parameter]
        for tensor in (parameter, parameter.grad, moments["exp_avg"], moments["exp_avg_sq"]):
            assert tensor is not None
            held += tensor.nbytes
    # The plan leaves out that the critic ends in one number where the policy has its vocabulary.
    assert state_bytes(config) == pytest.approx(held, rel=0.05)


def test_reference_is_one_more_copy() -> None:
    parameters = cost(compose_run([])).parameters
    assert parameters
    assert memory("algo.regulariser.kl_coefficient=0.1") - memory() == 4 * parameters


def test_pretrained_weights_and_moments_are_float32_whatever_is_computed_in(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(1000, 3000)}, tmp_path / "model.safetensors")
    shape = {"num_hidden_layers": 1, "hidden_size": 1}
    (tmp_path / "config.json").write_text(json.dumps(shape), encoding="utf-8")
    model = ["model=pretrained", f"model.path='{tmp_path}'", "warmup=none", "trainer.microbatch_sequences=1"]
    fixed = 600 << 20
    expected = {
        ("float32", "same"): 16 + 4,
        ("bfloat16", "same"): 16 + 2,
        ("float32", "bfloat16"): 16 + 2 + 4,
        ("float32", "int8"): 16 + 4 + 4,
    }
    for (dtype, weights), each in expected.items():
        found = memory(*model, f"model.dtype={dtype}", f"engine.weights={weights}")
        assert found - fixed == pytest.approx(each * 3_000_000, rel=0.01), (dtype, weights)


def test_parameters_of_a_folder_are_those_of_the_weights_that_are_loaded(tmp_path: Path) -> None:
    one, other = {"a": torch.zeros(3, 5)}, {"b": torch.zeros(7)}
    config = compose_run(
        ["model=pretrained", f"model.path='{tmp_path}'", "warmup=none", "trainer.device=cpu"]
    )
    save_file(one, tmp_path / "model-00001-of-00002.safetensors")
    save_file(other, tmp_path / "model-00002-of-00002.safetensors")
    save_file(one | other, tmp_path / "consolidated.safetensors")
    assert parameter_count(config) == 22
    assert state_bytes(config) == 22 * 16
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(
        UserError, match=r"model\.path=.*: model-00002-of-00002\.safetensors: not a readable weights"
    ):
        state_bytes(config)


def test_a_single_run_is_no_faster_on_two_workers() -> None:
    assert time_left([60.0], 2) == 60
    assert time_left([60.0, 60.0, 60.0, 60.0], 2) == 120
    assert time_left([], 2) == 0


def test_time_that_is_not_known_is_no_time_saved() -> None:
    assert time_left_text([10.0, 30.0], 2) == "about 30 s"
    assert time_left_text([10.0, None, 30.0], 2) == "at least 30 s"
    assert time_left_text([None], 2) == "an unknown time"
    assert time_left_text([], 2) == "about 0 s"
