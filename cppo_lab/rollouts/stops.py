"""Stop strings in token sequences, found at the same token as in lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

_EXTRA_TOKENS = 2
"""The harness looks back over two tokens more than a stop string has."""


@dataclass(frozen=True)
class StopStrings:
    """`strings`, and the end token's text, in text decoded by `tokenizer`.

    Special tokens are decoded too, since a stop string may be one. The end token's text counts however it is
    tokenised: a model can write it letter by letter.
    """

    tokenizer: Any
    strings: tuple[str, ...]

    @cached_property
    def _all(self) -> tuple[str, ...]:
        end: str = self.tokenizer.decode([self.tokenizer.eos_token_id])
        return tuple(string for string in (*self.strings, end) if string)

    @cached_property
    def _windows(self) -> list[int]:
        lengths = (len(self.tokenizer.encode(text, add_special_tokens=False)) for text in self._all)
        return [length + _EXTRA_TOKENS for length in lengths]

    def seen(self, tokens: Sequence[int], new: int) -> bool:
        """Whether a stop string ends within the last `new` tokens."""
        text = self.tokenizer.decode(list(tokens)[-(new + max(self._windows)) :])
        return any(string in text for string in self._all)

    def cut(self, tokens: Sequence[int]) -> tuple[list[int], bool]:
        """The tokens up to the one that completes the first stop string, and whether there is one."""
        tokens = list(tokens)
        # Most responses have no stop string, or one that the last token completes: the scan can be skipped.
        inside = self.tokenizer.decode(tokens[:-1])
        first = 1 if any(string in inside for string in self._all) else len(tokens)
        for end in range(first, len(tokens) + 1):
            if self._complete(tokens[:end]):
                return tokens[:end], True
        return tokens, False

    def _complete(self, tokens: list[int]) -> bool:
        """Whether the harness would stop here."""
        return any(
            string in self.tokenizer.decode(tokens[-width:])
            for string, width in zip(self._all, self._windows, strict=True)
        )

    def text(self, tokens: Sequence[int]) -> str:
        """The decoded response without special tokens, before the first stop string or the end token's text."""
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        for string in self._all:
            text = text.split(string)[0]
        return text
