"""The layout of the code: names that are unique within a package, and the import contract."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tiny_runs import ROOT

PACKAGES = [
    *(
        path
        for path in sorted((ROOT / "cppo_lab").iterdir())
        if (path / "__init__.py").is_file() and not path.is_symlink()
    ),
    ROOT / "analysis",
]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_no_module_name_is_used_twice_in_a_package(package: Path) -> None:
    names = Counter(path.stem for path in package.rglob("*.py") if not path.stem.startswith("__"))
    assert [name for name, count in names.items() if count > 1] == []


def test_the_import_contract_is_kept() -> None:
    pytest.importorskip("importlinter")
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout
