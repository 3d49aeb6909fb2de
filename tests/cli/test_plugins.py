"""Plug-ins on the command line: what a folder of one's own brings is listed, composed, trained and recorded."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_runs import TINY

from cppo_lab import plugins
from cppo_lab.config.compose import compose_run
from cppo_lab.config.identity import run_id
from cppo_lab.config.overrides import with_plugins
from cppo_lab.errors import UserError
from cppo_lab.sweeps.sweep import find_sweep

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _none_loaded_before_or_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(plugins, "_loaded", {})
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        if name.startswith("cppo_lab_plugins."):
            del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plug-in with code, a method and a sweep."""
    made = tmp_path / "with space" / "my_rules"
    (made / "conf" / "algo").mkdir(parents=True)
    (made / "sweeps").mkdir()
    (made / "rules.py").write_text("LOADED = True\n", encoding="utf-8")
    (made / "conf" / "algo" / "my_cppo.yaml").write_text(
        "# My method.\ndefaults: [cppo, _self_]\nname: my_cppo\ntrust_region: {delta: 0.33}\n",
        encoding="utf-8",
    )
    (made / "sweeps" / "mine_or_theirs.yaml").write_text(
        "title: Mine or theirs\nplugins: [..]\naxes: {algo: [my_cppo, cppo], seed: [0, 1]}\n",
        encoding="utf-8",
    )
    return made


def test_a_method_of_a_plugin_is_listed_and_compared(folder: Path, invoke: Invoke) -> None:
    listed = json.loads(invoke("list", "methods", "--plugins", str(folder), "--json")[1])
    assert "my_cppo" in [row["name"] for row in listed]
    code, out, err = invoke(
        "list", "methods", "--diff", "my_cppo", "cppo", "--plugins", str(folder), "--json"
    )
    assert code == 0, err
    assert [row["coordinate"] for row in json.loads(out)] == ["trust_region.delta"]
    sweeps = json.loads(invoke("list", "sweeps", "--plugins", str(folder), "--json")[1])
    assert {"name": "mine_or_theirs", "about": "Mine or theirs"} in sweeps


def test_config_dir_is_listed_and_compared_likewise(folder: Path, invoke: Invoke) -> None:
    asked = ["--config-dir", str(folder / "conf"), "--json"]
    assert "my_cppo" in [row["name"] for row in json.loads(invoke("list", "methods", *asked)[1])]
    code, out, err = invoke("list", "methods", "--diff", "my_cppo", "cppo", *asked)
    assert code == 0, err
    assert [row["coordinate"] for row in json.loads(out)] == ["trust_region.delta"]
    code, _, err = invoke("list", "methods", "--config-dir", "absent")
    assert (code, "--config-dir absent: no such folder" in err) == (2, True)


def test_option_override_and_sweep_key_name_the_same_runs(
    folder: Path, invoke: Invoke, tmp_path: Path
) -> None:
    out = str(tmp_path / "o")
    by_option = invoke("plan", "mine_or_theirs", "--plugins", str(folder), "--json", "-o", out)
    by_override = invoke("plan", "mine_or_theirs", f"plugins=['{folder}']", "--json", "-o", out)
    by_file = invoke("plan", str(folder / "sweeps" / "mine_or_theirs.yaml"), "--json", "-o", out)
    assert by_option[0] == 0, by_option[2]
    assert json.loads(by_option[1])["runs"] == json.loads(by_override[1])["runs"]
    assert json.loads(by_option[1])["runs"] == json.loads(by_file[1])["runs"]
    assert len(json.loads(by_option[1])["runs"]) == 4
    assert json.loads(by_option[1])["name"] == "mine_or_theirs", "a plug-in makes it no other sweep"


def test_plugins_of_a_sweep_and_of_the_command_line_add_up(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text("", encoding="utf-8")
    file = str(folder / "sweeps" / "mine_or_theirs.yaml")
    sweep, grids = find_sweep(file, [f"plugins=['{other}']", f"paths.output='{tmp_path}'"], None)
    assert {run.config.plugins for run in sweep.runs} == {(str(folder), str(other))}
    assert all(f"plugins=['{folder}','{other}']" in grid for grid in grids)


def test_identity_is_of_the_bytes_and_of_no_path(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = run_id(compose_run(with_plugins([str(folder)], [])))
    moved = tmp_path / "moved"
    folder.rename(moved)
    monkeypatch.chdir(tmp_path)
    assert run_id(compose_run(["plugins=[moved]"])) == here
    assert compose_run(["plugins=[moved]"]).plugins == (str(moved),)
    (moved / "rules.py").write_text("LOADED = 2\n", encoding="utf-8")
    with pytest.raises(UserError, match="plugins=moved: has changed since it was loaded"):
        compose_run(["plugins=[moved]"])
    monkeypatch.setattr(plugins, "_loaded", {})
    assert run_id(compose_run(["plugins=[moved]"])) != here
    assert run_id(compose_run([])) != here


def test_a_run_lists_its_plugins(folder: Path, invoke: Invoke, output: Path) -> None:
    asked = [*TINY, "algo=my_cppo", "trainer.steps=1", "--plugins", str(folder), "-o", str(output)]
    code, out, err = invoke("train", *asked)
    assert code == 0, out + err
    (info,) = output.glob("runs/my_cppo-*/run.json")
    (plugin,) = json.loads(info.read_text(encoding="utf-8"))["plugins"]
    assert (plugin["name"], plugin["path"], len(plugin["sha256"])) == ("my_rules", str(folder), 64)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=basic"]])
def test_workers_and_launchers_load_plugins(
    launcher: list[str], folder: Path, invoke: Invoke, output: Path
) -> None:
    asked = [*TINY, "trainer.steps=1", "warmup.seed=0", "seed=0", *launcher, "--no-report", "-o", str(output)]
    code, out, err = invoke("sweep", "mine_or_theirs", *asked, "--plugins", str(folder))
    assert code == 0, out + err
    found = [json.loads(path.read_text(encoding="utf-8")) for path in output.glob("runs/*/run.json")]
    assert {(info["method"], info["status"]) for info in found} == {
        ("my_cppo", "FINISHED"),
        ("cppo", "FINISHED"),
    }
    assert {info["plugins"][0]["name"] for info in found} == {"my_rules"}


def test_doctor_lists_plugins(folder: Path, invoke: Invoke, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_this_name\n", encoding="utf-8")
    asked = ["--plugins", str(folder), "--plugins", str(broken), "-o", str(tmp_path / "o"), "--json"]
    code, out, _ = invoke("doctor", *asked)
    assert code == 1
    rows = {row["what"]: (row["state"], row["details"]) for row in json.loads(out)}
    state, details = rows["plug-in my_rules"]
    assert state == "ok"
    assert details.startswith(f"{folder}, SHA-256 ")
    state, details = rows[f"plug-in {broken}"]
    assert state == "problem"
    assert "broken.py cannot be loaded (ModuleNotFoundError" in details


@pytest.mark.parametrize("command", [["train"], ["plan", "quickstart"], ["list", "methods"], ["report"]])
def test_a_plugin_that_is_not_there_is_refused(command: list[str], invoke: Invoke, tmp_path: Path) -> None:
    code, out, err = invoke(*command, "--plugins", "absent.py", "-o", str(tmp_path / "o"))
    assert (code, out) == (2, "")
    assert "plugins=absent.py: no such file" in " ".join(err.split())
    code, out, err = invoke(*command, "--plugins", "absent", "-o", str(tmp_path / "o"))
    assert "plugins=absent: must be a Python file, a folder, or the name of an installed plug-in" in " ".join(
        err.split()
    )
    assert not (tmp_path / "o").exists()


def test_a_choice_that_the_lab_has_already_is_refused(folder: Path) -> None:
    (folder / "conf" / "algo" / "cppo.yaml").write_text("name: cppo\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"conf/algo/cppo\.yaml: the lab has a choice of this name"):
        compose_run(with_plugins([str(folder)], []))


@pytest.mark.parametrize("given", ["plugins=mine.py", "plugins={a: b}", "plugins=a,b"])
def test_plugins_that_are_no_list_are_refused(given: str) -> None:
    with pytest.raises(UserError, match="must be a list, such as"):
        compose_run([given])
