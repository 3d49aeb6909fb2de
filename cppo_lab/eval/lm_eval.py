"""GSM8K as defined by lm-evaluation-harness (task version 3.0, harness 0.4.13, one process).

Prompts, examples, stop strings, extraction and normalisation are the harness's, known flaws included: a strict
`gsm8k_cot` match needs one more character after the number, so that a response that ends in "The answer is 18" reads
as 1. The examples of `gsm8k` come from one generator, consumed question by question, so they depend on a question's
position in the file; here they are drawn for the whole file in advance.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from cppo_lab.errors import UserError, one_of
from cppo_lab.eval.protocols import Prompt, Score
from cppo_lab.tasks.benchmarks import Question
from cppo_lab.tasks.grading.verdict import Outcome

VERSION = "3.0"
INVALID = "[invalid]"
FEWSHOT_SEED = 1234
MAX_NEW_TOKENS = 256
_END_MARKS = ("</s>", "<|im_end|>")
_COT_EXAMPLES = Path(__file__).with_name("gsm8k_cot.yaml")

STRICT, FLEXIBLE = "strict-match", "flexible-extract"
# Deleted from response and reference, in this order, before they are compared.
_IGNORED = tuple(re.compile(pattern) for pattern in (",", r"\$", r"(?s).*#### ", r"\.$"))
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_MARKED = re.compile(r"#### (\-?[0-9\.\,]+)")
# The final dot is any character, as in the harness.
_SAID = re.compile(r"The answer is (\-?[0-9\.\,]+).")


def normalise(text: str) -> str:
    """The text that the harness's `exact_match` compares: ignored parts deleted, lower case."""
    for pattern in _IGNORED:
        text = pattern.sub("", text)
    return text.lower()


def extract(pattern: re.Pattern[str], response: str, place: int) -> str:
    """The harness's regex filter: the match at index `place`, its first non-empty group, stripped."""
    found = pattern.findall(response)
    if not found:
        return INVALID
    match = found[place]
    if isinstance(match, tuple):
        match = next((group for group in match if group), INVALID)
    return str(match).strip()


@dataclass(frozen=True)
class LmEvalGsm8k:
    """One of the harness's three GSM8K tasks. `shots` is the source of the `count` examples."""

    task: str
    prefix: str
    suffix: str
    stop: str
    strict: re.Pattern[str]
    shots: Literal["random", "fixed", "none"]
    count: int
    target: Literal["solution", "number"]
    metrics: tuple[str, ...] = (STRICT, FLEXIBLE)
    max_new_tokens: int = MAX_NEW_TOKENS
    is_fixed: bool = True

    @property
    def name(self) -> str:
        """See `EvaluationProtocol.name`."""
        return f"lm-eval:{self.task}@{VERSION}"

    @property
    def needs_pool(self) -> bool:
        """Whether examples are drawn from the training split."""
        return self.shots == "random"

    @cached_property
    def _fixed(self) -> list[tuple[str, str]]:
        rows = yaml.safe_load(_COT_EXAMPLES.read_text(encoding="utf-8"))["examples"]
        return [(row["question"], row["target"]) for row in rows]

    def _with_affixes(self, question: str) -> str:
        return f"{self.prefix}{question}{self.suffix}"

    def _examples(self, number: int, pool: Sequence[Question]) -> list[list[tuple[str, str]]]:
        if self.shots != "random":
            return [self._fixed if self.shots == "fixed" else []] * number
        if len(pool) < self.count:
            raise UserError(
                f"protocol={self.name}: needs {self.count} examples, but the training split has {len(pool)} problems."
            )
        generator = random.Random(FEWSHOT_SEED)
        places = [generator.sample(range(len(pool)), self.count) for _ in range(number)]
        return [[(str(pool[i].row["question"]), str(pool[i].row["answer"])) for i in row] for row in places]

    def prompts(self, questions: Sequence[Question], pool: Sequence[Question]) -> list[Prompt]:
        """See `EvaluationProtocol.prompts`; `questions` must be the first ones of the file, in its order."""
        return [
            Prompt(
                "".join(f"{self._with_affixes(asked)} {target}\n\n" for asked, target in examples)
                + self._with_affixes(str(question.row["question"]))
            )
            for question, examples in zip(questions, self._examples(len(questions), pool), strict=True)
        ]

    def stops(self, prompt: Prompt) -> tuple[str, ...]:
        """See `EvaluationProtocol.stops`."""
        return (self.stop, *_END_MARKS)

    @property
    def generation(self) -> dict[str, Any]:
        """The task's own `generation_kwargs`; only `gsm8k` has a temperature."""
        temperature = {"temperature": 0.0} if self.task == "gsm8k" else {}
        return {"until": [self.stop, *_END_MARKS], "do_sample": False, **temperature}

    def reference(self, question: Question) -> str:
        """The harness's target: the whole solution, or the number after `####`."""
        answer = str(question.row["answer"])
        return answer if self.target == "solution" else answer.split("####")[-1].strip()

    def filtered(self, response: str) -> dict[str, str]:
        """The answers that the two filters extract."""
        return {STRICT: extract(self.strict, response, 0), FLEXIBLE: extract(_FLEXIBLE, response, -1)}

    def score(self, responses: Sequence[str], questions: Sequence[Question]) -> list[dict[str, Score]]:
        """See `EvaluationProtocol.score`."""
        return [
            {
                metric: _score(extracted, self.reference(question))
                for metric, extracted in self.filtered(response).items()
            }
            for response, question in zip(responses, questions, strict=True)
        ]


def _score(extracted: str, reference: str) -> Score:
    if normalise(extracted) == normalise(reference):
        return Score(Outcome.CORRECT, extracted)
    return Score(Outcome.UNPARSABLE if extracted == INVALID else Outcome.WRONG, extracted)


TASKS = {
    task.task: task
    for task in (
        LmEvalGsm8k("gsm8k", "Question: ", "\nAnswer:", "Question:", _MARKED, "random", 5, "solution"),
        LmEvalGsm8k("gsm8k_cot", "Q: ", "\nA:", "Q:", _SAID, "fixed", 8, "number"),
        LmEvalGsm8k(
            "gsm8k_cot_zeroshot", "Q: ", "\nA: Let's think step by step.", "Q:", _SAID, "none", 0, "solution"
        ),
    )
}
PROTOCOLS = ("native", *(task.name for task in TASKS.values()))


def lm_eval_protocol(name: str) -> LmEvalGsm8k:
    """The protocol `lm-eval:TASK@VERSION`; the version is optional. Raises UserError for an unknown one."""
    task, _, version = name.removeprefix("lm-eval:").partition("@")
    if not name.startswith("lm-eval:") or task not in TASKS or version not in ("", VERSION):
        raise one_of("protocol", name, PROTOCOLS)
    return TASKS[task]
