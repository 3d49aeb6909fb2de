"""Cost of each method's mask and loss, against loops over sequences and against a training step.

    python benchmarks/objectives.py                          every method, both shapes
    python benchmarks/objectives.py --model m                also as a share of that model's training step
    python benchmarks/objectives.py --step-seconds 0.8       the same, with a time measured elsewhere
    python benchmarks/objectives.py --json results.json

Timings are medians of wall-clock seconds on one thread (`--threads`), forward and backward, of the batched
call and of its peers in the same process:

- rows: the same rules called once per response on its unpadded tokens;
- Algorithm 1: CPPO's mask as its paper writes it, response by response and token by token, once on the
  tensors as they come (timed once) and once on Python numbers that were copied out beforehand (not timed).
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cppo_lab.objectives import (
    TokenBatch,
    TopK,
    aggregate,
    batch_statistics,
    denominator,
    method,
    method_names,
    token_objective,
)
from cppo_lab.objectives.spec import AlgoSpec
from cppo_lab.objectives.trust_regions import RegionInputs, prefix_budget

Number = float | Tensor
SHAPES = ((256, 2048), (64, 8192))
SHORTEST_SHARE = 0.1
"""Responses are between this share of the width and the whole width long, uniformly."""


def make_batch(rows: int, width: int, algo: AlgoSpec, seed: int = 0) -> TokenBatch:
    """Random log-probabilities a few percent apart, right-padded; with the tensors that `algo` requires."""
    generator = torch.Generator().manual_seed(seed)
    rollout_logp = -2 * torch.rand(rows, width, generator=generator)
    logp = (rollout_logp + 0.1 * torch.randn(rows, width, generator=generator)).clamp(max=-1e-4)
    lengths = torch.randint(int(SHORTEST_SHARE * width), width + 1, (rows, 1), generator=generator)
    needs = algo.requirements
    topk = None
    if needs.needs_topk is not None:
        shape = (rows, width, needs.needs_topk)
        listed = (torch.rand(shape, generator=generator).log_softmax(-1) - 0.2).contiguous()
        near = listed + 0.1 * torch.rand(shape, generator=generator) - 0.05
        topk = TopK(listed, near, torch.rand(rows, width, generator=generator) < 0.9)
    return TokenBatch(
        logp=logp.requires_grad_(),
        rollout_logp=rollout_logp,
        advantages=torch.randn(rows, generator=generator),
        response_mask=torch.arange(width) < lengths,
        old_logp=rollout_logp if needs.needs_old_logp else None,
        topk=topk,
        vocabulary=None if topk is None else 1000,
        weight_order=torch.rand(rows, width, generator=generator) if needs.needs_weight_order else None,
        rollout_entropy=torch.rand(rows, width, generator=generator) if needs.needs_rollout_entropy else None,
        version_lag=torch.full((rows, width), 2) if needs.needs_version_lag else None,
        selection_order=torch.rand(rows, width, generator=generator) if needs.needs_selection_order else None,
        prompt=torch.arange(rows) // 8 if needs.needs_prompt else None,
    )


def unpadded_rows(batch: TokenBatch) -> list[TokenBatch]:
    """Each response as a batch of one row, cut to its own length."""
    lengths = batch.response_mask.sum(-1).tolist()
    return [_cut(batch.rows(slice(row, row + 1)), length) for row, length in enumerate(lengths)]


def _cut(batch: TokenBatch, length: int) -> TokenBatch:
    """The first `length` columns, with a leaf of their own for the gradient."""

    def cut(value: Any) -> Any:
        if isinstance(value, TopK):
            return TopK(*map(cut, (value.rollout_logp, value.policy_logp, value.contains_sampled)))
        return value[:, :length] if isinstance(value, Tensor) and value.dim() > 1 else value

    parts = {each.name: cut(getattr(batch, each.name)) for each in fields(batch)}
    return TokenBatch(**{**parts, "logp": parts["logp"].detach().requires_grad_()})


def batched(batch: TokenBatch, algo: AlgoSpec) -> None:
    """One call for the whole batch, and its backward pass."""
    total = denominator(batch.response_mask, algo.aggregation)
    objective = token_objective(batch, algo, statistics=batch_statistics([batch], algo))
    aggregate(objective.loss, batch.response_mask, algo.aggregation, total).backward()


def by_rows(rows: list[TokenBatch], algo: AlgoSpec, total: Tensor) -> None:
    """One call per response; the losses are summed, so the denominator is the batch's."""
    statistics_of_all = batch_statistics(rows, algo)
    for row in rows:
        objective = token_objective(row, algo, statistics=statistics_of_all)
        aggregate(objective.loss, row.response_mask, algo.aggregation, total).backward()


def algorithm_one(
    divergence: Sequence[Sequence[Number]],
    away: Sequence[Sequence[Number]],
    delta: float,
    size: float,
    w_min: float,
) -> list[list[bool]]:
    """CPPO's keep mask with an adaptive budget, token by token (Algorithm 1, Eq. 8-10 and 22).

    Responses are unpadded; their values are Python numbers or the elements of one-dimensional tensors.
    """
    keep = []
    for distances, moving in zip(divergence, away, strict=True):
        length = len(distances)
        ordered = sorted(float(distance) for distance in distances)
        rank = 0.9 * (length - 1)
        low = math.floor(rank)
        high = min(low + 1, length - 1)
        typical = ordered[low] + (ordered[high] - ordered[low]) * (rank - low)
        budget = min(2 * size, max(size, typical))
        spent: Number = 0.0
        weighed, row = 0.0, []
        for index, (distance, leaves) in enumerate(zip(distances, moving, strict=True)):
            weight = 1 - (1 - w_min) * index / max(length - 1, 1)
            threshold = min(delta, delta + budget * weighed - spent)
            row.append(bool(not leaves or weight * distance <= threshold))
            spent = spent + weight * distance
            weighed += weight
        keep.append(row)
    return keep


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median wall-clock seconds of `call`, after one call that is not counted."""
    call()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def compare_masks(rows: int, width: int, repeats: int) -> dict[str, float]:
    """CPPO's mask, batched and by Algorithm 1, on the same divergences: seconds, their ratio,
    disagreements."""
    algo = method("cppo_binary")
    batch = make_batch(rows, width, algo)
    mask = batch.response_mask
    objective = token_objective(batch, algo)
    assert objective.divergence is not None, "cppo_binary has a divergence"
    distance, away = objective.divergence, mask & ~objective.toward
    inputs = RegionInputs(
        spec=algo.trust_region,
        ratio=objective.ratio,
        advantages=objective.advantages,
        away=away,
        mask=mask,
        thresholds=objective.thresholds,
        distance=distance,
    )
    tensors = [values[inside] for values, inside in zip(distance, mask, strict=True)]
    tensors_away = [values[inside] for values, inside in zip(away, mask, strict=True)]
    numbers, numbers_away = [t.double().tolist() for t in tensors], [t.tolist() for t in tensors_away]

    def loop(distances: Any, moving: Any) -> list[list[bool]]:
        return algorithm_one(distances, moving, 0.15, 0.02, 0.8)

    def whole() -> Tensor:
        return prefix_budget(inputs, delta=0.15).gate

    start = time.perf_counter()
    kept = torch.cat([torch.tensor(row) for row in loop(tensors, tensors_away)])
    slow = time.perf_counter() - start
    fast = seconds(whole, repeats)
    plain = seconds(lambda: loop(numbers, numbers_away), max(1, repeats // 3))
    return {
        "batched_s": fast,
        "algorithm_1_tensors_s": slow,
        "algorithm_1_numbers_s": plain,
        "times_faster_than_tensors": slow / fast,
        "times_faster_than_numbers": plain / fast,
        "decisions_that_differ": int((kept != (whole() > 0)[mask]).sum()),
    }


def training_step_seconds(model: str, rows: int, width: int, measured_rows: int = 2) -> float:
    """Forward and backward pass of a model of the ladder over [rows, width] response tokens.

    Measured on a few rows and multiplied, since rows are independent; the cheapest step there is, with one
    update.
    """
    from cppo_lab.config.compose import compose_run
    from cppo_lab.models.config import ScratchModel
    from cppo_lab.models.logprobs import token_statistics
    from cppo_lab.models.scratch import scratch_policy
    from cppo_lab.models.tokenizers import vocabulary_tokenizer

    ladder = compose_run([f"model={model}"]).model
    if not isinstance(ladder, ScratchModel):
        raise SystemExit(f"--model {model}: must be a model of the ladder")
    network = scratch_policy(
        ladder, vocabulary_tokenizer([str(digit) for digit in range(40)]), seed=0
    ).train()
    tokens = torch.randint(4, 40, (measured_rows, width + 1))
    attention = torch.ones_like(tokens)

    def step() -> None:
        token_statistics(network, tokens, attention, 1).logp.sum().backward()

    return seconds(step, 1) * rows / measured_rows


def main() -> None:
    """Run the comparison and print it as tables."""
    parser = argparse.ArgumentParser(description="Cost of each method's mask and loss.")
    parser.add_argument("--methods", nargs="*", default=None, help="method names; all by default")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--step-seconds", type=float, default=None, help="measured time of one training step")
    parser.add_argument("--model", default=None, help="measure the training step of this model of the ladder")
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: list[dict[str, float | str]] = []
    for rows, width in SHAPES:
        step = options.step_seconds
        if options.model is not None:
            step = training_step_seconds(options.model, rows, width)
        mask_cost = compare_masks(rows, width, options.repeats)
        print(f"\n[{rows}, {width}], {options.threads} thread(s), torch {torch.__version__}")
        print(
            f"CPPO's mask: batched {1e3 * mask_cost['batched_s']:.1f} ms; Algorithm 1 on tensors "
            f"{mask_cost['algorithm_1_tensors_s']:.2f} s ({mask_cost['times_faster_than_tensors']:.0f} times), "
            f"on Python numbers {mask_cost['algorithm_1_numbers_s']:.3f} s "
            f"({mask_cost['times_faster_than_numbers']:.1f} times); "
            f"{mask_cost['decisions_that_differ']:.0f} decisions differ"
        )
        results.append({"shape": f"{rows}x{width}", "method": "cppo mask", **mask_cost})
        print(
            f"{'method':24}{'batched ms':>12}{'rows ms':>10}{'ratio':>8}"
            + (f"   % of a step of {step:.1f} s" if step else "")
        )
        for name in options.methods or method_names():
            algo = method(name, max_response_length=width)
            batch = make_batch(rows, width, algo)
            parts = unpadded_rows(batch)
            total = denominator(batch.response_mask, algo.aggregation)
            whole = seconds(partial(batched, batch, algo), options.repeats)
            split = seconds(partial(by_rows, parts, algo, total), max(1, options.repeats // 3))
            line = f"{name:24}{1e3 * whole:12.1f}{1e3 * split:10.1f}{split / whole:8.1f}"
            record: dict[str, float | str] = {
                "shape": f"{rows}x{width}",
                "method": name,
                "batched_s": whole,
                "rows_s": split,
            }
            if step:
                record["share_of_step"] = whole / step
                line += f"{100 * whole / step:14.2f}"
            print(line, flush=True)
            results.append(record)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
