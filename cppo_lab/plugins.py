"""Plug-ins: Python files and folders of a researcher's own that register rules, tasks, engines and figures.

A folder's `*.py` files are loaded in the order of their names; its `conf/` holds configuration groups and its
`sweeps/` sweep files. An installed package offers a plug-in by an entry point of the group `cppo_lab.plugins`.
Standard library only, so that `cppo_lab.objectives` sees the same plug-ins as the command line.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from cppo_lab.errors import UserError, near_miss

ENTRY_POINTS = "cppo_lab.plugins"
_MODULES = "cppo_lab_plugins"


@dataclass(frozen=True)
class Plugin:
    """A loaded plug-in: what was asked for, its files, and the SHA-256 of their bytes."""

    name: str
    path: Path
    sha256: str

    @property
    def conf(self) -> Path | None:
        """Its configuration groups, if any."""
        folder = self.path / "conf"
        return folder if folder.is_dir() else None

    @property
    def sweeps(self) -> Path | None:
        """Its sweep files, if any."""
        folder = self.path / "sweeps"
        return folder if folder.is_dir() else None


_loaded: dict[Path, Plugin] = {}


def loaded_plugins() -> tuple[Plugin, ...]:
    """The plug-ins of this process, in the order of loading."""
    return tuple(_loaded.values())


def load_plugins(names: Iterable[str | Path]) -> tuple[Plugin, ...]:
    """Load plug-ins by path (a file or a folder) or by the name of an entry point; each once per process.

    Raises UserError for one that is not there or cannot be loaded, and for one whose bytes have changed since.
    """
    return tuple(_load(name) for name in names)


def _load(name: str | Path) -> Plugin:
    path = _path(name)
    files = sorted(path.glob("*.py")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"plugins={name}: the folder has no Python file.")
    digest = _digest(files)
    known = _loaded.get(path)
    if known is not None:
        if known.sha256 != digest:
            raise UserError(f"plugins={name}: its files have changed since they were loaded; start anew.")
        return known
    for file in files:
        _execute(str(name), file)
    _loaded[path] = Plugin(path.stem, path, digest)
    return _loaded[path]


def _path(name: str | Path) -> Path:
    path = Path(name).expanduser()
    if path.is_dir() or path.suffix == ".py":
        if not path.exists():
            raise UserError(f"plugins={name}: no such file.")
        return path.resolve()
    known = {entry.name: entry for entry in metadata.entry_points(group=ENTRY_POINTS)}
    if str(name) not in known:
        offered = f" ({', '.join(sorted(known))})" if known else ""
        raise UserError(
            f"plugins={name}: must be a Python file, a folder, or the name of an installed plug-in{offered}."
            f"{near_miss(str(name), known)}"
        )
    found = importlib.util.find_spec(known[str(name)].module)
    if found is None or found.origin is None:
        raise UserError(f"plugins={name}: its module {known[str(name)].module} cannot be found.")
    file = Path(found.origin)
    return file.parent if file.name == "__init__.py" else file


def _digest(files: Sequence[Path]) -> str:
    content = hashlib.sha256()
    for file in files:
        content.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return content.hexdigest()


def _execute(name: str, file: Path) -> None:
    module_name = f"{_MODULES}.{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None, "a Python file has a spec"
    assert spec.loader is not None, "a Python file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        first = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"plugins={name}: {file.name} cannot be loaded ({type(error).__name__}: {first})."
        ) from error
