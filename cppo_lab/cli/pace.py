"""How often progress is printed where there is no terminal, and how fast sampling is."""

from __future__ import annotations

import time

from cppo_lab.cli.console import seconds

_FIRST_S, _LONGEST_S = 5.0, 60.0


class Pace:
    """Due after 5 seconds, then after as long again as has passed, and at least once a minute."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._next = self._since + _FIRST_S

    def is_due(self) -> bool:
        """Whether a line is due; if so, the next one is not before its time."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + min(max(now - self._since, _FIRST_S), _LONGEST_S)
        return True


def token_speed(tokens: int, most_tokens: int, spent_s: float) -> str:
    """Tokens, tokens per second, and the longest time left; empty before the first token."""
    if not tokens or spent_s <= 0:
        return ""
    rate = tokens / spent_s
    left = seconds((most_tokens - tokens) / rate)
    return f"{tokens:,} tokens, {rate:,.0f} tokens/s, at most {left} left"
