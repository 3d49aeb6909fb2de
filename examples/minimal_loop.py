"""Reinforcement learning with verifiable rewards in one file: sample, grade, compute advantages, update.

A tiny transformer learns to sort six digits: supervised until it solves a third of the problems, then by
reinforcement learning alone, with any of the lab's methods that needs neither a critic nor a reference policy.
About a minute on one core:

    python examples/minimal_loop.py
    python examples/minimal_loop.py --method grpo

Needs torch and PyYAML, and nothing of the lab but `cppo_lab.objectives`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cppo_lab.objectives import (
    AlgoSpec,
    TokenBatch,
    TopK,
    aggregate,
    compute_advantages,
    denominator,
    method,
    token_objective,
)

DIGITS = 6
ARROW, END = 10, 11  # tokens 0 to 9 are the digits
VOCABULARY = 12
PROMPT_LENGTH = DIGITS + 1  # the digits, then ARROW
RESPONSE_LENGTH = DIGITS + 1  # the sorted digits, then END


# The task: 7 3 9 1 1 0 -> 0 1 1 3 7 9 END


def make_prompts(count: int, generator: torch.Generator) -> Tensor:
    """Random prompts, int64 [count, PROMPT_LENGTH]."""
    digits = torch.randint(10, (count, DIGITS), generator=generator)
    return torch.cat([digits, torch.full((count, 1), ARROW)], dim=1)


def solutions(prompts: Tensor) -> Tensor:
    """The right response to each prompt, int64 [count, RESPONSE_LENGTH]."""
    return torch.cat([prompts[:, :DIGITS].sort(dim=1).values, torch.full((len(prompts), 1), END)], dim=1)


def grade(prompts: Tensor, responses: Tensor) -> Tensor:
    """1.0 for a response that is right to the last token, else 0.0; float32 [count]."""
    return (responses == solutions(prompts)).all(dim=1).float()


# The policy: a causal transformer


class Block(nn.Module):
    """Attention and a feed-forward layer, each on the normalised residual stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, width] to [B, L, width]."""
        rows, length, width = x.shape
        split = self.qkv(self.norm_attention(x)).view(rows, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, length, width))
        return x + self.mlp(self.norm_mlp(x))


class Policy(nn.Module):
    """Next-token log-probabilities."""

    def __init__(self, width: int = 64, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Embedding(PROMPT_LENGTH + RESPONSE_LENGTH, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, VOCABULARY))

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, L] token ids to log-probabilities [B, L, VOCABULARY] of the token after each."""
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        return self.head(self.blocks(x)).log_softmax(-1)


def response_log_probs(policy: Policy, prompts: Tensor, responses: Tensor) -> Tensor:
    """The policy's distribution at every response token, [B, RESPONSE_LENGTH, VOCABULARY]."""
    return policy(torch.cat([prompts, responses], dim=1))[:, PROMPT_LENGTH - 1 : -1]


def of_tokens(log_probs: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities [B, T] of `tokens` [B, T] under `log_probs` [B, T, V]."""
    return log_probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


# The rollout: sampled once, never changed, with what was true when it was sampled


@dataclass(frozen=True)
class Rollout:
    """Responses of the rollout policy and all that the update needs to know about it. B rows, T tokens."""

    prompts: Tensor  # [B, PROMPT_LENGTH]
    responses: Tensor  # [B, T]
    response_mask: Tensor  # [B, T] bool: up to and including the first END
    logp: Tensor  # [B, T] log mu of the sampled tokens
    top_tokens: Tensor  # [B, T, K] the tokens that mu finds likeliest
    top_logp: Tensor  # [B, T, K] their log mu
    advantages: Tensor  # [B]
    rewards: Tensor  # [B]


@torch.no_grad()
def sample(policy: Policy, prompts: Tensor, generator: torch.Generator) -> Tensor:
    """One response to each prompt at temperature 1, [B, RESPONSE_LENGTH]."""
    tokens = prompts
    for _ in range(RESPONSE_LENGTH):
        probabilities = policy(tokens)[:, -1].exp()
        tokens = torch.cat([tokens, torch.multinomial(probabilities, 1, generator=generator)], dim=1)
    return tokens[:, PROMPT_LENGTH:]


@torch.no_grad()
def roll_out(policy: Policy, algo: AlgoSpec, groups: int, size: int, generator: torch.Generator) -> Rollout:
    """`groups` prompts with `size` responses each; advantages compare the responses of a group."""
    prompts = make_prompts(groups, generator).repeat_interleave(size, dim=0)
    responses = sample(policy, prompts, generator)
    ended = (responses == END).cumsum(dim=1) - (responses == END).long()
    rewards = grade(prompts, responses)
    log_probs = response_log_probs(policy, prompts, responses)
    top = log_probs.topk(min(algo.requirements.needs_topk or 1, VOCABULARY))
    return Rollout(
        prompts=prompts,
        responses=responses,
        response_mask=ended == 0,
        logp=of_tokens(log_probs, responses),
        top_tokens=top.indices,
        top_logp=top.values,
        advantages=compute_advantages(rewards.view(groups, size), algo.advantage),
        rewards=rewards,
    )


# The update: several minibatches per rollout, so that the policy moves away from the one that sampled


def token_batch(policy: Policy, rollout: Rollout, rows: Tensor) -> TokenBatch:
    """What the objective reads. Trainer and sampler are one model here, so pi_old equals mu."""
    responses, top_tokens = rollout.responses[rows], rollout.top_tokens[rows]
    log_probs = response_log_probs(policy, rollout.prompts[rows], responses)
    return TokenBatch(
        logp=of_tokens(log_probs, responses),
        rollout_logp=rollout.logp[rows],
        advantages=rollout.advantages[rows],
        response_mask=rollout.response_mask[rows],
        old_logp=rollout.logp[rows],
        vocabulary=VOCABULARY,
        topk=TopK(
            rollout_logp=rollout.top_logp[rows],
            policy_logp=log_probs.detach().gather(-1, top_tokens),
            contains_sampled=(top_tokens == responses.unsqueeze(-1)).any(-1),
        ),
    )


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    algo: AlgoSpec,
    updates: int,
    progress: float,
) -> float:
    """One pass over the rollout in `updates` minibatches; returns the share of masked response tokens."""
    masked = 0
    for rows in torch.randperm(len(rollout.rewards)).chunk(updates):
        batch = token_batch(policy, rollout, rows)
        objective = token_objective(batch, algo, progress=progress)
        whole = denominator(batch.response_mask, algo.aggregation)
        optimizer.zero_grad()
        aggregate(objective.loss, batch.response_mask, algo.aggregation, whole).backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        masked += int(objective.masked.sum())
    return masked / int(rollout.response_mask.sum())


# The run


def teach(policy: Policy, steps: int, generator: torch.Generator) -> None:
    """Supervised training on solved problems: the starting policy of the reinforcement learning."""
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    for _ in range(steps):
        prompts = make_prompts(128, generator)
        targets = solutions(prompts)
        loss = -of_tokens(response_log_probs(policy, prompts, targets), targets).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def accuracy(policy: Policy, generator: torch.Generator) -> float:
    """The share of 512 fresh problems that one sampled response solves."""
    prompts = make_prompts(512, generator)
    return float(grade(prompts, sample(policy, prompts, generator)).mean())


def train(name: str, *, steps: int, updates: int, seed: int) -> list[float]:
    """Teach, then train by reinforcement learning. Returns the held-out accuracies, the first from before it."""
    algo = method(name, max_response_length=RESPONSE_LENGTH)
    if algo.requirements.needs_values or algo.requirements.needs_threshold_controller:
        raise SystemExit(f"--method {name}: needs a critic or a threshold controller; this loop has neither.")
    torch.manual_seed(seed)
    generator, held_out = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1)
    policy = Policy()
    teach(policy, 80, generator)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-4)
    curve = [accuracy(policy, held_out)]
    print(f"{algo.name}: {curve[0]:.1%} solved before reinforcement learning")
    for step in range(1, steps + 1):
        rollout = roll_out(policy, algo, groups=32, size=16, generator=generator)
        masked = update(policy, optimizer, rollout, algo, updates, step / steps)
        if step % 10 == 0 or step == steps:
            curve.append(accuracy(policy, held_out))
            print(f"step {step:3}: {curve[-1]:.1%} solved, {masked:.2%} of the tokens masked")
    return curve


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a tiny policy to sort digits.")
    parser.add_argument("--method", default="cppo", help="a method of the lab (default: cppo)")
    parser.add_argument("--steps", type=int, default=100, help="rollouts (default: 100)")
    parser.add_argument("--updates", type=int, default=8, help="optimizer steps per rollout (default: 8)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train(options.method, steps=options.steps, updates=options.updates, seed=options.seed)
