"""The error a user can do something about."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import takewhile


class UserError(Exception):
    """One sentence that names the key, the value and what is allowed. The CLI prints it and exits with `exit_code`."""

    exit_code = 2
    """2 for a request that is wrong; 1 for work that had begun."""


def printable(text: str) -> str:
    """A text with control characters escaped: a terminal would obey them."""
    return "".join(each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in text)


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type's name where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def near_miss(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'grpo'?` when a known name is close to `word`, else an empty string."""
    matches = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    # Among names as close as each other, the one that begins alike: 'cpo' is 'cppo' rather than 'ctpo'.
    best = max(matches, key=lambda name: _likeness(name, word), default=None)
    return f" Did you mean '{best}'?" if best else ""


def _likeness(name: str, word: str) -> tuple[float, int]:
    """How alike two names are, and how many characters they begin with in common."""
    start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(name, word, strict=False)))
    return difflib.SequenceMatcher(None, name, word).ratio(), start


def one_of(key: str, value: str, known: Iterable[str]) -> UserError:
    """The refusal of a name that is not among the known ones."""
    names = sorted(known)
    return UserError(f"{key}={value}: unknown; allowed are {', '.join(names)}.{near_miss(value, names)}")
