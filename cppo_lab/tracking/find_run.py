"""Find a run by its path, name or ID."""

from __future__ import annotations

from pathlib import Path

from cppo_lab.errors import UserError, near_miss
from cppo_lab.tracking.run_folder import RunFolder


def find_run(root: Path, name: str, key: str = "--run") -> RunFolder:
    """The run folder with this path, name or ID. Raises UserError for none and for several."""
    folders = sorted(path for path in (root / "runs").glob("*") if (path / "run.json").is_file())
    given = Path(name)
    found = [given] if (given / "run.json").is_file() else []
    found = found or [path for path in folders if path.name == name or path.name.endswith(f"-{name}")]
    if len(found) == 1:
        return RunFolder(found[0])
    if found:
        raise UserError(f"{key} {name}: matches several runs: {', '.join(path.name for path in found)}.")
    hint = near_miss(name, [path.name for path in folders])
    raise UserError(f"{key} {name}: no such run in {root / 'runs'}; `cppo-lab list runs` lists them.{hint}")
