"""LoRA adapters: what they train, what engines and checkpoints see of them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_training_runs import interrupted_after
from tiny_runs import engine_for, loop_for, same_weights, starting, tiny_config

from cppo_lab.config.compose import compose_run
from cppo_lab.config.identity import run_id
from cppo_lab.errors import UserError
from cppo_lab.models.loading import Policy, load_policy
from cppo_lab.models.lora import ADAPTER_FOLDER, plain_copy, plain_parameters
from cppo_lab.rollouts.rollout import SamplingSettings
from cppo_lab.training.run import run
from cppo_lab.training.starting_policy import starting_policy

LORA = ("trainer.lora_rank=4", "model.implementation=transformers", "trainer.lr=1e-2")
needs_peft = pytest.mark.testbed


def adapted(output: Path, *more: str) -> Policy:
    """A policy whose adapter is no longer zero."""
    policy = starting(tiny_config(output, *LORA, *more))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in policy.network.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy


def logits(network: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = network(input_ids=tokens).logits
    return found


@needs_peft
def test_an_adapter_begins_as_the_network_and_is_all_that_is_trained(output: Path) -> None:
    config = tiny_config(output, *LORA)
    policy, plain = starting(config), starting(tiny_config(output, "model.implementation=transformers"))
    tokens = torch.arange(12).view(2, 6)
    assert torch.equal(logits(policy.network, tokens), logits(plain.network, tokens))
    trained = [name for name, each in policy.network.named_parameters() if each.requires_grad]
    assert trained
    assert all(".lora_" in name for name in trained)
    loop = loop_for(config)
    frozen = {n: p.clone() for n, p in loop.policy.network.named_parameters() if not p.requires_grad}
    before = {n: p.detach().clone() for n, p in loop.policy.network.named_parameters() if p.requires_grad}
    loop.run()
    after = dict(loop.policy.network.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in frozen.items())
    assert any(not torch.equal(after[name], value) for name, value in before.items())


@needs_peft
@pytest.mark.parametrize("targets", ["all-linear", "[q_proj,down_proj]"])
def test_the_plain_network_computes_the_same(targets: str, output: Path) -> None:
    policy = adapted(output, f"trainer.lora_targets={targets}")
    tokens = torch.arange(12).view(2, 6)
    expected = logits(policy.network, tokens)
    plain: Any = plain_copy(policy.network)
    assert torch.allclose(logits(plain, tokens), expected, atol=1e-5)
    assert not torch.allclose(logits(starting(tiny_config(output)).network, tokens), expected, atol=1e-2)
    listed = dict(plain_parameters(policy.network))
    assert listed.keys() == dict(plain.named_parameters()).keys()
    assert all(torch.allclose(listed[name], each, atol=1e-6) for name, each in plain.named_parameters())


@needs_peft
def test_engines_sample_from_the_adapted_weights(output: Path) -> None:
    policy = adapted(output)
    engine = engine_for(starting(tiny_config(output, *LORA)))
    engine.load_weights(policy.network, 1)
    settings = SamplingSettings(max_new_tokens=8, temperature=1.0, seed=0)
    prompts = [[1, 2, 3], [4, 5, 6, 7]]
    found = engine.sample(prompts, settings)
    merged = Policy(plain_copy(policy.network), policy.tokenizer)  # type: ignore[arg-type]
    assert torch.equal(found.responses, engine_for(merged).sample(prompts, settings).responses)


@needs_peft
def test_a_checkpoint_is_a_plain_model_and_its_adapter_one_of_peft(output: Path) -> None:
    from peft import PeftModel

    config = tiny_config(output, *LORA)
    folder = run(config)
    assert folder.info["model"]["trained_parameters"] < folder.info["model"]["parameters"] / 2
    _, checkpoint = folder.checkpoints()[-1]
    tokens = torch.arange(12).view(2, 6)
    expected = logits(load_policy(str(checkpoint)).network, tokens)
    base = load_policy(starting_policy(config, config.task.build()).path)
    assert not torch.allclose(logits(base.network, tokens), expected, atol=1e-3)
    by_peft = PeftModel.from_pretrained(base.network, checkpoint / ADAPTER_FOLDER)
    assert torch.allclose(logits(by_peft, tokens), expected, atol=1e-5)


@needs_peft
def test_a_resumed_run_is_the_run_that_was_not_stopped(output: Path, tmp_path: Path) -> None:
    whole = run(tiny_config(tmp_path / "whole", *LORA))
    config = tiny_config(output, *LORA)
    interrupted_after(config, 1)
    resumed = run(config)
    first, second = (
        load_policy(str(folder.checkpoints()[-1][1])).network.state_dict() for folder in (whole, resumed)
    )
    assert same_weights(first, second)


@needs_peft
def test_a_target_that_the_model_lacks_is_refused(output: Path) -> None:
    with pytest.raises(UserError, match=r"trainer\.lora_targets=\['attention'\]: "):
        starting(tiny_config(output, *LORA, "trainer.lora_targets=[attention]"))


def test_without_a_rank_a_run_is_the_one_that_it_was() -> None:
    plain = compose_run([])
    assert run_id(plain) == run_id(compose_run(["trainer.lora_rank=0"]))
    ranks = [compose_run([*LORA, f"trainer.lora_rank={rank}"]) for rank in (4, 8)]
    assert len({run_id(config) for config in (plain, *ranks)}) == 3


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["trainer.lora_alpha=8"], r"trainer\.lora_alpha=8\.0: must be 32\.0 unless lora_rank is above 0"),
        (["trainer.lora_targets=[q_proj]"], r"lora_targets=\[q_proj\]: must be all-linear unless lora_rank"),
        (["trainer.lora_rank=4"], r"trainer\.lora_rank=4: needs model\.implementation = transformers"),
        ([*LORA, "trainer.lora_targets=[]"], r"lora_targets=\[\]: must be all-linear, or names of modules"),
        (["trainer.lora_rank=-1"], r"trainer\.lora_rank=-1: "),
    ],
)
def test_refusals(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        compose_run(overrides)
