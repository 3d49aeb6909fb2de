"""Supervised warm-up into a starting policy: of a from-scratch model, or a cold start of a pretrained one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cppo_lab.config.schema import Warmup
from cppo_lab.models.decoder.trunk import response_states
from cppo_lab.models.implementation import is_by_lab
from cppo_lab.models.loading import Policy
from cppo_lab.rng import Stream, numpy_stream, stream_seed
from cppo_lab.rollouts.native import NativeEngine
from cppo_lab.rollouts.rollout import SamplingSettings
from cppo_lab.tasks.problem import Problem
from cppo_lab.tasks.task import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_IGNORED = -100
SCRATCH_RAMP = 30
"""Steps over which the learning rate of a from-scratch model rises."""
_BAND_PROBLEMS = 512

Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps planned, loss)."""


def supervised_batch(policy: Policy, problems: Sequence[Problem]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, attention mask and labels, each [B, L]: prompt and solution with its end token, right-padded.

    Labels are -100 on prompts and padding, so that only solutions contribute to the loss.
    """
    prompts = [policy.problem_ids(problem) for problem in problems]
    solutions = [
        [*policy.tokenizer(problem.solution, add_special_tokens=False).input_ids, policy.eos_token]
        for problem in problems
    ]
    width = max(len(p) + len(s) for p, s in zip(prompts, solutions, strict=True))
    tokens = torch.full((len(problems), width), policy.pad_token)
    mask = torch.zeros((len(problems), width), dtype=torch.bool)
    labels = torch.full((len(problems), width), _IGNORED)
    for row, (prompt, solution) in enumerate(zip(prompts, solutions, strict=True)):
        end = len(prompt) + len(solution)
        tokens[row, :end] = torch.tensor(prompt + solution)
        mask[row, :end] = True
        labels[row, len(prompt) : end] = torch.tensor(solution)
    return tokens, mask, labels


def sampled_accuracy(policy: Policy, task: Task, recipe: Warmup, response_limit: int) -> float:
    """Share of correct sampled responses on training problems reserved for the warm-up."""
    problems = task.training_problems(0, _BAND_PROBLEMS, stream_seed(recipe.seed, Stream.WARMUP, 1))
    engine = NativeEngine(policy.network, pad_token=policy.pad_token, eos_token=policy.eos_token)
    settings = SamplingSettings(response_limit, seed=stream_seed(recipe.seed, Stream.WARMUP, 2))
    rollout = engine.sample([policy.problem_ids(p) for p in problems], settings)
    verdicts = task.grade(rollout.texts(policy.tokenizer), problems)
    return sum(verdict.correct for verdict in verdicts) / len(problems)


def warm_up(
    policy: Policy,
    task: Task,
    recipe: Warmup,
    response_limit: int,
    progress: Progress | None = None,
    ramp: int = SCRATCH_RAMP,
) -> float | None:
    """Train `policy` in place by the recipe (AdamW). Returns its accuracy if there is a band.

    The learning rate rises over the first `ramp` steps and is constant from there on.

    With a constant rate the accuracy is noisy: training continues until the sampled accuracy lies in the recipe's
    band, or `max_steps` is reached.
    """
    network = policy.network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.lr, betas=(0.9, 0.99), weight_decay=0.01)
    rng = numpy_stream(recipe.seed, Stream.WARMUP)
    done, accuracy, stop = 0, None, recipe.steps
    while done < stop:
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * min(1.0, (done + 1) / ramp)
        problems = task.warmup_problems(rng, recipe.batch, recipe.longest, recipe.corruption)
        loss = _supervised_update(policy, optimizer, problems)
        done += 1
        if progress:
            progress(done, stop, loss)
        if done == stop and recipe.band:
            accuracy = sampled_accuracy(policy, task, recipe, response_limit)
            inside = recipe.band[0] <= accuracy <= recipe.band[1]
            if not inside and done + recipe.extra_steps <= recipe.max_steps:
                stop += recipe.extra_steps
    network.eval()
    return accuracy


def _next_logits(network: PreTrainedModel, tokens: Tensor, mask: Tensor) -> Tensor:
    """Logits [B, L - 1, V] of the token after each but the last of `tokens` [B, L], right-padded."""
    if is_by_lab(network):
        found: Tensor = network.get_output_embeddings()(response_states(network, tokens, mask, 1))
    else:
        found = network(input_ids=tokens, attention_mask=mask).logits[:, :-1]
    return found


def _supervised_update(
    policy: Policy, optimizer: torch.optim.Optimizer, problems: Sequence[Problem]
) -> float:
    device = policy.network.device
    tokens, mask, labels = (x.to(device) for x in supervised_batch(policy, problems))
    with policy.computing():
        logits = _next_logits(policy.network, tokens, mask)
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=_IGNORED
    )
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(policy.network.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())
