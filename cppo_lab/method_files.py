"""The files of methods, `conf/algo/NAME.yaml`, as trees of the values they set.

Needs PyYAML alone, which is imported when it is used, so that the analysis can ask what a method is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cppo_lab.plugins import conf_dirs

BASE = "_base"
"""In a file's `defaults`: every key at its neutral value. It is no file, since the rules declare their defaults."""


def method_files(config_dir: Path | None = None) -> dict[str, Path]:
    """The files by name, those of loaded plug-ins and of `config_dir` among them.

    Files whose name starts with an underscore are parts of others.
    """
    # As on Hydra's search path, the first of a name holds.
    folders = reversed(conf_dirs(config_dir))
    return {path.stem: path for folder in folders for path in (folder / "algo").glob("*.yaml")}


def method_tree(name: str, files: Mapping[str, Path]) -> dict[str, Any]:
    """What a method's file sets, the files it builds on included; keys it leaves neutral are absent."""
    raw = yaml_file(files[name])
    merged: dict[str, Any] = {}
    for base in raw.pop("defaults", ["_self_"]):
        if base != BASE:
            merged = _merge(merged, raw if base == "_self_" else method_tree(base, files))
    return merged


def method_values(name: str) -> dict[str, Any]:
    """The same for a method of that name by dotted key (`trust_region.delta`); empty for an unknown name."""
    files = method_files()
    return dict(leaves(method_tree(name, files))) if name in files else {}


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys of a tree with their values."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def yaml_file(path: Path) -> dict[str, Any]:
    """The mapping in a configuration file."""
    import yaml

    # libyaml's, where PyYAML was built with it, is ten times as fast.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return dict(yaml.load(path.read_text(encoding="utf-8"), Loader=loader))


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged
