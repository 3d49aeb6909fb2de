"""From prompts to texts: with the lab's own engine, or with any server that speaks the OpenAI completions API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cppo_lab.eval.generation_config import ModelSettings
from cppo_lab.eval.protocols import Prompt


@dataclass(frozen=True)
class Decoding:
    """How responses are sampled; temperature 0 is greedy. `seed` with a request's place fixes its draws.

    Of the model's context, `room` tokens are kept free of the prompt, those of a longest response unless it is given.
    A `repetition_penalty` of None leaves it to the server.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    repetition_penalty: float | None = None
    room: int | None = None


@dataclass(frozen=True)
class Request:
    """One response to be sampled: the problem's number in its file, which of its samples, and the prompt."""

    problem: int
    sample: int
    prompt: Prompt
    stops: tuple[str, ...]


@dataclass(frozen=True)
class Response:
    """A sampled text without its stop string, its length in tokens, and whether it ended by itself."""

    text: str
    tokens: int
    finished: bool


class TextEngine(Protocol):
    """Where responses come from. `settings` are the model's own, as far as they are known."""

    settings: ModelSettings

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[Response]:
        """One response to each request, sampled together."""
        ...

    def cut_prompts(self, prompts: Sequence[Prompt], decoding: Decoding) -> int:
        """How many prompts lose their beginning, for the response to fit into the context."""
        ...

    def describe(self) -> dict[str, Any]:
        """What the results say of the engine."""
        ...

    def close(self) -> None:
        """Give back what the engine holds."""
        ...
