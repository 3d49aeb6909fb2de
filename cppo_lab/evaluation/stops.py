"""Stop strings on token sequences, found where lm-evaluation-harness finds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_EXTRA_TOKENS = 2
"""The harness looks back over two tokens more than a stop string has by itself."""


@dataclass(frozen=True)
class StopStrings:
    """`strings` as texts of `tokenizer`, special tokens included: a stop string may be one."""

    tokenizer: Any
    strings: tuple[str, ...]

    def _lengths(self) -> list[int]:
        return [len(self.tokenizer.encode(text, add_special_tokens=False)) for text in self.strings]

    def seen(self, tokens: Sequence[int], new: int) -> bool:
        """Whether a stop string ends within the last `new` tokens."""
        if not self.strings:
            return False
        text = self.tokenizer.decode(list(tokens)[-(new + max(self._lengths()) + _EXTRA_TOKENS) :])
        return any(string in text for string in self.strings)

    def cut(self, tokens: Sequence[int]) -> tuple[list[int], bool]:
        """The tokens up to the one that completes the first stop string, and whether there is one."""
        tokens = list(tokens)
        whole = self.tokenizer.decode(tokens) if self.strings else ""
        windows = [
            (string, length + _EXTRA_TOKENS)
            for string, length in zip(self.strings, self._lengths(), strict=True)
            if string in whole
        ]
        for end in range(1, len(tokens) + 1 if windows else 1):
            if any(
                string in self.tokenizer.decode(tokens[max(0, end - width) : end])
                for string, width in windows
            ):
                return tokens[:end], True
        return tokens, False

    def text(self, tokens: Sequence[int]) -> str:
        """The decoded response without special tokens, before the first stop string or the end token's text."""
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        for string in (*self.strings, self.tokenizer.eos_token):
            text = text.split(string)[0]
        return text
