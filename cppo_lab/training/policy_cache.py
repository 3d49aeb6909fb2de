"""Where starting policies are cached, and whether one is there. Does not import torch."""

from __future__ import annotations

from pathlib import Path

from cppo_lab.config.identity import starting_policy_id
from cppo_lab.config.schema import RunConfig

RECIPE_FILE = "recipe.json"
"""Written last: a folder counts as complete only with it."""


def is_as_it_is(config: RunConfig) -> bool:
    """Whether the run starts from a pretrained model without a warm-up."""
    return config.model.is_pretrained and not config.warmup.steps


def cache_folder(config: RunConfig) -> Path:
    """The cache folder of the starting policy of `config`."""
    return config.paths.output / "policies" / starting_policy_id(config)


def missing_policy(config: RunConfig) -> Path | None:
    """The cache folder of the starting policy if it is not made yet; None if it is pretrained as it is, or cached."""
    if is_as_it_is(config):
        return None
    folder = cache_folder(config)
    return None if (folder / RECIPE_FILE).is_file() else folder
