"""Methods by name, read from `conf/algo/NAME.yaml` of the lab and of loaded plug-ins.

Needs PyYAML, which is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cppo_lab.errors import near_miss
from cppo_lab.method_files import BASE, leaves, method_files, method_tree
from cppo_lab.objectives.spec import AlgoSpec, neutral_tree

OPEN = "???"
"""In a file: a value that whoever uses the method must give, since none is published."""
__all__ = ["BASE", "OPEN", "method", "method_names", "open_keys"]


def method_names(config_dir: Path | None = None) -> list[str]:
    """The names of complete methods, sorted, those of loaded plug-ins and of `config_dir` among them.

    `config_dir` is a folder with further configuration groups. Files whose name starts with an underscore are parts of
    others; a method that leaves a value open (`open_keys`) is not complete.
    """
    return [name for name in listed_names(config_dir) if not open_keys(name, config_dir)]


def listed_names(config_dir: Path | None = None) -> list[str]:
    """The same with those that leave a value open."""
    return _names(method_files(config_dir))


def open_keys(name: str, config_dir: Path | None = None) -> tuple[str, ...]:
    """The dotted keys that a method leaves to whoever uses it. `name` is that of a file."""
    return _open(method_tree(name, method_files(config_dir)))


def method(
    name: str,
    max_response_length: int | None = None,
    config_dir: Path | None = None,
    given: Mapping[str, Any] | None = None,
    **values: Any,
) -> AlgoSpec:
    """The named method with its paper's values, validated; `name` may also be the path of a method file.

    A file can build on methods by their names (`defaults: [cppo, _self_]`). `max_response_length` fills in the horizon
    H of methods that divide by it; `given` has values for the keys that the method leaves open (`open_keys`). `values`
    set other keys, by their last part where only one key has it: `method("cppo", delta=0.1)`; by `budget__size` for
    `trust_region.budget.size`. Raises ValueError for an unknown name or key and where an open one is missing,
    ImportError without PyYAML.
    """
    files = method_files(config_dir)
    if Path(name).suffix in (".yaml", ".yml"):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"algo = {name!r}: no such method file.")
        name = path.stem
        files = {**files, name: path}
    if name not in files or name.startswith("_"):
        known = _names(files)
        raise ValueError(
            f"algo = {name!r}: unknown method; allowed are {', '.join(known)}.{near_miss(name, known)}"
        )
    tree = method_tree(name, files)
    for key in _open(tree):
        if key not in (given or {}):
            raise ValueError(
                f"{key} = ???: {name} leaves it open, since no value is published; it must be given"
            )
        _set(tree, key, (given or {})[key])
    for short, value in values.items():
        _set(tree, _full_key(short, tree), value)
    algo = AlgoSpec.build(tree)
    return algo if max_response_length is None else algo.with_horizon(max_response_length)


def _open(tree: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(key for key, value in leaves(tree) if value == OPEN)


def _names(files: Mapping[str, Path]) -> list[str]:
    return sorted(name for name in files if not name.startswith("_"))


def _full_key(short: str, tree: Mapping[str, Any]) -> str:
    wanted = short.replace("__", ".")
    own = [key for key, _ in leaves(tree)]
    # A key that the method's own file has comes before those that it leaves at their neutral values.
    for known in (own, list(dict.fromkeys([*own, *(key for key, _ in leaves(neutral_tree()))]))):
        found = [key for key in known if key == wanted or key.endswith(f".{wanted}")]
        if len(found) == 1:
            return found[0]
    if found:
        names = ", ".join(key.replace(".", "__") for key in found)
        raise ValueError(f"{short}: several keys of {tree['name']} end so; give one of {names}")
    last_parts = {key.rpartition(".")[2] for key in known}
    raise ValueError(f"{short}: no key of {tree['name']} ends so.{near_miss(short, last_parts)}")


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for group in groups:
        tree = tree.setdefault(group, {})
    tree[last] = value
