"""The error a user can do something about."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """One sentence that names the key, the value and what is allowed. The CLI prints it and exits with 2."""


def near_miss(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'grpo'?` when a known name is close to `word`, else an empty string."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{match[0]}'?" if match else ""


def one_of(key: str, value: str, known: Iterable[str]) -> UserError:
    """The refusal of a name that is not among the known ones."""
    names = sorted(known)
    return UserError(f"{key}={value}: unknown; allowed are {', '.join(names)}.{near_miss(value, names)}")
