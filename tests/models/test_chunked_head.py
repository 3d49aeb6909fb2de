"""The chunked output head against the plain way: every logit kept, and gradients by autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cppo_lab.models import chunked_head, logprobs
from cppo_lab.models.chunked_head import ChunkedHead, HeadOptions
from cppo_lab.models.logprobs import head_statistics

VOCABULARY, WIDTH = 53, 12


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of five positions, and blocks of two within them."""
    monkeypatch.setattr(chunked_head, "MIN_ROWS", 5)
    monkeypatch.setattr(chunked_head, "_CHUNK_ENTRIES", 1)
    monkeypatch.setattr(chunked_head, "_BLOCK_ENTRIES", 2 * VOCABULARY)


def plain(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tokens: Tensor,
    chosen: Tensor | None,
    options: HeadOptions,
) -> tuple[Tensor | None, ...]:
    logits = nn.functional.linear(hidden, weight, bias)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / options.temperature
    distribution = torch.log_softmax(logits, -1)
    entropy = -(distribution.exp() * distribution).sum(-1)
    return (
        distribution.gather(-1, tokens[:, None])[:, 0],
        entropy if options.entropy_gradient else entropy.detach(),
        None if chosen is None else distribution.gather(-1, chosen).detach(),
        distribution.exp().square().sum(-1).detach() if options.collision else None,
    )


def inputs(rows: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "hidden": torch.randn(rows, WIDTH, generator=generator, dtype=dtype),
        "weight": torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=dtype),
        "bias": torch.randn(VOCABULARY, generator=generator, dtype=dtype),
        "tokens": torch.randint(VOCABULARY, (rows,), generator=generator),
        "chosen": torch.randint(VOCABULARY, (rows, 4), generator=generator),
        "grad": torch.randn(rows, generator=generator, dtype=dtype),
        "entropy_grad": torch.randn(rows, generator=generator, dtype=dtype),
    }


def run(compute: Any, given: dict[str, Tensor], options: HeadOptions, biased: bool = True) -> Any:
    """What `compute` returns, and the gradients of hidden, weight and bias for a loss of both statistics."""
    leaves = [given[name].clone().requires_grad_() for name in ("hidden", "weight", "bias")]
    hidden, weight, bias = leaves
    found = compute(hidden, weight, bias if biased else None, given["tokens"], given["chosen"], options)
    loss = found[0] @ given["grad"].to(found[0].dtype)
    if options.entropy_gradient:
        loss = loss + found[1] @ given["entropy_grad"].to(found[1].dtype)
    loss.backward()
    return found, [leaf.grad for leaf in (leaves if biased else leaves[:2])]


@given(
    rows=st.integers(1, 23),
    seed=st.integers(0, 1 << 20),
    temperature=st.sampled_from([1.0, 0.6, 1.7]),
    entropy_gradient=st.booleans(),
    collision=st.booleans(),
    biased=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=60, deadline=None)
def test_values_and_gradients_are_the_plain_ones(
    rows: int,
    seed: int,
    temperature: float,
    entropy_gradient: bool,
    collision: bool,
    biased: bool,
    dtype: torch.dtype,
) -> None:
    options = HeadOptions(temperature, entropy_gradient, collision)
    batch = inputs(rows, seed, dtype)
    found, gradients = run(ChunkedHead.apply, batch, options, biased)
    expected, expected_gradients = run(plain, batch, options, biased)
    close = {"rtol": 1e-10, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 3e-5}
    for left, right in zip([*found, *gradients], [*expected, *expected_gradients], strict=True):
        assert (left is None) == (right is None)
        if left is not None:
            torch.testing.assert_close(left, right, **close)


@pytest.mark.parametrize("same_sign", [False, True])
def test_in_bfloat16_the_gradients_are_as_exact_as_the_plain_ones(same_sign: bool) -> None:
    """Hundreds of chunks, whose gradients of the head add up in float32."""
    batch = inputs(2000, dtype=torch.float64)
    if same_sign:
        batch["grad"], batch["hidden"] = batch["grad"].abs(), batch["hidden"].abs()
    exact = run(plain, batch, HeadOptions())[1]
    single = {name: value.float() if value.is_floating_point() else value for name, value in batch.items()}
    with torch.autocast("cpu", torch.bfloat16):
        rounded, ours = (run(way, single, HeadOptions())[1] for way in (plain, ChunkedHead.apply))
    for right, plainly, chunked in zip(exact, rounded, ours, strict=True):
        assert chunked.dtype == torch.float32
        assert (chunked - right).norm() <= 1.1 * (plainly - right).norm()


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_an_input_that_needs_no_gradient_gets_none(frozen: str) -> None:
    batch = inputs(13)
    leaves = {name: batch[name].clone().requires_grad_(name != frozen) for name in ("hidden", "weight")}
    found = ChunkedHead.apply(
        leaves["hidden"], leaves["weight"], None, batch["tokens"], None, HeadOptions(entropy_gradient=True)
    )
    (found[0].sum() + found[1].sum()).backward()
    assert leaves[frozen].grad is None
    other = "weight" if frozen == "hidden" else "hidden"
    again = {name: batch[name].clone().requires_grad_() for name in ("hidden", "weight")}
    plainly = plain(again["hidden"], again["weight"], None, batch["tokens"], None, HeadOptions(1.0, True))
    (plainly[0].sum() + plainly[1].sum()).backward()  # type: ignore[union-attr]
    torch.testing.assert_close(leaves[other].grad, again[other].grad, rtol=1e-4, atol=1e-5)


def test_padding_and_positions_without_a_gradient_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "_KEPT_ENTRIES", 1)
    batch = inputs(20)
    head = nn.Linear(WIDTH, VOCABULARY, bias=False)
    inside = torch.arange(20) % 4 != 0
    rows: list[int] = []
    real = chunked_head._logits

    def counted(states: Tensor, *rest: Any) -> Tensor:
        rows.append(len(states))
        return real(states, *rest)

    monkeypatch.setattr(chunked_head, "_logits", counted)
    hidden = batch["hidden"].requires_grad_()
    found = head_statistics(hidden, head, batch["tokens"], inside, batch["chosen"], HeadOptions())
    assert sum(rows) == 15
    assert found.logp[~inside].eq(0).all()
    rows.clear()
    acting = inside & (torch.arange(20) < 8)
    found.logp[acting].sum().backward()
    assert sum(rows) == 6
    assert hidden.grad is not None
    assert hidden.grad[acting].ne(0).any(-1).all()
    assert hidden.grad[~acting].eq(0).all()


def test_no_position_at_all_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "_KEPT_ENTRIES", 0)
    batch = inputs(7)
    head = nn.Linear(WIDTH, VOCABULARY)
    found = head_statistics(
        batch["hidden"], head, batch["tokens"], torch.zeros(7, dtype=torch.bool), None, HeadOptions()
    )
    found.logp.sum().backward()
    assert found.logp.eq(0).all()
    assert head.weight.grad is not None
    assert head.weight.grad.eq(0).all()


class LargestTensor(TorchDispatchMode):
    """Counts the entries of the largest tensor that any operation makes, apart from views."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else [found]:
            if isinstance(each, Tensor):
                self.entries = max(self.entries, each.untyped_storage().nbytes() // each.element_size())
        return found


def test_memory_does_not_grow_with_positions() -> None:
    largest = []
    for rows in (40, 400):
        batch = inputs(rows)
        # The inputs' own sizes grow; with so narrow states they stay below a chunk's.
        for name in ("hidden", "weight"):
            batch[name] = batch[name][:, :1].contiguous()
        with LargestTensor() as mode:
            run(ChunkedHead.apply, batch, HeadOptions(), biased=False)
        largest.append(mode.entries)
    assert largest[0] <= 5 * VOCABULARY
    assert largest[1] <= max(5 * VOCABULARY, 400 * 4)
