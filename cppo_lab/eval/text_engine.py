"""What evaluation needs of an engine: texts for prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cppo_lab.eval.generation_config import ModelSettings
from cppo_lab.eval.protocols import Prompt
from cppo_lab.rollouts.rollout import OnTokens


@dataclass(frozen=True)
class Decoding:
    """How responses are sampled; temperature 0 is greedy. A response's draws depend on `seed` and its request alone.

    `room` is the number of tokens of the model's context that the prompt must leave free: those of the longest
    response unless given. A `repetition_penalty` of None leaves it to the server.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    repetition_penalty: float | None = None
    room: int | None = None


@dataclass(frozen=True)
class Request:
    """One response to sample: the index of its problem, which of the problem's samples it is, and the prompt."""

    problem: int
    sample: int
    prompt: Prompt
    stops: tuple[str, ...]


@dataclass(frozen=True)
class Response:
    """A sampled text without its stop string, its length in tokens, and whether it ended before the limit."""

    text: str
    tokens: int
    finished: bool


class TextEngine(Protocol):
    """Where responses come from. `settings` are the model's own, as far as they are known."""

    settings: ModelSettings

    def generate(
        self, requests: Sequence[Request], decoding: Decoding, on_tokens: OnTokens | None = None
    ) -> list[Response]:
        """One response to each request, sampled in one batch."""
        ...

    def cut_prompts(self, prompts: Sequence[Prompt], decoding: Decoding) -> int:
        """How many prompts lose their beginning so that the response fits into the context."""
        ...

    def describe(self) -> dict[str, Any]:
        """What the results record about the engine."""
        ...

    def close(self) -> None:
        """Release all that is held."""
        ...
