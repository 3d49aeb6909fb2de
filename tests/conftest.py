"""Fixtures that all tests share: one thread, a clean environment, and a policy warmed up once."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from vllm_models import OneEngine

torch.set_num_threads(1)

# The peers' environments do without it.
if find_spec("hypothesis"):
    from hypothesis import settings

    # How long an example takes says more about the machine's other work than about the code.
    settings.register_profile("without deadline", deadline=None)
    settings.load_profile("without deadline")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CPPO_LAB_OUTPUT", "CPPO_LAB_PARENT_RUN", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def warmed_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder that holds the tiny starting policy; made once for all test processes."""
    from tiny_runs import tiny_config

    from cppo_lab.quiet import quiet_libraries
    from cppo_lab.training.starting_policy import starting_policy

    base = tmp_path_factory.getbasetemp()
    output = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "warmed_up"
    quiet_libraries()
    config = tiny_config(output)
    starting_policy(config, config.task.build())
    return output


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneEngine]:
    """vLLM for the tests of this process; what needs a process without it closes it."""
    from vllm_models import OneEngine

    engine = OneEngine(lambda: tmp_path_factory.mktemp("served"))
    yield engine
    engine.close()


@pytest.fixture
def output(tmp_path: Path, warmed_up: Path) -> Path:
    """An output folder of the test's own in which the tiny starting policy is cached already."""
    shutil.copytree(warmed_up / "policies", tmp_path / "out" / "policies")
    return tmp_path / "out"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store without the lab's experiment, to be copied; making one takes seconds."""
    from cppo_lab.tracking.mlflow_store import quiet_client
    from cppo_lab.tracking.sqlite_store import make_sqlite_store

    quiet_client()
    path = tmp_path_factory.mktemp("empty_store") / "mlflow.db"
    make_sqlite_store(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an `mlflow server` that keeps and serves artifacts itself."""
    home = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{home}/server.db", "--workers", "1"]
    command += ["--artifacts-destination", str(home / "artifacts")]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    with (home / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log)
        try:
            _wait_for_answer(f"http://127.0.0.1:{port}/health", process, home / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def _wait_for_answer(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(log.read_text(encoding="utf-8")) from None
            time.sleep(0.1)


@pytest.fixture
def small_disk(tmp_path: Path, warmed_up: Path) -> Iterator[Path]:
    """An output folder as `output`, on a file system of its own that has room for one or two checkpoints."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system of its own needs the right to mount one")
    try:
        shutil.copytree(warmed_up / "policies", folder / "out" / "policies")
        yield folder / "out"
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside a checkout; what needs it is skipped where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"the data sets are not there: no folder {Path(*folder.parts[-2:])} beside the checkout")
    return folder


@pytest.fixture
def invoke(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `cppo-lab …` in this process: (exit code, standard output, standard error)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        from cppo_lab.cli import main

        monkeypatch.setattr("sys.argv", ["cppo-lab", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run
