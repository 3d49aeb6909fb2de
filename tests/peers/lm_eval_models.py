"""Models for the comparison with lm-evaluation-harness, made from nothing."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from text_models import byte_tokenizer, random_policy

from cppo_lab.eval.lm_eval import TASKS
from cppo_lab.models.loading import Policy
from cppo_lab.models.tokenizers import trained_tokenizer
from cppo_lab.tasks.benchmarks import Question, benchmark, load_questions

CONTEXT = 2048
_STEPS, _BATCH, _LENGTH, _RATE = 240, 8, 512, 5e-3
_VOCABULARY = 2048
_ENDING = 0.3
_STYLES = ("gsm8k", "gsm8k_cot")


def problems(file: Path) -> list[Question]:
    """The problems of a GSM8K file."""
    return load_questions(benchmark("gsm8k"), str(file))


def _document(question: Question, style: str, steps: int | None = None) -> str:
    """A problem with its solution, or the last `steps` of it, as an example of that task has it."""
    *reasons, answer = str(question.row["answer"]).splitlines()
    reasons = reasons[-steps:] if steps else reasons
    if style == "gsm8k":
        solution = "\n".join([*reasons, answer])
    else:
        said = re.sub(r"<<.*?>>", "", " ".join(reasons))
        solution = f"{said} The answer is {question.answer}."
    protocol = TASKS[style]
    return f"{protocol.prefix}{question.question}{protocol.suffix} {solution}"


def taught_policy(train: Sequence[Question], asked: Sequence[Question]) -> Policy:
    """A small model that learnt the very problems it is `asked`, in two styles, so that some of its answers are right.

    It learnt the last step of each solution, which is soon known by heart. Its responses end by a stop string, by the
    end token, or not at all: solutions were followed by another problem or by the end.
    """
    tokenizer = trained_tokenizer([_document(q, style) for q in train for style in _STYLES], _VOCABULARY)
    policy = random_policy(
        tokenizer, width=128, layers=2, heads=4, kv_heads=2, feed_forward=384, context=CONTEXT
    )
    network, rng = policy.network.train(), random.Random(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, betas=(0.9, 0.99), weight_decay=0.01)
    documents = {
        style: tokenizer([_document(q, style, steps=1) for q in asked]).input_ids for style in _STYLES
    }
    another: list[int] = tokenizer("\n\n", add_special_tokens=False).input_ids
    for step in range(_STEPS):
        rows = [_row(rng, documents[rng.choice(_STYLES)], another, policy.eos_token) for _ in range(_BATCH)]
        tokens = torch.tensor(rows)
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, (step + 1) / 30, 3 * (1 - step / _STEPS))
        logits = network(input_ids=tokens).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    network.eval()
    return policy


def _row(rng: random.Random, documents: Sequence[list[int]], another: list[int], end: int) -> list[int]:
    """Documents one behind the other, each with the beginning token where the one before it ended."""
    row: list[int] = []
    begins = True
    while len(row) < _LENGTH:
        document = rng.choice(documents)
        ends = rng.random() < _ENDING
        row += [*(document if begins else document[1:]), *([end] if ends else another)]
        begins = ends
    return row[:_LENGTH]


def chaotic_policy() -> Policy:
    """Random weights over bytes: half characters, special tokens in the middle, prompts longer than the context.

    Two of the harness's stop strings are special tokens here.
    """
    return random_policy(byte_tokenizer("</s>", "<|im_end|>"), gain=4.0, layers=2)
