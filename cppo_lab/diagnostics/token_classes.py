"""Classes of tokens: what a token of any tokenizer is, told from its text and from the tokenizer's special tokens."""

from __future__ import annotations

import unicodedata
from typing import Any

CLASSES = ("digit", "operator", "word", "punctuation", "space", "byte", "end", "special")
"""`byte` is a part of a character; `end` ends a response; `special` is any other special token."""

_OPERATORS = frozenset("+-*/^%=") | {"**", "//"}


def token_class(text: str) -> str:
    """The class of a token that is not special, by what it says apart from spaces around it.

    A number is `digit` however many digits it has; anything with a letter in it is `word`; an `operator` is a sign of
    arithmetic or a mathematical symbol, alone or before an equals sign.
    """
    said = text.strip()
    if not said:
        return "space"
    if "\ufffd" in said:
        return "byte"
    if any(character.isalpha() for character in said):
        return "word"
    if all(character.isnumeric() or character in ".," for character in said) and any(
        character.isnumeric() for character in said
    ):
        return "digit"
    sign = said.removesuffix("=") or said
    if sign in _OPERATORS or (len(sign) == 1 and unicodedata.category(sign) == "Sm"):
        return "operator"
    return "punctuation"


def described(tokenizer: Any, token: int) -> tuple[str, str]:
    """The text and the class of a token of `tokenizer`."""
    text = str(tokenizer.decode([token]))
    if token == tokenizer.eos_token_id:
        return text, "end"
    if token in tokenizer.all_special_ids:
        return text, "special"
    # Of a part of a character the tokenizer's own spelling tells more than a replacement sign.
    named = str(tokenizer.convert_ids_to_tokens(token)) if not text or "\ufffd" in text else text
    return named, token_class(text)
