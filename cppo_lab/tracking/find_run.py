"""Find a run, or another folder of results, by the name that a user gives."""

from __future__ import annotations

from pathlib import Path

from cppo_lab.errors import UserError, near_miss
from cppo_lab.tracking.run_folder import RunFolder


def find_folder(parent: Path, name: str, key: str, what: str, marker: str, see: str = "") -> Path:
    """The folder with this path, this name, or this ID at the end of its name; it holds the file `marker`.

    Raises UserError, naming the option `key`, if none or several match. `what` is the noun for such a folder, `see` a
    command that lists them.
    """
    folders = sorted(path for path in parent.glob("*") if (path / marker).is_file())
    found = [Path(name)] if (Path(name) / marker).is_file() else []
    found = found or [path for path in folders if path.name == name or path.name.endswith(f"-{name}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{key} {name}: matches several: {', '.join(path.name for path in found)}.")
    hint = near_miss(name, [path.name for path in folders])
    listing = f"; see {see}" if see else ""
    raise UserError(f"{key} {name}: no such {what} in {parent}{listing}.{hint}")


def find_run(root: Path, name: str, key: str = "--run") -> RunFolder:
    """Find a run of the output folder `root` by its path, name or ID. Raises UserError if none or several match."""
    return RunFolder(find_folder(root / "runs", name, key, "run", "run.json", "cppo-lab list runs"))
