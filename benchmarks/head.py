"""The output head forward and backward three ways: plainly, by checkpointed chunks, and by the lab's chunked head.

    python benchmarks/head.py                                     V = 151,936, d = 1024, 2,048 positions, float32
    python benchmarks/head.py --vocabulary 49152 --width 576 --json results.json

All return log-probabilities and entropies of the same random states, and the gradients of states and head for a
weighted sum of the former. They take turns, `--repeats` times after one that does not count; seconds are medians.
Memory is what one pass in a process of its own takes beyond its inputs, at its peak: at `--positions`, and for the
lab's way also at those of `--flat`. Errors are relative norms of the gradients in bfloat16 (autocast) against float64,
with a tenth of width and vocabulary.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cppo_lab.models.chunked_head import MIN_ROWS, ChunkedHead, HeadOptions
from cppo_lab.tracking.provenance import device_name, versions

Way = Callable[[Tensor, nn.Linear, Tensor], tuple[Tensor, Tensor]]
"""Log-probabilities and entropies [N] from states [N, d], the head and tokens [N]."""


def plain(hidden: Tensor, head: nn.Linear, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """All logits at once, kept for the backward pass."""
    logits = head(hidden)
    distribution = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), -1)
    fixed = distribution.detach()
    return distribution.gather(-1, tokens[:, None])[:, 0], -(fixed.exp() * fixed).sum(-1)


def checkpointed(hidden: Tensor, head: nn.Linear, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The same, chunk by chunk under PyTorch's checkpointing."""
    parts = zip(hidden.split(MIN_ROWS), tokens.split(MIN_ROWS), strict=True)
    found = [checkpoint(plain, states, head, ids, use_reentrant=False) for states, ids in parts]
    logp, entropy = (torch.cat(column) for column in zip(*found, strict=True))
    return logp, entropy


def chunked(hidden: Tensor, head: nn.Linear, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The lab's own."""
    logp, entropy, *_ = ChunkedHead.apply(hidden, head.weight, None, tokens, None, HeadOptions())
    return logp, entropy


WAYS: dict[str, Way] = {"plain": plain, "checkpointed": checkpointed, "chunked": chunked}


def inputs(positions: int, width: int, vocabulary: int) -> tuple[Tensor, nn.Linear, Tensor, Tensor]:
    """States with a gradient, a head, tokens, and weights of the tokens in the loss."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(positions, width, generator=generator).requires_grad_()
    head = nn.Linear(width, vocabulary, bias=False)
    nn.init.normal_(head.weight, std=width**-0.5, generator=generator)
    tokens = torch.randint(vocabulary, (positions,), generator=generator)
    return hidden, head, tokens, torch.randn(positions, generator=generator)


def one_pass(way: Way, batch: tuple[Tensor, nn.Linear, Tensor, Tensor]) -> list[Tensor]:
    """Gradients of states and head."""
    hidden, head, tokens, weights = batch
    hidden.grad = head.weight.grad = None
    logp, _ = way(hidden, head, tokens)
    (logp @ weights.to(logp.dtype)).backward()
    assert hidden.grad is not None
    assert head.weight.grad is not None
    return [hidden.grad, head.weight.grad]


def timed(positions: int, width: int, vocabulary: int, repeats: int) -> dict[str, float]:
    """Median seconds of each way, taken in turns."""
    batch = inputs(positions, width, vocabulary)
    seen: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(repeats + 1):
        for name, way in WAYS.items():
            started = time.perf_counter()
            one_pass(way, batch)
            if turn:
                seen[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in seen.items()}


def peak_gib(way: str, positions: int, options: argparse.Namespace) -> float:
    """Peak memory of one pass beyond its inputs, in a process of its own."""
    arguments = ["--width", options.width, "--vocabulary", options.vocabulary, "--threads", options.threads]
    command = [sys.executable, __file__, *map(str, arguments), "--peak", way, "--positions", str(positions)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_of_this_process(way: str, positions: int, width: int, vocabulary: int) -> float:
    """GiB that one pass adds to what its inputs and a first small pass have taken."""
    one_pass(WAYS[way], inputs(2, width, 64))
    batch = inputs(positions, width, vocabulary)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    one_pass(WAYS[way], batch)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / (1 << 20)


def errors(positions: int, width: int, vocabulary: int) -> dict[str, list[float]]:
    """Relative errors of both gradients in bfloat16, for weights of either sign and of one sign."""
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for one_sign in (False, True):
        hidden, head, tokens, weights = inputs(positions, width, vocabulary)
        weights = weights.abs() if one_sign else weights
        exact = one_pass(
            plain, (hidden.detach().double().requires_grad_(), copy.deepcopy(head).double(), tokens, weights)
        )
        for name, way in WAYS.items():
            with torch.autocast("cpu", torch.bfloat16):
                rounded = one_pass(way, (hidden, head, tokens, weights))
            found[name] += [float((a - b).norm() / b.norm()) for a, b in zip(rounded, exact, strict=True)]
    return found


def main() -> None:
    """Run the comparison and print it as a table."""
    parser = argparse.ArgumentParser(description="The output head three ways.")
    parser.add_argument("--positions", type=int, default=2048)
    parser.add_argument("--flat", type=int, nargs="*", default=[512, 8192])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", choices=list(WAYS), default=None, help="print the GiB of one pass alone")
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = (options.width, options.vocabulary)
    if options.peak is not None:
        print(peak_of_this_process(options.peak, options.positions, *size))
        return
    peaks = {name: peak_gib(name, options.positions, options) for name in WAYS}
    flat = {positions: peak_gib("chunked", positions, options) for positions in options.flat}
    off = errors(options.positions, *(each // 10 for each in size))
    seconds = timed(options.positions, *size, options.repeats)
    print(
        f"{'':14}{'seconds':>9}{'ratio':>7}{'GiB':>7}   error of states and head in bfloat16: mixed signs, one sign"
    )
    for name in WAYS:
        ratio = seconds[name] / seconds["plain"]
        shown = "  ".join(f"{100 * each:.2f}%" for each in off[name])
        print(f"{name:14}{seconds[name]:9.2f}{ratio:7.2f}{peaks[name]:7.2f}   {shown}")
    print("chunked, GiB at " + ", ".join(f"{at:,} positions: {gib:.2f}" for at, gib in flat.items()))
    if options.json is not None:
        about = {"device": f"cpu ({device_name('cpu')})", "threads": options.threads, "versions": versions()}
        shape = {"positions": options.positions, "width": size[0], "vocabulary": size[1]}
        found = {"seconds": seconds, "peak_gib": peaks, "chunked_gib_at": flat, "bfloat16_errors": off}
        options.json.write_text(json.dumps({**about, **shape, **found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
