"""The published methods by name, read from `conf/algo/NAME.yaml`; needs PyYAML, imported when called."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cppo_lab.objectives.spec import AlgoSpec
from cppo_lab.objectives.validation import build
from cppo_lab.plugins import conf_dirs


def method_names(config_dir: Path | None = None) -> list[str]:
    """The names that `method` knows, sorted, those of loaded plug-ins among them.

    `config_dir` is a folder with further configuration groups. Files whose name starts with an underscore are parts of
    others.
    """
    return sorted(name for name in _files(config_dir) if not name.startswith("_"))


def method(name: str, max_response_length: int | None = None, config_dir: Path | None = None) -> AlgoSpec:
    """The named method with its paper's values, validated.

    `max_response_length` fills in the horizon H of methods that divide by it. Raises ValueError for an
    unknown name, ImportError without PyYAML.
    """
    known = method_names(config_dir)
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"algo = {name!r}: no such method{hint}; known: {', '.join(known)}")
    algo = build(AlgoSpec, _tree(name, _files(config_dir)))
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
        merged = _merge(merged, raw if base == "_self_" else _tree(base, files))
    return merged


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged
