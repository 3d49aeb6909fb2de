"""The settings in a model's `generation_config.json` that transformers' `generate` applies when greedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cppo_lab.models.loading import end_tokens

# Settings that the lab does not apply, with the values, besides None, that have no effect.
_NOT_APPLIED: Mapping[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "guidance_scale": (1,),
    "no_repeat_ngram_size": (0,),
    "min_length": (0,),
    "min_new_tokens": (0,),
} | dict.fromkeys(
    (
        "penalty_alpha",
        "dola_layers",
        "sequence_bias",
        "bad_words_ids",
        "suppress_tokens",
        "begin_suppress_tokens",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "exponential_decay_length_penalty",
        "stop_strings",
        "watermarking_config",
    ),
    (),
)


@dataclass(frozen=True)
class ModelSettings:
    """A model's own settings; None where it has none, or where a server does not tell.

    `end_tokens` end a response besides the tokenizer's own; `not_applied` names settings that would change greedy
    decoding and that the lab does not apply.
    """

    end_tokens: tuple[int, ...] = ()
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None
    not_applied: tuple[str, ...] = ()


def settings_in(config: Any) -> ModelSettings:
    """The settings in a transformers `GenerationConfig`, or in none."""
    return ModelSettings(
        end_tokens=end_tokens(config),
        repetition_penalty=float(getattr(config, "repetition_penalty", None) or 1.0),
        max_new_tokens=getattr(config, "max_new_tokens", None),
        not_applied=tuple(
            name
            for name, neutral in _NOT_APPLIED.items()
            if getattr(config, name, None) is not None and getattr(config, name) not in neutral
        ),
    )
