"""Log-probabilities of sampled tokens, against a plain forward pass of each sequence alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from text_models import random_policy
from torch import Tensor

from cppo_lab.config.compose import compose_run
from cppo_lab.models import chunked_head, logprobs
from cppo_lab.models.config import ScratchModel
from cppo_lab.models.logprobs import TokenStatistics, token_statistics
from cppo_lab.models.scratch import scratch_policy
from cppo_lab.models.tokenizers import vocabulary_tokenizer
from cppo_lab.models.value_head import Critic
from cppo_lab.tasks.chain import VOCABULARY

TOKENIZER = vocabulary_tokenizer(VOCABULARY)
PROMPTS, RESPONSES = (5, 2, 9, 1), (4, 7, 1, 3)
WIDTH, LENGTH = max(PROMPTS), max(RESPONSES)


@dataclass
class Ragged:
    tokens: Tensor
    mask: Tensor
    response_mask: Tensor
    sequences: list[list[int]]


def ragged(padding: int = 0, seed: int = 0) -> Ragged:
    """Sequences of many lengths, left-padded prompts and right-padded responses, padding of token `padding`."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.full((4, WIDTH + LENGTH), padding)
    mask = torch.zeros(4, WIDTH + LENGTH, dtype=torch.bool)
    sequences = []
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        ids = torch.randint(4, len(TOKENIZER), (prompt + response,), generator=generator)
        place = slice(WIDTH - prompt, WIDTH + response)
        tokens[row, place], mask[row, place] = ids, True
        sequences.append(ids.tolist())
    return Ragged(tokens, mask, mask[:, WIDTH:], sequences)


@pytest.fixture(scope="module", params=["s by lab", "s by transformers", "moe by transformers"])
def network(request: pytest.FixtureRequest) -> torch.nn.Module:
    name, implementation = request.param.split(" by ")
    model = compose_run([f"model={name}", f"model.implementation={implementation}"]).model
    assert isinstance(model, ScratchModel)
    return scratch_policy(model, TOKENIZER, 1)


def alone(network: torch.nn.Module, batch: Ragged, temperature: float) -> list[Tensor]:
    """Log-distributions [response, V] of each sequence on its own: no padding, no batch, no chunks."""
    found = []
    for ids, prompt in zip(batch.sequences, PROMPTS, strict=True):
        logits = network(torch.tensor([ids])).logits[0, prompt - 1 : -1]
        found.append(torch.log_softmax(logits.float() / temperature, -1))
    return found


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_statistics_equal_those_of_each_sequence_alone(network: torch.nn.Module, temperature: float) -> None:
    batch = ragged()
    chosen = torch.randint(0, len(TOKENIZER), (4, LENGTH, 5), generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        found = token_statistics(
            network, batch.tokens, batch.mask, WIDTH, temperature=temperature, chosen=chosen, full=True
        )
        expected = alone(network, batch, temperature)
    assert found.chosen_logp is not None
    assert found.log_distribution is not None
    for row, (distribution, response) in enumerate(zip(expected, RESPONSES, strict=True)):
        ids = torch.tensor(batch.sequences[row][-response:])
        close = {"rtol": 0, "atol": 2e-5}
        torch.testing.assert_close(
            found.logp[row, :response], distribution.gather(-1, ids[:, None])[:, 0], **close
        )
        torch.testing.assert_close(
            found.entropy[row, :response], -(distribution.exp() * distribution).sum(-1), **close
        )
        torch.testing.assert_close(
            found.chosen_logp[row, :response], distribution.gather(-1, chosen[row, :response]), **close
        )
        torch.testing.assert_close(found.log_distribution[row, :response], distribution, **close)


def test_content_of_padding_does_not_matter(network: torch.nn.Module) -> None:
    first, second = ragged(padding=0), ragged(padding=17)
    with torch.no_grad():
        left, right = (
            token_statistics(network, batch.tokens, batch.mask, WIDTH, full=True) for batch in (first, second)
        )
    inside = first.response_mask
    # Not bit for bit: experts take their tokens together, padding among them.
    torch.testing.assert_close(left.logp[inside], right.logp[inside], rtol=0, atol=2e-6)
    torch.testing.assert_close(left.entropy[inside], right.entropy[inside], rtol=0, atol=2e-6)
    assert left.logp.isfinite().all()


def three_positions_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "_KEPT_ENTRIES", 0)
    monkeypatch.setattr(chunked_head, "MIN_ROWS", 3)
    monkeypatch.setattr(chunked_head, "_CHUNK_ENTRIES", 1)


def with_gradients(network: torch.nn.Module, batch: Ragged) -> tuple[TokenStatistics, list[Tensor]]:
    network.zero_grad()
    found = token_statistics(network, batch.tokens, batch.mask, WIDTH, temperature=0.8, entropy_gradient=True)
    weights = torch.linspace(-1, 2, batch.response_mask.sum())
    (found.logp[batch.response_mask] @ weights + found.entropy[batch.response_mask].sum()).backward()
    return found, [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


def test_chunks_change_neither_values_nor_gradients(
    network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = ragged()
    whole, whole_gradients = with_gradients(network, batch)
    # Fifteen real positions of 28 make five chunks.
    three_positions_at_a_time(monkeypatch)
    cut, cut_gradients = with_gradients(network, batch)
    # Relative as well: one unit in the last place of a log-probability of -8 is already 1e-6.
    inside = batch.response_mask
    torch.testing.assert_close(cut.logp[inside], whole.logp[inside], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(cut.entropy[inside], whole.entropy[inside], rtol=1e-6, atol=1e-6)
    assert len(cut_gradients) == len(whole_gradients) > 10
    for left, right in zip(cut_gradients, whole_gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


def test_gradient_is_that_of_the_plain_forward_pass(network: torch.nn.Module) -> None:
    batch = ragged()
    network.zero_grad()
    found = token_statistics(network, batch.tokens, batch.mask, WIDTH)
    found.logp[batch.response_mask].sum().backward()
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    total = torch.zeros(())
    for row, (distribution, response) in enumerate(zip(alone(network, batch, 1.0), RESPONSES, strict=True)):
        ids = torch.tensor(batch.sequences[row][-response:])
        total = total + distribution.gather(-1, ids[:, None]).sum()
    total.backward()
    expected = [p.grad for p in network.parameters() if p.grad is not None]
    for left, right in zip(gradients, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4)


def test_entropy_carries_gradient_only_when_asked(network: torch.nn.Module) -> None:
    batch = ragged()
    assert not token_statistics(network, batch.tokens, batch.mask, WIDTH).entropy.requires_grad
    asked = token_statistics(network, batch.tokens, batch.mask, WIDTH, entropy_gradient=True)
    assert asked.entropy.requires_grad


@pytest.mark.parametrize("with_chosen", [False, True])
def test_collision_is_the_sum_of_squared_probabilities(
    network: torch.nn.Module, with_chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = ragged()
    chosen = torch.zeros(4, LENGTH, 2, dtype=torch.long) if with_chosen else None
    three_positions_at_a_time(monkeypatch)
    found = token_statistics(
        network, batch.tokens, batch.mask, WIDTH, temperature=0.7, chosen=chosen, full=True, collision=True
    )
    assert found.collision is not None
    assert found.log_distribution is not None
    assert (found.chosen_logp is not None) == with_chosen
    expected = found.log_distribution.exp().square().sum(-1)
    torch.testing.assert_close(found.collision[batch.response_mask], expected[batch.response_mask])
    assert not found.collision.requires_grad
    assert token_statistics(network, batch.tokens, batch.mask, WIDTH).collision is None


def test_entropy_lies_between_zero_and_that_of_the_uniform_distribution(network: torch.nn.Module) -> None:
    batch = ragged()
    with torch.no_grad():
        entropy = token_statistics(network, batch.tokens, batch.mask, WIDTH, temperature=5.0).entropy
    assert (entropy >= 0).all()
    assert (entropy <= torch.tensor(float(len(TOKENIZER))).log() + 1e-5).all()


def test_a_model_that_transforms_its_logits_behind_the_head_is_refused(tmp_path: Path) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    from cppo_lab.errors import UserError
    from cppo_lab.models.loading import load_policy
    from cppo_lab.models.tokenizers import vocabulary_tokenizer

    tokenizer = vocabulary_tokenizer([chr(ord("a") + i) for i in range(26)])
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        final_logit_softcapping=0.5,
    )
    torch.manual_seed(0)
    network = Gemma2ForCausalLM(config)
    with torch.no_grad():
        # Logits of a trained model's size, which the cap really cuts.
        network.get_output_embeddings().weight.mul_(20)
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"capped after the output head \(final_logit_softcapping: 0\.5\)"):
        load_policy(str(tmp_path))


def test_a_loaded_policy_has_no_dropout(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from cppo_lab.models.loading import load_policy
    from cppo_lab.models.tokenizers import vocabulary_tokenizer

    tokenizer = vocabulary_tokenizer([chr(ord("a") + i) for i in range(26)])
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2)).save_pretrained(
        tmp_path
    )
    tokenizer.save_pretrained(tmp_path)
    network = load_policy(str(tmp_path)).network
    tokens = torch.arange(6).unsqueeze(0)
    still = network(input_ids=tokens).logits
    assert torch.equal(network.train()(input_ids=tokens).logits, still)


def test_values_are_float32_in_a_policy_that_computes_in_bfloat16() -> None:
    network = random_policy(vocabulary_tokenizer(("a", "b"))).network
    critic = Critic(network, "separate")
    hidden = torch.randn(2, 3, network.config.hidden_size)
    with torch.autocast("cpu", torch.bfloat16):
        values = critic.of_hidden(hidden.bfloat16())
    assert values.dtype == torch.float32
    assert values.shape == (2, 3)
