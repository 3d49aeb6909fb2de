"""Overrides in Hydra's grammar, and the plug-ins that they name."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cppo_lab.addresses import without_credentials
from cppo_lab.errors import UserError
from cppo_lab.plugins import load_plugins

_KEY = re.compile(r"[+~]*[\w./@-]+")
_OF_ONE_METHOD = re.compile(r"(?P<method>\w+):[\w.]+=.+")


def parse(overrides: Sequence[str]) -> list[Any]:
    """Hydra's `Override` of each. Raises UserError for one that is not in its grammar."""
    from hydra.errors import OverrideParseException

    try:
        return [_parsed(override) for override in overrides]
    except OverrideParseException as error:
        key, equals, value = error.override.partition("=")
        if equals and _KEY.fullmatch(key) and "/" in value:
            raise UserError(f"{error.override}: {how_to_quote(key, value)}") from error
        own = _OF_ONE_METHOD.search(value) if key == "algo" else None
        if own is not None:
            raise UserError(
                f"{error.override}: a setting of one method is an argument of its own: {own['method']} in the list, "
                f"and {own[0]} behind it."
            ) from error
        reason = " ".join(str(error).split()).partition(" See https")[0]
        raise UserError(f"{error.override}: not an override in Hydra's grammar ({reason}).") from error


@functools.lru_cache(1 << 16)
def _parsed(override: str) -> Any:
    # The runs of a sweep share most of them.
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_overrides([override])[0]


def quoted(value: object) -> str:
    """A text as a value in Hydra's grammar."""
    return "'{}'".format(str(value).replace("'", "\\'"))


def how_to_quote(key: str, value: str) -> str:
    """A sentence that gives a path, which Hydra's grammar reads otherwise, as a text on a shell's command line."""
    value = str(Path(value).expanduser()) if value.startswith("~/") else value
    return (
        f'a path with such characters is quoted twice, for the shell and for Hydra: {key}="{quoted(value)}".'
    )


def refuse_passwords(overrides: Sequence[str]) -> None:
    """Raise UserError for an address with a password, which Hydra's launchers write into files of their own."""
    for override in overrides:
        shown = without_credentials(override)
        if shown != override:
            raise UserError(
                f"{shown}: Hydra's launchers write overrides into files; give the user and the password of a store by "
                "MLFLOW_TRACKING_URI, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
            )


def plugins_named(overrides: Sequence[str]) -> list[str]:
    """The plug-ins that overrides name; the last `plugins=[…]` holds. Raises UserError for one that is not a list."""
    given = [override for override in overrides if override.startswith("plugins=")]
    if not given:
        return []
    (override,) = parse(given[-1:])
    names = None if override.is_sweep_override() else override.value()
    if not isinstance(names, list):
        raise UserError(f"{given[-1]}: must be a list, such as plugins=[my_rules.py].")
    return [str(name) for name in names]


def with_plugins(names: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """`overrides` with one `plugins=[…]` for these plug-ins and its own, by absolute paths or entry points.

    Loads them. Raises UserError for one that cannot be loaded.
    """
    loaded = load_plugins([*names, *plugins_named(overrides)])
    if not loaded:
        return list(overrides)
    others = [override for override in overrides if not override.startswith("plugins=")]
    references = dict.fromkeys(quoted(plugin.reference) for plugin in loaded)
    return [*others, f"plugins=[{','.join(references)}]"]
