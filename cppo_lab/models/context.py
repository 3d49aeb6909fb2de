"""The context length of a model."""

from __future__ import annotations

from typing import Any

_DEFAULT = 2048
# Tokenizers without a limit report a larger number.
_UNLIMITED = 10**9


def context_length(config: Any, tokenizer: Any) -> int:
    """The longest context in tokens, from the same places as in lm-evaluation-harness."""
    text = config.get_text_config()
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        if getattr(text, name, None):
            return int(getattr(text, name))
    longest = tokenizer.model_max_length
    return int(longest) if longest and longest < _UNLIMITED else _DEFAULT
