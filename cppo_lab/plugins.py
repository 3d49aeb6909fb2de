"""Plug-ins: Python files and folders of a researcher's own that register rules, tasks, engines and figures.

A folder's `*.py` files are loaded in the order of their names; its `conf/` holds configuration groups and its
`sweeps/` sweep files. An installed package offers a plug-in through an entry point of the group `cppo_lab.plugins`.
Standard library only, so that `cppo_lab.objectives` sees the same plug-ins as the command line.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from cppo_lab.errors import UserError, near_miss
from cppo_lab.paths import conf_dir, sweeps_dir

ENTRY_POINTS = "cppo_lab.plugins"
_MODULES = "cppo_lab_plugins"


@dataclass(frozen=True)
class Plugin:
    """A loaded plug-in and the SHA-256 of its Python files.

    `reference` loads it from anywhere: its absolute path, or the name of its entry point.
    """

    name: str
    path: Path
    sha256: str
    reference: str

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

    def described(self) -> dict[str, str]:
        """Name, path and SHA-256, as run.json lists it."""
        return {"name": self.name, "path": str(self.path), "sha256": self.sha256}


_loaded: dict[Path, Plugin] = {}


def loaded_plugins() -> tuple[Plugin, ...]:
    """The plug-ins of this process, in the order of loading."""
    return tuple(_loaded.values())


def loaded(references: Iterable[str]) -> tuple[Plugin, ...]:
    """The plug-ins of these references as they were loaded, whatever has become of their files since.

    Loads those that are not loaded yet; raises UserError as `load_plugins` does.
    """
    known = {plugin.reference: plugin for plugin in _loaded.values()}
    return tuple(known.get(reference) or _load(reference) for reference in references)


def load_again(plugins: Iterable[Plugin]) -> None:
    """Load plug-ins in another process. Raises UserError for one whose files are no longer those of `plugins`."""
    for plugin in plugins:
        if loaded([plugin.reference])[0].sha256 != plugin.sha256:
            raise UserError(
                f"plugins={plugin.reference}: has changed since the command started; run it again."
            )


def conf_dirs(config_dir: Path | None = None) -> list[Path]:
    """The folders of configuration groups: the lab's, `config_dir`, and those of the loaded plug-ins."""
    own = [] if config_dir is None else [config_dir]
    return [conf_dir(), *own, *(plugin.conf for plugin in loaded_plugins() if plugin.conf)]


def sweep_dirs() -> list[Path]:
    """The folders of sweep files: the lab's, and those of the loaded plug-ins."""
    return [sweeps_dir(), *(plugin.sweeps for plugin in loaded_plugins() if plugin.sweeps)]


def load_plugins(names: Iterable[str | Path]) -> tuple[Plugin, ...]:
    """Load plug-ins by path (a file or a folder) or by the name of an entry point; each once per process.

    Raises UserError for one that is missing or cannot be loaded, and for one that has changed since it was loaded.
    """
    return tuple(_load(name) for name in names)


def installed_plugins() -> list[str]:
    """The names of the plug-ins that installed packages offer."""
    return sorted(_entry_points())


def _entry_points() -> dict[str, str]:
    """The module of each entry point by its name."""
    # It takes longer to import than the rest of the command line.
    from importlib.metadata import entry_points

    return {entry.name: entry.module for entry in entry_points(group=ENTRY_POINTS)}


def _load(name: str | Path) -> Plugin:
    path = Path(name).expanduser()
    if path.is_dir() or path.suffix == ".py":
        return _load_path(name, path.resolve())
    return _load_entry_point(str(name))


def _load_path(name: str | Path, path: Path) -> Plugin:
    if not path.exists():
        raise UserError(f"plugins={name}: no such file.")
    files = sorted(path.glob("*.py")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"plugins={name}: the folder has no Python file.")
    digest = _digest(name, path, files)
    if path not in _loaded:
        _refuse_shadows(name, path)
        for file in files:
            _execute(name, file)
        _loaded[path] = Plugin(path.stem, path, digest, str(path))
    return _loaded[path]


def _refuse_shadows(name: str | Path, path: Path) -> None:
    for file in sorted(path.glob("conf/*/*.yaml")):
        choice = file.relative_to(path / "conf")
        if (conf_dir() / choice).is_file():
            raise UserError(
                f"plugins={name}: conf/{choice}: the lab has a choice of this name; give it another one."
            )


def _load_entry_point(name: str) -> Plugin:
    known = _entry_points()
    if name not in known:
        offered = f" ({', '.join(sorted(known))})" if known else ""
        raise UserError(
            f"plugins={name}: must be a Python file, a folder, or the name of an installed plug-in{offered}."
            f"{near_miss(name, known)}"
        )
    module = known[name]
    try:
        found = importlib.util.find_spec(module)
    except ImportError:
        found = None
    if found is None or found.origin is None:
        raise UserError(f"plugins={name}: its module {module} cannot be found.")
    file = Path(found.origin)
    is_package = file.name == "__init__.py"
    path = file.parent if is_package else file
    digest = _digest(name, path, sorted(path.rglob("*.py")) if is_package else [file])
    if path not in _loaded:
        try:
            importlib.import_module(module)
        except Exception as error:
            raise _unloadable(name, module, error) from error
        _loaded[path] = Plugin(name, path, digest, name)
    return _loaded[path]


def _digest(name: str | Path, path: Path, files: Sequence[Path]) -> str:
    """The SHA-256 of the files' names and bytes. Raises UserError when they are not those that were loaded."""
    content = hashlib.sha256()
    base = path if path.is_dir() else path.parent
    for file in files:
        content.update(file.relative_to(base).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    digest = content.hexdigest()
    if path in _loaded and _loaded[path].sha256 != digest:
        raise UserError(f"plugins={name}: has changed since it was loaded; run the command again.")
    return digest


def _execute(name: str | Path, file: Path) -> None:
    # A package of this name lets plug-ins' classes be unpickled.
    sys.modules.setdefault(_MODULES, ModuleType(_MODULES))
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
        raise _unloadable(name, file.name, error) from error


def _unloadable(name: str | Path, what: str, error: Exception) -> UserError:
    first = (str(error).splitlines() or [""])[0]
    return UserError(f"plugins={name}: {what} cannot be loaded ({type(error).__name__}: {first}).")
