"""TRL's trainer with the lab's objective: the gradient of its updates, in one process and two, and what becomes of a
run that is resumed."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.trl,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
pytest.importorskip("trl.trainer.grpo_trainer", reason="TRL is not installed: make test-trl")
pytest.importorskip("yaml", reason="PyYAML is not installed")

from peft import LoraConfig  # noqa: E402
from transformers import Qwen3ForCausalLM  # noqa: E402
from trl_runs import LENGTH, Finished, Settings, build, model_folder, run  # noqa: E402

from cppo_lab.integrations.trl.refusals import refusals  # noqa: E402
from cppo_lab.objectives import (  # noqa: E402
    TokenBatch,
    TopK,
    aggregate,
    denominator,
    method,
    method_names,
    token_objective,
)

CLOSE = 1e-5
"""Largest difference between gradients, relative to the largest entry."""
GRPO: dict[str, Any] = {"advantage__epsilon": 1e-4}
"""With TRL's own epsilon."""
OF_TRL: dict[str, Any] = {"loss_type": "grpo", "epsilon": 0.2, "epsilon_high": 0.2}
REFUSED = {"ppo", "dapo"}


def expected_gradient(finished: Finished, update: int, processes: int) -> dict[str, torch.Tensor]:
    """The gradient of an update by one plain model over the rows of all processes and micro-batches."""
    left = [finished.kept(update, process) for process in range(processes)]
    parts = [inputs for each in left for inputs in each["inputs"]]
    network = Qwen3ForCausalLM.from_pretrained(model_folder(finished.folder), dtype=torch.float32)
    network.load_state_dict(left[0]["weights"], strict=False)
    settings = Settings(output=str(finished.folder))
    algo = method(*ALGO_OF[finished.folder.name], max_response_length=LENGTH)
    whole = denominator(torch.cat([_wide(each["response_mask"]) for each in parts]), algo.aggregation)
    place = {"step": update // 2, "progress": (update // 2) / max(1, settings.steps // 2 - 1)}
    for each in parts:
        batch = plain_batch(network, each)
        loss = token_objective(batch, algo, **place).loss
        aggregate(loss, batch.response_mask, algo.aggregation, whole).backward()
    return {name: each.grad for name, each in network.named_parameters()}


ALGO_OF: dict[str, tuple[str]] = {}


def _wide(mask: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(mask, (0, LENGTH - mask.shape[1]))


def plain_batch(network: Qwen3ForCausalLM, inputs: dict[str, Any]) -> TokenBatch:
    tokens = inputs["completion_ids"]
    ids = torch.cat([inputs["prompt_ids"], tokens], 1)
    attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    logits = network(input_ids=ids, attention_mask=attention).logits[
        :, inputs["prompt_ids"].shape[1] - 1 : -1
    ]
    logp = logits.log_softmax(-1)
    topk = None
    if "rollout_topk_ids" in inputs:
        topk = TopK.of(inputs["rollout_topk_ids"], inputs["rollout_topk_logp"], logits, tokens)
    chosen = logp.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return TokenBatch(
        logp=chosen,
        rollout_logp=inputs["sampling_per_token_logps"],
        advantages=inputs["advantages"],
        response_mask=inputs["response_mask"],
        old_logp=inputs.get("old_per_token_logps"),
        topk=topk,
    )


@pytest.mark.parametrize(
    ("name", "processes"),
    [
        ("cppo", 1), ("cppo_binary", 1), ("dppo_tv", 1), ("grpo", 1), ("dr_grpo", 1), ("gspo", 1), ("grpo_tis", 1),
        ("cppo", 2), ("grpo", 2),
    ],
)  # fmt: skip
def test_gradient_is_that_of_one_plain_process(name: str, processes: int, tmp_path: Path) -> None:
    folder = tmp_path / f"{name}-{processes}"
    ALGO_OF[folder.name] = (name,)
    finished = run(Settings(str(folder), name, steps=4, processes=processes, kept=4))
    for update in range(4):
        expected = expected_gradient(finished, update, processes)
        largest = max(float(each.abs().max()) for each in expected.values())
        assert largest > 0
        for process in range(processes):
            got = finished.kept(update, process)["gradient"]
            worst = max(float((got[key] - expected[key]).abs().max()) for key in expected)
            assert worst < CLOSE * largest, (update, process)


def test_ten_steps_of_grpo_are_trls_own(tmp_path: Path) -> None:
    """Samples, advantages, losses and weights, with two updates per rollout."""
    theirs = run(Settings(str(tmp_path / "trl"), None, config=OF_TRL, steps=10))
    ours = run(Settings(str(tmp_path / "lab"), "grpo", values=GRPO | {"clip_high": 0.2}, steps=10))
    assert ours.series("reward") == pytest.approx(theirs.series("reward"), abs=1e-6)
    assert ours.series("loss")[1:] == pytest.approx(theirs.series("loss")[1:], abs=1e-5)
    for name, each in theirs.weights.items():
        torch.testing.assert_close(ours.weights[name], each, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("processes", [1, 2])
def test_ten_steps_learn(processes: int, tmp_path: Path) -> None:
    finished = run(Settings(str(tmp_path), "cppo", steps=10, processes=processes))
    rewards = finished.series("reward")
    assert max(rewards[2:]) > rewards[0]
    assert max(finished.series("mask/share")) > 0
    gaps = finished.series("mismatch/logp_absdiff_max")
    assert gaps
    assert max(gaps) < 1e-4, "mu is what the trainer's own weights give the sampled tokens"


@pytest.mark.parametrize("processes", [1, 2])
def test_resumed_run_is_the_uninterrupted_one(processes: int, tmp_path: Path) -> None:
    whole = run(Settings(str(tmp_path / "whole"), "cppo", steps=8, processes=processes))
    parts = str(tmp_path / "parts")
    run(Settings(parts, "cppo", steps=4, processes=processes))
    resumed = run(Settings(parts, "cppo", steps=8, processes=processes, resume=True))
    for name, each in whole.weights.items():
        assert torch.equal(resumed.weights[name], each), name


def test_checkpoint_within_a_rollout_or_of_another_method_is_refused(tmp_path: Path) -> None:
    settings = Settings(str(tmp_path), "cppo", steps=3, config={"save_steps": 1})
    build(settings).train()
    with pytest.raises(ValueError, match=r"checkpoint-3: was written in the middle of a rollout"):
        build(settings).train(resume_from_checkpoint=True)
    other = build(Settings(str(tmp_path), "cppo", values={"delta": 0.3}, config={"save_steps": 1}))
    with pytest.raises(ValueError, match="was trained with another method than cppo, or other values of it"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


@pytest.mark.parametrize("name", sorted({*method_names()} - REFUSED))
def test_every_other_method_trains(name: str, tmp_path: Path) -> None:
    config = {"gradient_accumulation_steps": 1, "steps_per_generation": 2, "per_device_train_batch_size": 8}
    trainer = build(Settings(str(tmp_path), name, steps=4, config=config | {"save_strategy": "no"}))
    start = {key: each.detach().clone() for key, each in trainer.model.named_parameters()}
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == 4
    assert all(map(math.isfinite, losses))
    assert any(not torch.equal(start[key], each) for key, each in trainer.model.named_parameters())


def test_an_adapter_of_peft_trains(tmp_path: Path) -> None:
    settings = Settings(str(tmp_path), "cppo", steps=4)
    trainer = build(settings, peft_config=LoraConfig(r=4, target_modules="all-linear"))
    trainer.train()
    log = trainer.state.log_history
    assert max(row.get("mismatch/logp_absdiff_max", 0.0) for row in log) < 1e-4
    trained = {name for name, each in trainer.model.named_parameters() if each.requires_grad}
    assert trained
    assert all("lora" in name for name in trained)
    assert any(row.get("policy/k3_vs_rollout", 0.0) > 1e-6 for row in log)


def test_evaluation_and_a_reference_model(tmp_path: Path) -> None:
    config = {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "per_device_eval_batch_size": 8,
        "num_generations_eval": 1,
    }
    settings = Settings(
        str(tmp_path), "grpo", values={"kl_coefficient": 0.05}, steps=2, config=config, kept=2
    )
    trainer = build(settings)
    assert "eval_mask/share" in trainer.evaluate()
    trainer.train()
    assert trainer.ref_model is not None
    assert any("eval_reward" in row for row in trainer.state.log_history)
    kept = torch.load(tmp_path / "update1-0.pt")["inputs"][0]
    assert "ref_per_token_logps" in kept


@pytest.mark.parametrize(
    ("name", "config", "told"),
    [
        ("ppo", {}, "ppo needs a critic, which GRPOTrainer does not have."),
        ("dapo", {}, "dapo samples until enough prompts have responses with different rewards"),
        ("cppo", {"epsilon": 0.3}, "GRPOConfig.epsilon=0.3: cppo decides it by its trust_region.clip_low"),
        ("cppo", {"loss_type": "grpo"}, "loss_type='grpo': cppo decides it by its surrogate and aggregation"),
        ("cppo", {"beta": 0.04}, "GRPOConfig.beta=0.04: cppo decides it by its regulariser.kl_coefficient"),
        ("cppo", {"top_p": 0.9}, "GRPOConfig.top_p=0.9: must be 1.0, since a trust region compares the policy with"),
        ("cppo", {"generation_kwargs": {"top_p": 0.9}}, "GRPOConfig.generation_kwargs={'top_p': …}: must leave"),
        ("grpo", {"epsilon_high": 0.2}, "GRPOConfig.epsilon_high=0.2: grpo decides it by its trust_region.clip_high"),
        ("cppo", {"steps_per_generation": 3}, "steps_per_generation=3: must be a multiple of"),
        ("clip_cov", {}, "clip_cov reads statistics of the whole minibatch: needs gradient_accumulation_steps=1"),
    ],
)  # fmt: skip
def test_refused_in_one_sentence(name: str, config: dict[str, Any], told: str, tmp_path: Path) -> None:
    if "steps_per_generation" in config:
        config = {**config, "per_device_train_batch_size": 4}
    with pytest.raises(ValueError, match=re.escape(told)):
        build(Settings(str(tmp_path), name, config=config))


def test_defaults_of_grpo_config_are_refused_nothing() -> None:
    from trl import GRPOConfig

    settings = GRPOConfig(use_cpu=True, bf16=False, report_to=[])
    assert refusals(method("cppo"), settings) == []
    assert refusals(method("cppo"), settings, tools=True) != []
    assert refusals(method("cppo_binary"), settings, tools=True) == []
