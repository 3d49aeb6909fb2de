"""The lab's own decoder equals that of transformers: states, gradients and sampling, whatever the batch looks like."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import engine_for, tiny_config
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from cppo_lab.config.compose import compose_run
from cppo_lab.errors import UserError
from cppo_lab.models.config import ScratchModel
from cppo_lab.models.decoder.incremental import IncrementalDecoder
from cppo_lab.models.decoder.layers import product, product_backward
from cppo_lab.models.implementation import implement, is_by_lab
from cppo_lab.models.loading import Policy
from cppo_lab.models.logprobs import response_hidden
from cppo_lab.models.scratch import scratch_policy
from cppo_lab.models.tokenizers import vocabulary_tokenizer
from cppo_lab.rollouts.rollout import SamplingSettings
from cppo_lab.tasks.chain import VOCABULARY, ChainTask

TOKENIZER = vocabulary_tokenizer(VOCABULARY)


def exact_norm(module: Qwen3RMSNorm | LlamaRMSNorm, x: Tensor) -> Tensor:
    scale = (x.square().mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()
    return module.weight * (x * scale)


def llama_of(config: Any) -> nn.Module:
    """A Llama model of the same shape, whose heads are not normed."""
    shared = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    more = (
        "num_key_value_heads",
        "head_dim",
        "rms_norm_eps",
        "tie_word_embeddings",
        "max_position_embeddings",
    )
    sizes = {key: getattr(config, key) for key in (*shared, *more)}
    torch.manual_seed(1)
    # A padding token that is the end token, as SmolLM2 has it.
    return LlamaForCausalLM(LlamaConfig(**sizes, pad_token_id=1, eos_token_id=1, rope_theta=1e5)).eval()


@functools.cache
def pair(
    model: str = "s", dtype: torch.dtype = torch.float64, kv_heads: int = 2, is_llama: bool = False
) -> tuple[nn.Module, nn.Module]:
    """The same random weights, computed by transformers and by the lab. No norm's weight is 1."""
    theirs_alone = (f"model.kv_heads={kv_heads}", "model.implementation=transformers")
    config = compose_run([f"model={model}", *theirs_alone]).model
    assert isinstance(config, ScratchModel)
    theirs: nn.Module = scratch_policy(config, TOKENIZER, 1)
    if is_llama:
        theirs = llama_of(theirs.config)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    theirs = theirs.to(dtype)
    if dtype == torch.float64:
        for module in theirs.modules():
            if isinstance(module, Qwen3RMSNorm | LlamaRMSNorm):
                # transformers norms in float32 whatever the dtype.
                module.forward = functools.partial(exact_norm, module)  # type: ignore[method-assign]
    ours = copy.deepcopy(theirs)
    implement(ours, "lab")
    return theirs, ours


def batch(
    groups: list[int], copies: list[int], responses: list[int], seed: int
) -> tuple[Tensor, Tensor, int]:
    """Tokens and mask [B, P + T] and P: each of `groups` is a prompt's length, repeated `copies` times."""
    generator = torch.Generator().manual_seed(seed)
    width, longest = max(groups), max(responses)
    rows, masks, place = [], [], 0
    for length, count in zip(groups, copies, strict=True):
        prompt = torch.randint(4, len(TOKENIZER), (length,), generator=generator)
        for _ in range(count):
            size = responses[place % len(responses)]
            place += 1
            # Padding holds any token: it may not matter.
            row = torch.randint(0, len(TOKENIZER), (width + longest,), generator=generator)
            row[width - length : width] = prompt
            mask = torch.zeros(width + longest, dtype=torch.bool)
            mask[width - length : width + size] = True
            rows.append(row)
            masks.append(mask)
    return torch.stack(rows), torch.stack(masks), width


def states_and_gradients(
    network: nn.Module, tokens: Tensor, mask: Tensor, width: int
) -> tuple[Tensor, dict[str, Tensor]]:
    network.zero_grad()
    states = response_hidden(network, tokens, mask, width) * mask[:, width:].unsqueeze(-1)
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    (states * weights.to(states.dtype)).sum().backward()
    return states.detach(), {
        name: parameter.grad.clone()
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }


SHAPES = st.lists(st.integers(1, 7), min_size=1, max_size=3).flatmap(
    lambda groups: st.tuples(
        st.just(groups),
        st.lists(st.integers(1, 3), min_size=len(groups), max_size=len(groups)),
        st.lists(st.integers(1, 9), min_size=1, max_size=6),
        st.integers(0, 99),
    )
)


@pytest.mark.parametrize("is_llama", [False, True], ids=["qwen3", "llama"])
@given(shape=SHAPES)
def test_states_and_gradients_are_those_of_transformers(
    is_llama: bool, shape: tuple[list[int], list[int], list[int], int]
) -> None:
    theirs, ours = pair(is_llama=is_llama)
    inputs = batch(*shape)
    expected, expected_gradients = states_and_gradients(theirs, *inputs)
    found, gradients = states_and_gradients(ours, *inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        scale = 1 + float(expected_gradients[name].abs().max())
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=0, atol=1e-11 * scale)


@pytest.mark.parametrize("is_llama", [False, True], ids=["qwen3", "llama"])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_heads_may_share_keys_in_any_number(kv_heads: int, is_llama: bool) -> None:
    theirs, ours = pair(kv_heads=kv_heads, is_llama=is_llama)
    tokens, mask, width = batch([4, 2], [2, 3], [5, 1, 7], 3)
    expected, expected_gradients = states_and_gradients(theirs, tokens, mask, width)
    found, gradients = states_and_gradients(ours, tokens, mask, width)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        decoder = IncrementalDecoder(ours, tokens[:, :width], mask[:, :width], 1)
        head = ours.get_output_embeddings()  # type: ignore[operator]
        torch.testing.assert_close(decoder.logits, head(expected[:, 0]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("model", ["s", "m", "l"])
def test_float32_rounds_no_more_than_transformers(model: str) -> None:
    theirs, ours = pair(model, torch.float32)
    exact, _ = pair(model)
    inputs = batch([9, 4], [4, 3], [20, 12, 30, 3], 0)
    truth, true_gradients = states_and_gradients(exact, *inputs)
    errors = []
    for network in (theirs, ours):
        states, gradients = states_and_gradients(network, *inputs)
        errors.append(
            (
                float((states.double() - truth).abs().max()),
                max(float((gradients[n].double() - g).norm() / g.norm()) for n, g in true_gradients.items()),
            )
        )
    assert errors[1][0] < 2 * errors[0][0] + 1e-6
    assert errors[1][1] < 2 * errors[0][1] + 1e-7


def test_order_of_rows_does_not_matter() -> None:
    """Prompts are shared between neighbours alone, and sharing is not seen in the result."""
    _, ours = pair()
    tokens, mask, width = batch([5, 3], [3, 3], [4, 6, 2], 0)
    order = torch.tensor([0, 3, 1, 4, 2, 5])
    with torch.no_grad():
        together = response_hidden(ours, tokens, mask, width)
        apart = response_hidden(ours, tokens[order], mask[order], width)
    inside = mask[order][:, width:]
    torch.testing.assert_close(apart[inside], together[order][inside], rtol=0, atol=1e-12)


def test_frozen_weights_and_no_grad_give_states_without_gradients() -> None:
    ours = copy.deepcopy(pair()[1])
    inputs = batch([3], [2], [4, 2], 0)
    with torch.no_grad():
        assert not response_hidden(ours, *inputs).requires_grad
    assert response_hidden(ours, *inputs).requires_grad
    assert not response_hidden(ours.requires_grad_(False), *inputs).requires_grad


def test_some_frozen_weights_leave_the_others_their_gradients() -> None:
    ours = copy.deepcopy(pair()[1])
    inputs = batch([3, 4], [2, 1], [4, 2], 0)
    _, expected = states_and_gradients(ours, *inputs)
    frozen = "model.layers.0.mlp.up_proj.weight"
    ours.get_parameter(frozen).requires_grad_(False)
    _, found = states_and_gradients(ours, *inputs)
    assert frozen not in found
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-12)


def test_states_are_not_differentiated_twice() -> None:
    _, ours = pair()
    states = response_hidden(ours, *batch([3], [1], [4], 0))
    weight = ours.get_parameter("model.norm.weight")
    (first,) = torch.autograd.grad(states.square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("is_llama", [False, True], ids=["qwen3", "llama"])
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    steps=st.integers(1, 6),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_growing_sequences_have_the_logits_of_whole_ones(
    is_llama: bool, lengths: list[int], steps: int, seed: int, data: st.DataObject
) -> None:
    theirs, ours = pair(is_llama=is_llama)
    copies = [data.draw(st.integers(1, 3)) for _ in lengths]
    tokens, mask, width = batch(lengths, copies, [steps], seed)
    prompts, prompt_mask = tokens[:, :width], mask[:, :width]
    with torch.no_grad():
        states = response_hidden(theirs, tokens, mask, width)
        expected: Tensor = theirs.get_output_embeddings()(states)  # type: ignore[operator]
        decoder = IncrementalDecoder(ours, prompts, prompt_mask, steps)
        rows = torch.arange(len(tokens))
        for t in range(steps):
            torch.testing.assert_close(decoder.logits, expected[rows, t], rtol=0, atol=1e-10)
            kept = [i for i in range(len(rows)) if data.draw(st.booleans())] or [0]
            decoder.keep(torch.tensor(kept))
            rows = rows[kept]
            if t + 1 < steps:
                decoder.append(tokens[rows, width + t])


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7, "topk": 3, "full": True, "entropy": True},
        {"top_p": 0.8, "repetition_penalty": 1.3},
        {"greedy": True},
        {"row_seeds": tuple(range(60))},
    ],
    ids=["distributions", "filters", "greedy", "row seeds"],
)
def test_engine_samples_what_transformers_would(settings: dict[str, Any]) -> None:
    theirs, ours = pair("s", torch.float32)
    problems = [p for steps in (1, 2, 3) for p in ChainTask(steps, 16).heldout_problems()[:5]]
    prompts = [ids for p in problems for ids in [Policy(theirs, TOKENIZER).prompt_ids(p.prompt)] * 4]  # type: ignore[arg-type]
    first, second = (
        engine_for(Policy(network, TOKENIZER), batch_size=23).sample(  # type: ignore[arg-type]
            prompts, SamplingSettings(24, seed=7, **settings)
        )
        for network in (theirs, ours)
    )
    same = (first.tokens == second.tokens).all(-1)
    # A draw within rounding of the edge between two tokens may fall on either side.
    assert same.float().mean() > 0.95
    torch.testing.assert_close(second.logp[same], first.logp[same], rtol=0, atol=1e-4)
    for name in ("topk_logp", "log_distribution", "entropy"):
        theirs_has, ours_has = getattr(first, name), getattr(second, name)
        assert (theirs_has is None) == (ours_has is None)
        if ours_has is not None:
            torch.testing.assert_close(ours_has[same], theirs_has[same], rtol=0, atol=1e-4)


def test_engine_in_bfloat16_is_as_far_from_float32_as_that_of_transformers() -> None:
    theirs, ours = pair("s", torch.float32)
    prompts = [[5, 9, 11, 4], [7, 8]] * 20
    exact = engine_for(Policy(theirs, TOKENIZER)).sample(prompts, SamplingSettings(12, seed=1, full=True))  # type: ignore[arg-type]
    assert exact.log_distribution is not None
    errors = []
    for network in (theirs, ours):
        engine = engine_for(Policy(network, TOKENIZER), weights="bfloat16")  # type: ignore[arg-type]
        found = engine.sample(prompts, SamplingSettings(1, seed=1, full=True)).log_distribution
        assert found is not None
        errors.append(float((found - exact.log_distribution[:, :1]).abs().mean()))
    assert errors[0] / 2 < errors[1] < errors[0] * 2
    assert errors[1] > 1e-4


def test_product_is_that_of_matrices_on_every_layout() -> None:
    generator = torch.Generator().manual_seed(0)
    for rows, inner, columns in ((1, 3, 5), (33, 64, 45), (200, 16, 7)):
        x = torch.randn(rows, inner, generator=generator)
        weight = torch.randn(columns, inner, generator=generator)
        grad = torch.randn(rows, columns, generator=generator)
        for left in (x, torch.randn(inner, rows, generator=generator).T):
            torch.testing.assert_close(product(left, weight), left @ weight.T, rtol=1e-5, atol=1e-5)
            of_x, of_weight = product_backward(grad, left, weight)
            torch.testing.assert_close(of_x, grad @ weight, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(of_weight, grad.T @ left, rtol=1e-4, atol=1e-4)
    assert product(torch.zeros(0, 3), torch.zeros(5, 3)).shape == (0, 5)


def test_lab_computes_dense_qwen3_alone() -> None:
    network = scratch_policy(compose_run(["model=moe"]).model, TOKENIZER, 0)  # type: ignore[arg-type]
    assert not is_by_lab(network)
    with pytest.raises(ValueError, match="Qwen3MoeForCausalLM: the lab's decoder computes dense Qwen3"):
        implement(network, "lab")
    with pytest.raises(UserError, match=r"model.implementation=lab: computes models without experts alone"):
        compose_run(["model=moe", "model.implementation=lab"])


def test_copies_of_a_network_inherit_its_implementation(output: Any) -> None:
    network = scratch_policy(tiny_config(output).model, TOKENIZER, 0)  # type: ignore[arg-type]
    assert is_by_lab(network)
    assert is_by_lab(copy.deepcopy(network))
