"""Passwords in addresses: used, and neither written nor shown; names that would write elsewhere: refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tiny_runs import TINY, clean_environment, lab

from cppo_lab.addresses import without_credentials

Invoke = Callable[..., tuple[int, str, str]]
PASSWORD = "hunter2"


def with_password(uri: str) -> str:
    return uri.replace("://", f"://me:{PASSWORD}@")


def files_with(text: str, root: Path) -> list[str]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return [str(path.relative_to(root)) for path in files if text.encode() in path.read_bytes()]


@pytest.mark.slow
def test_password_of_a_store_is_used_and_written_nowhere(
    mlflow_server: str, output: Path, tmp_path: Path
) -> None:
    uri = with_password(mlflow_server)
    tracked = [each for each in TINY if each != "tracking=none"]
    told = [
        "sweep",
        "seed=0",
        *tracked,
        f"tracking.uri='{uri}'",
        "tracking.experiment=secret",
        "-o",
        str(output),
    ]
    done = lab(*told, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    again = lab(*told, cwd=tmp_path)
    checked = lab("sync", "--all", "--check", "--store", uri, "-o", str(output), cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    doctor = lab("doctor", "-o", str(output), cwd=tmp_path, MLFLOW_TRACKING_URI=uri)
    for command in (done, again, checked, doctor):
        assert PASSWORD not in command.stdout + command.stderr
    assert files_with(PASSWORD, tmp_path) == []
    client = MlflowClient(mlflow_server)
    experiment = client.get_experiment_by_name("secret")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2
    assert PASSWORD not in repr([run.to_dictionary() for run in runs])


@pytest.mark.parametrize("command", [["train"], ["sweep", "seed=0,1"]])
def test_refusal_of_a_store_does_not_show_its_password(
    command: list[str], invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = with_password("http://127.0.0.1:1")
    code, out, err = invoke(*command, f"tracking.uri='{uri}'", "-o", str(tmp_path / "o"))
    assert code == 2
    assert "tracking.uri=http://127.0.0.1:1: the MLflow store cannot be used" in err
    assert PASSWORD not in out + err
    assert files_with(PASSWORD, tmp_path) == []


def test_password_that_hydra_would_write_is_refused(invoke: Invoke, tmp_path: Path) -> None:
    uri = f"tracking.uri='{with_password('http://127.0.0.1:1')}'"
    code, out, err = invoke("sweep", "seed=0,1", "hydra/launcher=joblib", uri, "-o", str(tmp_path / "o"))
    assert code == 2
    alone = subprocess.run(
        [sys.executable, "-m", "cppo_lab.hydra_app", "--multirun", "seed=0,1", uri],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert alone.returncode == 1
    for said in (err, alone.stderr):
        assert (
            "Error: tracking.uri='http://127.0.0.1:1': Hydra's launchers write overrides into files" in said
        )
    assert PASSWORD not in out + err + alone.stdout + alone.stderr
    assert files_with(PASSWORD, tmp_path) == []


@pytest.mark.parametrize(
    "name",
    ["../../../evil", "a/b", "a\\b", ".hidden", "x" * 81, "", "tab\there", "\x1b[31mred", " lead", "trail "],
)
def test_name_that_is_no_folders_is_refused_and_sends_the_terminal_nothing(
    name: str, invoke: Invoke, tmp_path: Path
) -> None:
    quoted = name.replace("\\", "\\\\")
    code, out, err = invoke("train", f'algo.name="{quoted}"', "tracking=none", "-o", str(tmp_path / "o"))
    assert code == 2
    assert "\x1b[31mred" not in out + err
    assert not list(tmp_path.rglob("*evil*"))
    assert not (tmp_path / "o" / "runs").exists()


def test_sweep_file_that_names_code_runs_none(invoke: Invoke, tmp_path: Path) -> None:
    made = tmp_path / "made"
    for text in (
        f"title: !!python/object/apply:os.system ['touch {made}']\n",
        f"title: x\naxes: {{algo: !!python/object/apply:builtins.open ['{made}', 'w']}}\n",
    ):
        (tmp_path / "evil.yaml").write_text(text)
        code, _, err = invoke("sweep", str(tmp_path / "evil.yaml"), "-o", str(tmp_path / "o"))
        assert code == 2
        assert "evil.yaml" in err
    assert not made.exists()


def test_listed_folder_outside_the_output_is_not_read(invoke: Invoke, tmp_path: Path) -> None:
    sweep = tmp_path / "o" / "sweeps" / "ours"
    sweep.mkdir(parents=True)
    for folder in ("../../elsewhere", str(tmp_path / "elsewhere")):
        (sweep / "sweep.json").write_text(
            '{"name": "ours", "axes": {}, "runs": [{"run_id": "1", "axes": {}, "folder": "%s"}]}' % folder  # noqa: UP031
        )
        code, _, err = invoke("report", "ours", "-o", str(tmp_path / "o"))
        assert code != 0
        assert "must be below" in err


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:pw@host:5000/x", "http://host:5000/x"),
        ("http://me:p@w@host", "http://host"),
        ("postgresql+psycopg2://lab:pa/s@s@db/mlflow", "postgresql+psycopg2://db/mlflow"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BPWD%3Dpw", "mssql+pyodbc:///?odbc_connect=…"),
        ("http://host?token=pw&x=1", "http://host?token=…&x=1"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("s3://bucket/me@work", "s3://bucket/me@work"),
        ("https://hub/me@1.0 and me@home", "https://hub/me@1.0 and me@home"),
    ],
)
def test_addresses_lose_what_is_secret_and_nothing_else(address: str, shown: str) -> None:
    assert without_credentials(address) == shown
