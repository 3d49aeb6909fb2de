"""Methods by name, read from `conf/algo/NAME.yaml` of the lab and of loaded plug-ins.

Needs PyYAML, which is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cppo_lab.errors import near_miss
from cppo_lab.objectives.spec import AlgoSpec
from cppo_lab.plugins import conf_dirs

BASE = "_base"
"""In a file's `defaults`: every key at its neutral value. It is no file, since the rules declare their defaults."""


def method_names(config_dir: Path | None = None) -> list[str]:
    """The names that `method` knows, sorted, those of loaded plug-ins and of `config_dir` among them.

    `config_dir` is a folder with further configuration groups. Files whose name starts with an underscore are parts of
    others.
    """
    return sorted(name for name in _files(config_dir) if not name.startswith("_"))


def method(name: str, max_response_length: int | None = None, config_dir: Path | None = None) -> AlgoSpec:
    """The named method with its paper's values, validated.

    `max_response_length` fills in the horizon H of methods that divide by it. Raises ValueError for an
    unknown name, ImportError without PyYAML.
    """
    files = _files(config_dir)
    if name not in files or name.startswith("_"):
        known = method_names(config_dir)
        raise ValueError(
            f"algo = {name!r}: unknown method; allowed are {', '.join(known)}.{near_miss(name, known)}"
        )
    algo = AlgoSpec.build(_tree(name, files))
    return algo if max_response_length is None else algo.with_horizon(max_response_length)


def _files(config_dir: Path | None) -> dict[str, Path]:
    # As on Hydra's search path, the first of a name holds.
    folders = reversed(conf_dirs(config_dir))
    return {path.stem: path for folder in folders for path in (folder / "algo").glob("*.yaml")}


def _tree(name: str, files: Mapping[str, Path]) -> dict[str, Any]:
    import yaml

    raw = yaml.safe_load(files[name].read_text(encoding="utf-8"))
    merged: dict[str, Any] = {}
    for base in raw.pop("defaults", ["_self_"]):
        if base != BASE:
            merged = _merge(merged, raw if base == "_self_" else _tree(base, files))
    return merged


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged
