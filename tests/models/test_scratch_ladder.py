"""From-scratch models: equal by seed, of the stated size, and ordinary Hugging Face models on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_runs import same_weights
from transformers import AutoModelForCausalLM

from cppo_lab.config.compose import compose_run
from cppo_lab.config.size import parameter_count
from cppo_lab.models.config import ScratchModel
from cppo_lab.models.loading import Policy, load_policy
from cppo_lab.models.scratch import scratch_policy
from cppo_lab.models.tokenizers import vocabulary_tokenizer
from cppo_lab.tasks.chain import VOCABULARY
from cppo_lab.training.checkpoint import save_checkpoint

LADDER = ["l", "m", "moe", "s"]
TOKENIZER = vocabulary_tokenizer(VOCABULARY)


def rung(name: str) -> ScratchModel:
    model = compose_run([f"model={name}"]).model
    assert isinstance(model, ScratchModel)
    return model


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    first, again, other = (scratch_policy(rung("s"), TOKENIZER, seed) for seed in (3, 3, 4))
    assert same_weights(first.state_dict(), again.state_dict())
    for (name, left), right in zip(first.named_parameters(), other.parameters(), strict=True):
        if left.dim() >= 2:
            assert not torch.equal(left, right), name


@pytest.mark.parametrize("name", LADDER)
def test_parameter_count_is_that_of_the_plan(name: str) -> None:
    with torch.device("meta"):
        from cppo_lab.models.scratch import model_config

        network = AutoModelForCausalLM.from_config(model_config(rung(name), TOKENIZER))
    expected = sum(parameter.numel() for parameter in network.parameters())
    assert rung(name).shape(len(TOKENIZER)).parameters == expected
    assert parameter_count(compose_run([f"model={name}"])) == expected, (
        "what `plan` says of a run on the embedded task"
    )


@pytest.mark.parametrize("name", ["s", "moe"])
def test_saved_model_comes_back_bit_for_bit_and_is_a_causal_lm_for_anyone(name: str, tmp_path: Path) -> None:
    policy = Policy(scratch_policy(rung(name), TOKENIZER, 0), TOKENIZER)
    save_checkpoint(tmp_path / "model", policy)
    ours = load_policy(str(tmp_path / "model"))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    ids = torch.tensor([policy.prompt_ids("leo has 29 cards, finds 5. how many?\n")])
    with torch.no_grad():
        expected = policy.network(ids).logits
        for network in (ours.network, plain.eval()):
            assert same_weights(policy.network.state_dict(), network.state_dict())
            assert torch.equal(network(ids).logits, expected)
    assert plain.dtype == torch.float32
    assert ours.prompt_ids("leo has 2 cards") == policy.prompt_ids("leo has 2 cards")


def test_mixture_of_experts_is_one() -> None:
    network = scratch_policy(rung("moe"), TOKENIZER, 0)
    assert network.config.model_type == "qwen3_moe"
    assert network.config.num_experts == 8
    assert network.config.num_experts_per_tok == 2


def test_input_and_output_embedding_are_one_tensor() -> None:
    network = scratch_policy(rung("s"), TOKENIZER, 0)
    assert network.get_input_embeddings().weight is network.get_output_embeddings().weight
