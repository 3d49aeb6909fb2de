"""`cppo-lab-objectives`: the rules as a distribution of their own, with PyTorch and PyYAML and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tiny_runs import ROOT

from cppo_lab import __version__

pytestmark = pytest.mark.slow
PROJECT = ROOT / "distributions" / "objectives"
CODE = """
import importlib.util, sys
sys.path[:0] = sys.argv[1:]
for name in ("mlflow", "datasets", "pydantic", "hydra", "omegaconf", "transformers", "pandas", "typer"):
    assert importlib.util.find_spec(name) is None, name
import torch
from cppo_lab.objectives import TokenBatch, aggregate, denominator, method, method_names, token_objective
algos = [method(name, max_response_length=3) for name in method_names()]
assert len(algos) > 20
algo = method("cppo_binary")
logp = torch.full((2, 3), -0.7, requires_grad=True)
mask = torch.ones(2, 3, dtype=torch.bool)
batch = TokenBatch(logp, logp.detach(), torch.tensor([1.0, -1.0]), mask)
loss = aggregate(token_objective(batch, algo).loss, mask, algo.aggregation, denominator(mask, algo.aggregation))
loss.backward()
torch.testing.assert_close(logp.grad, torch.tensor([[-1.0], [1.0]]).expand(2, 3) / 6)
print(__import__("cppo_lab").__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling.build", reason="the build backend is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys, hatchling.build as b; b.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=PROJECT, check=True, timeout=120)
    (made,) = folder.glob("*.whl")
    return made


def _with_requirements(names: list[str]) -> set[str]:
    found: set[str] = set()
    while names:
        name = names.pop()
        if name not in found:
            found.add(name)
            for text in metadata.requires(name) or ():
                wanted = Requirement(text)
                if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                    names.append(wanted.name)
    return found


def test_it_requires_pytorch_and_pyyaml_alone(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (about,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
    lines = archive.read(about).decode().splitlines()
    required = {
        Requirement(line.removeprefix("Requires-Dist: ")).name for line in lines if "Requires-Dist" in line
    }
    assert required == {"pyyaml", "torch"}
    assert f"Version: {__version__}" in lines
    assert len(archive.namelist()) == len(set(archive.namelist()))


def test_every_method_can_be_read_and_used_where_nothing_else_is_installed(
    wheel: Path, tmp_path: Path
) -> None:
    site, package = tmp_path / "requirements", tmp_path / "wheel"
    site.mkdir()
    zipfile.ZipFile(wheel).extractall(package)
    for name in _with_requirements(["torch", "PyYAML"]):
        for file in metadata.files(name) or ():
            top = site / file.parts[0]
            if file.parts[0] != ".." and not top.exists():
                top.symlink_to(str(metadata.distribution(name).locate_file(top.name)))
    command = [sys.executable, "-I", "-S", "-c", CODE, str(package), str(site)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(package)
