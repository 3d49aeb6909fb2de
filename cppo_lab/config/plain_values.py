"""Values set in a composed configuration without OmegaConf, for the runs of a sweep that differ in values alone.

To set and resolve one run's values takes OmegaConf ten milliseconds. What is set is mostly a number or a name at a key
that is there, and the interpolations of a configuration are few: then plain data give the same tree.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

_REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
"""An interpolation that is another key's value, and nothing else."""
_PLAIN = (int, float, bool, str, type(None))


class PlainTree:
    """A composed configuration as plain data, in which keys can be set.

    `unresolved` is it as it was composed, `resolved` what it resolves to.
    """

    def __init__(self, unresolved: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
        self._resolved = pickle.dumps(dict(resolved))
        self._leaves = _leaves(unresolved)
        interpolations = {
            key: value for key, value in self._leaves.items() if isinstance(value, str) and "${" in value
        }
        self._references = {
            key: match[1] for key, value in interpolations.items() if (match := _REFERENCE.fullmatch(value))
        }
        self._others = {key: value for key, value in interpolations.items() if key not in self._references}

    def with_values(self, values: Sequence[tuple[str, Any]]) -> dict[str, Any] | None:
        """The resolved tree with these values at dotted keys; None where only OmegaConf can tell.

        That is: for a key that is not there or is a group, a value that is none of a number, a text, true, false, null
        and lists of these, and a key that may be part of an interpolation other than a plain reference.
        """
        references, others = dict(self._references), dict(self._others)
        given: dict[str, Any] = {}
        for key, value in values:
            if key not in self._leaves or not _is_plain(value):
                return None
            references.pop(key, None)
            others.pop(key, None)
            given.pop(key, None)
            match = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
            if match is not None:
                references[key] = match[1]
            elif isinstance(value, str) and ("${" in value or "\\" in value or value == "???"):
                return None
            else:
                given[key] = value
        if any(_may_read(other, key) for other in others.values() for key in (*given, *references)):
            return None
        if any(target in references or target not in self._leaves for target in references.values()):
            return None
        tree: dict[str, Any] = pickle.loads(self._resolved)
        for key, value in given.items():
            _set(tree, key, value)
        for key, target in references.items():
            _set(tree, key, _get(tree, target))
        return tree


def plain_tree(config: DictConfig) -> PlainTree | None:
    """A composed configuration as plain data; None if it cannot be resolved before values are set."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    unresolved = OmegaConf.to_container(config)
    try:
        resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException:
        return None
    assert isinstance(unresolved, dict)
    assert isinstance(resolved, dict)
    return PlainTree({str(k): v for k, v in unresolved.items()}, {str(k): v for k, v in resolved.items()})


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The dotted keys that hold values."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= _leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(each, (int, float, bool)) for each in value)
    return isinstance(value, _PLAIN)


def _may_read(interpolation: str, key: str) -> bool:
    """Whether the text of an interpolation has the key or its last part in it."""
    return key.rpartition(".")[2] in interpolation


def _get(tree: Mapping[str, Any], key: str) -> Any:
    found: Any = tree
    for part in key.split("."):
        found = found[part]
    return found


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for group in groups:
        tree = tree[group]
    tree[last] = value
