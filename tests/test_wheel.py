"""The lab as a built wheel, in an environment of its own and any working directory."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from tiny_runs import ROOT, TINY

from cppo_lab import __version__
from cppo_lab.config.compose import group_options
from cppo_lab.sweeps.sweep_file import sweep_names

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("a wheel is built from a checkout only")
    pytest.importorskip("hatchling.build", reason="the build backend is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys, hatchling.build as b; b.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=ROOT, check=True, timeout=120)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`cppo-lab` from the wheel; what it depends on comes from the environment of the tests."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, timeout=240)
    found = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    # After the wheel's own packages on the path, so that the wheel is what runs.
    packages = [p for p in (*site.getsitepackages(), *sys.path) if p.endswith("site-packages")]
    (Path(found.stdout.strip()) / "dependencies.pth").write_text("\n".join(packages) + "\n", encoding="utf-8")
    return folder / "bin" / "cppo-lab"


def run(program: Path, *arguments: str, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "CPPO_LAB_OUTPUT")}
    done = subprocess.run(
        [program, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_holds_code_configuration_and_the_reports_templates(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("conf", "sweeps"):
        files = [p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob("*.yaml")]
        assert {f"cppo_lab/data/{name}" for name in files} <= names
    assert {
        "cppo_lab/analysis/page/template.html.j2",
        "cppo_lab/analysis/page/page.css",
        "cppo_lab/analysis/page/page.js",
    } <= names
    assert {"cppo_lab/py.typed", "cppo_lab/analysis/py.typed"} <= names
    assert len(zipfile.ZipFile(wheel).namelist()) == len(names), "a file is in the wheel twice"
    assert {name.split("/")[0] for name in names} == {"cppo_lab", f"cppo_lab-{__version__}.dist-info"}


def test_wheel_of_a_source_archive_is_the_wheel_of_the_checkout(wheel: Path, tmp_path: Path) -> None:
    build = "import sys, hatchling.build as b; b.build_{}(sys.argv[1])"
    command = [sys.executable, "-c", build.format("sdist"), str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(tmp_path, filter="data")
    command = [sys.executable, "-c", build.format("wheel"), str(tmp_path)]
    subprocess.run(command, cwd=tmp_path / archive.name.removesuffix(".tar.gz"), check=True, timeout=120)
    (made,) = tmp_path.glob("*.whl")
    assert set(zipfile.ZipFile(made).namelist()) == set(zipfile.ZipFile(wheel).namelist())


def test_installed_command_finds_its_own_files_from_anywhere(program: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [program.with_name("python"), "-c", "import cppo_lab; print(cppo_lab.__file__)"],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert Path(where.stdout.strip()).is_relative_to(program.parents[1])
    methods = json.loads(run(program, "list", "methods", "--json", cwd=tmp_path))
    assert [row["name"] for row in methods] == group_options("algo")
    sweeps = json.loads(run(program, "list", "sweeps", "--json", cwd=tmp_path))
    assert [row["name"] for row in sweeps] == sweep_names()
    plan = json.loads(run(program, "plan", "quickstart", "--json", cwd=tmp_path))
    assert len(plan["runs"]) == 16
    assert list(tmp_path.iterdir()) == []


def test_custom_data_and_a_task_of_your_own_train_outside_the_repository(
    program: Path, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "examples" / "my_task", tmp_path / "my_task")
    rows = [f'"{i} + {j}",{i + j},"{i} + {j} = {i + j}"' for i in range(6) for j in range(6)]
    table = "\r\n".join(["sum,total,work", *rows])
    (tmp_path / "sums.csv").write_text(table, encoding="utf-8-sig", newline="")
    short = (
        "trainer.steps=1",
        "trainer.prompts_per_step=4",
        "trainer.group_size=4",
        "trainer.evaluation_problems=8",
        "warmup=gsm8k",
        "warmup.steps=2",
        "warmup.max_steps=2",
        "tracking=none",
    )
    columns = ("task.question_column=sum", "task.answer_column=total", "task.solution_column=work")
    csv = ("task=custom", "task.path=sums.csv", *columns, "task.heldout=8", "task.max_response_tokens=24")
    run(program, "train", *csv, *short, cwd=tmp_path)
    run(program, "train", "task=letters", "--plugins", "my_task", *short, cwd=tmp_path)
    infos = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/runs/*/run.json")]
    assert {(info["task"], info["status"]) for info in infos} == {
        ("custom", "FINISHED"),
        ("letters", "FINISHED"),
    }


def test_a_rule_of_your_own_is_listed_compared_trained_and_reported_outside_the_repository(
    program: Path, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "examples" / "my_rule", tmp_path / "my_rule")
    mine = ("--plugins", "my_rule")
    listed = json.loads(run(program, "list", "methods", "--json", *mine, cwd=tmp_path))
    assert "first_exit" in [row["name"] for row in listed]
    difference = json.loads(
        run(program, "list", "methods", "--diff", "first_exit", "cppo", "--json", *mine, cwd=tmp_path)
    )
    (kind,) = (row for row in difference if row["coordinate"] == "trust_region.kind")
    assert (kind["first_exit"], kind["cppo"]) == ("first_exit", "prefix_budget")
    short = (*TINY, "trainer.steps=1", "seed=0", "warmup.seed=0", "algo=cppo,first_exit")
    run(program, "sweep", "first_exit", *short, *mine, "-j", "1", cwd=tmp_path)
    infos = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/runs/*/run.json")]
    assert {(info["method"], info["status"]) for info in infos} == {
        ("first_exit", "FINISHED"),
        ("cppo", "FINISHED"),
    }
    assert {plugin["name"] for info in infos for plugin in info["plugins"]} == {"my_rule"}
    (page,) = tmp_path.glob("outputs/reports/*/index.html")
    assert "first_exit" in page.read_text(encoding="utf-8")
