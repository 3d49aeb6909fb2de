"""Tokens sampled per second, log-probabilities included: the native engine, transformers' `generate` and vLLM.

    .venv-vllm/bin/python benchmarks/rollout.py                          three sizes of the ladder
    .venv-vllm/bin/python benchmarks/rollout.py --models moe --json results.json
    python benchmarks/rollout.py                                         without vLLM: the other two

All sample from the same random weights and prompts of the embedded task (`--prompts` of them, `--group` responses to
each) in float32, at temperature 1, and return the log-probability of every token. They take turns, `--repeats` times
after one that does not count; a rate is the median over these, of tokens made (end tokens included, padding not).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import torch

from cppo_lab.config.compose import compose_run
from cppo_lab.config.schema import RunConfig
from cppo_lab.models.config import ScratchModel
from cppo_lab.models.context import context_length
from cppo_lab.models.device import resolved_device
from cppo_lab.models.loading import Policy
from cppo_lab.models.scratch import scratch_policy
from cppo_lab.models.tokenizers import vocabulary_tokenizer
from cppo_lab.quiet import quiet_libraries
from cppo_lab.rollouts.native import NativeEngine
from cppo_lab.rollouts.rollout import RolloutEngine, SamplingSettings
from cppo_lab.rollouts.vllm.installation import installed_version
from cppo_lab.tasks.chain import VOCABULARY
from cppo_lab.tracking.provenance import device_name, versions
from cppo_lab.training.checkpoint import save_checkpoint

Sampler = Callable[[int], int]
"""Samples all responses with a seed, and tells how many tokens they have."""


def random_policy(config: RunConfig, device: str) -> Policy:
    """The run's model with random weights."""
    assert isinstance(config.model, ScratchModel)
    tokenizer = vocabulary_tokenizer(VOCABULARY)
    return Policy(scratch_policy(config.model, tokenizer, 0).to(device), tokenizer)


def by_engine(engine: RolloutEngine, prompts: list[list[int]], limit: int) -> Sampler:
    """Sampling with an engine of the lab."""

    def sample(seed: int) -> int:
        return int(engine.sample(prompts, SamplingSettings(limit, seed=seed)).response_mask.sum())

    return sample


def by_generate(policy: Policy, prompts: list[list[int]], limit: int) -> Sampler:
    """Sampling with transformers, all prompts in one batch."""
    width = max(map(len, prompts))
    device = policy.network.device
    padded = [[policy.pad_token] * (width - len(p)) + p for p in prompts]
    real = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
    tokens, mask = torch.tensor(padded, device=device), torch.tensor(real, device=device)

    def sample(seed: int) -> int:
        torch.manual_seed(seed)
        made = policy.network.generate(
            tokens,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            top_p=1.0,
            max_new_tokens=limit,
            pad_token_id=policy.pad_token,
            eos_token_id=policy.eos_token,
            return_dict_in_generate=True,
            output_scores=True,
        )
        logp = policy.network.compute_transition_scores(made.sequences, made.scores, normalize_logits=True)
        ended = (made.sequences[:, width:] == policy.eos_token).cumsum(-1)
        inside = ended - (made.sequences[:, width:] == policy.eos_token).long() == 0
        assert logp.shape == inside.shape
        return int(inside.sum())

    return sample


@contextmanager
def vllm_engine(policy: Policy, device: str, batch_size: int) -> Iterator[RolloutEngine]:
    """vLLM with the weights of `policy`, as a run has it."""
    from cppo_lab.rollouts.vllm.engine import VllmEngine
    from cppo_lab.rollouts.vllm.offline import OfflineSettings

    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder) / "model", policy)
        settings = OfflineSettings(
            model=str(Path(folder) / "model"),
            context=context_length(policy.network.config, policy.tokenizer),
            dtype="float32",
            device=device,
            batch_size=batch_size,
            kv_cache_gib=0.5,
            gpu_memory_utilization=0.45,
            enforce_eager=device == "cpu",
        )
        with closing(VllmEngine(policy, settings)) as engine:
            yield engine


def rates(samplers: dict[str, Sampler], repeats: int) -> dict[str, tuple[int, float]]:
    """Tokens of the last turn, and the median rate over `repeats` turns after one that does not count."""
    seen: dict[str, list[float]] = {name: [] for name in samplers}
    tokens: dict[str, int] = {}
    for turn in range(repeats + 1):
        for name, sample in samplers.items():
            started = time.perf_counter()
            tokens[name] = sample(turn)
            if turn:
                seen[name].append(tokens[name] / (time.perf_counter() - started))
    return {name: (tokens[name], statistics.median(found)) for name, found in seen.items()}


def main() -> None:
    """Run the comparison and print it as a table."""
    parser = argparse.ArgumentParser(description="Tokens sampled per second.")
    parser.add_argument("--models", nargs="+", default=["s", "m", "l"], help="rungs of the ladder")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers here")
    options = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(options.threads)
    device = resolved_device("auto")
    if installed_version() is None:
        print("vLLM is not installed here; its line is left out.")
    print(f"{'model':6}{'parameters':>12}  {'engine':16}{'tokens':>8}{'tokens per second':>20}")
    results = []
    for model in options.models:
        config = compose_run([f"model={model}"])
        policy = random_policy(config, device)
        parameters = sum(parameter.numel() for parameter in policy.network.parameters())
        problems = config.task.build().training_problems(0, options.prompts, 0)
        prompts = [policy.prompt_ids(p.prompt) for p in problems for _ in range(options.group)]
        limit = config.task.response_limit
        with ExitStack() as held:
            native = NativeEngine(policy.network, pad_token=policy.pad_token, eos_token=policy.eos_token)
            samplers = {
                "native": by_engine(native, prompts, limit),
                "transformers": by_generate(policy, prompts, limit),
            }
            if installed_version() is not None:
                engine = held.enter_context(vllm_engine(policy, device, len(prompts)))
                samplers["vllm"] = by_engine(engine, prompts, limit)
            found = rates(samplers, options.repeats)
        for name, (tokens, rate) in found.items():
            print(f"{model:6}{parameters:12}  {name:16}{tokens:8}{rate:20.0f}", flush=True)
            results.append(
                {
                    "model": model,
                    "parameters": parameters,
                    "engine": name,
                    "tokens": tokens,
                    "tokens_per_s": rate,
                }
            )
    if options.json is not None:
        about = {"device": f"{device} ({device_name(device)})", "threads": options.threads}
        content = {**about, "versions": versions(), "results": results}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
