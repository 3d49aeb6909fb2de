"""The lab's decoder and that of transformers in turns: sampling a rollout, and the passes of one update.

    python benchmarks/decoder.py                          three sizes of the ladder
    python benchmarks/decoder.py --models s --json results.json
    python benchmarks/decoder.py --models outputs/models/smollm2-135m --prompts 8 --repeats 3

Random weights, or those of a model's folder, and prompts of the embedded task in float32: `--prompts` of them,
`--group` responses to each. An update is forward, log-probabilities and backward of two groups, other ones each turn.
Medians over `--repeats` turns after one that does not count.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from cppo_lab.config.compose import compose_run
from cppo_lab.models.config import ScratchModel
from cppo_lab.models.device import resolved_device
from cppo_lab.models.implementation import implement
from cppo_lab.models.loading import Policy, load_policy
from cppo_lab.models.logprobs import token_statistics
from cppo_lab.models.scratch import scratch_policy
from cppo_lab.models.tokenizers import vocabulary_tokenizer
from cppo_lab.quiet import quiet_libraries
from cppo_lab.rollouts.native import NativeEngine
from cppo_lab.rollouts.rollout import Rollout, SamplingSettings
from cppo_lab.tasks.chain import VOCABULARY
from cppo_lab.tracking.provenance import device_name, versions

GROUPS_PER_UPDATE = 2
Turn = Callable[[int], object]
"""What is timed, given the number of the turn."""


def policies(model: str, device: str) -> dict[str, Policy]:
    """The same weights by both implementations."""
    if Path(model).is_dir():
        pretrained = load_policy(model, device=device)
        ours = copy.deepcopy(pretrained.network)
        implement(ours, "lab")
        return {"transformers": pretrained, "lab": replace(pretrained, network=ours)}
    config = compose_run([f"model={model}", "model.implementation=transformers"]).model
    assert isinstance(config, ScratchModel)
    tokenizer = vocabulary_tokenizer(VOCABULARY)
    theirs = scratch_policy(config, tokenizer, 0).to(device)
    ours = copy.deepcopy(theirs)
    implement(ours, "lab")
    return {"transformers": Policy(theirs, tokenizer), "lab": Policy(ours, tokenizer)}


def sampling(policy: Policy, prompts: list[list[int]], limit: int) -> Turn:
    """Samples all responses, finished groups leaving the batch."""
    engine = NativeEngine(policy.network, pad_token=policy.pad_token, eos_token=policy.eos_token)
    return lambda turn: engine.sample(prompts, SamplingSettings(limit, seed=turn))


def update(policy: Policy, rollout: Rollout, group: int) -> Turn:
    """Forward and backward of the groups of one minibatch."""
    minibatches = torch.arange(len(rollout.tokens)).split(GROUPS_PER_UPDATE * group)

    def passes(turn: int) -> None:
        part = rollout.rows(minibatches[turn % len(minibatches)])
        policy.network.zero_grad()
        found = token_statistics(policy.network, part.tokens, part.attention_mask, part.prompt_width)
        (found.logp * part.response_mask).sum().backward()

    return passes


def medians(turns: dict[str, Turn], repeats: int) -> dict[str, float]:
    """Seconds of each, taken in turns."""
    seen: dict[str, list[float]] = {name: [] for name in turns}
    for turn in range(repeats + 1):
        for name, take in turns.items():
            started = time.perf_counter()
            take(turn)
            if turn:
                seen[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in seen.items()}


def main() -> None:
    """Run the comparison and print it as a table."""
    parser = argparse.ArgumentParser(description="The lab's decoder against transformers.")
    parser.add_argument(
        "--models", nargs="+", default=["s", "m", "l"], help="rungs of the ladder, or folders"
    )
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers here")
    options = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(options.threads)
    device = resolved_device("auto")
    print(f"{'model':13}{'what':12}{'transformers':>14}{'lab':>10}{'ratio':>8}")
    results = []
    for model in options.models:
        config = compose_run([] if Path(model).is_dir() else [f"model={model}"])
        both = policies(model, device)
        problems = config.task.build().training_problems(0, options.prompts, 0)
        prompts = [both["lab"].prompt_ids(p.prompt) for p in problems for _ in range(options.group)]
        limit = config.task.response_limit
        lab = both["lab"]
        engine = NativeEngine(lab.network, pad_token=lab.pad_token, eos_token=lab.eos_token)
        rollout = engine.sample(prompts, SamplingSettings(limit, seed=0))
        for what, turns in (
            ("rollout", {name: sampling(policy, prompts, limit) for name, policy in both.items()}),
            ("update", {name: update(policy, rollout, options.group) for name, policy in both.items()}),
        ):
            found = medians(turns, options.repeats)
            ratio = found["transformers"] / found["lab"]
            theirs_ms, ours_ms = 1e3 * found["transformers"], 1e3 * found["lab"]
            name = Path(model).name
            print(f"{name[:12]:13}{what:12}{theirs_ms:11.1f} ms{ours_ms:7.1f} ms{ratio:8.2f}", flush=True)
            results.append({"model": name, "what": what, "seconds": found, "ratio": ratio})
    if options.json is not None:
        about = {"device": f"{device} ({device_name(device)})", "threads": options.threads}
        content = {**about, "versions": versions(), "results": results}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
