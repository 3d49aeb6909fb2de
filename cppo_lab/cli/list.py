"""`list`: the choices of a configuration, the sweeps, and the runs of the output folder."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from cppo_lab.cli.console import console, count, print_json, table
from cppo_lab.cli.options import AsJson, ConfigDir, Output, Plugins
from cppo_lab.errors import UserError, one_of
from cppo_lab.paths import output_root
from cppo_lab.plugins import conf_dirs, load_plugins, loaded_plugins, sweep_dirs

if TYPE_CHECKING:
    from cppo_lab.objectives.spec import AlgoSpec


_WATCH_S = 2.0


class Kind(StrEnum):
    """What `list` can list."""

    methods = "methods"
    models = "models"
    tasks = "tasks"
    engines = "engines"
    sweeps = "sweeps"
    runs = "runs"


def list_(
    what: Annotated[Kind, typer.Argument(help="What to list.", show_default=False)],
    filters: Annotated[
        list[str] | None,
        typer.Argument(
            help="runs: only those with these settings, `key=value`, such as `algo=grpo status=finished`.",
            show_default=False,
        ),
    ] = None,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--diff", metavar="A B", help="methods: show only where two methods differ.", show_default=False
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="runs: show them anew every two seconds, until Ctrl-C.")
    ] = False,
    config_dir: ConfigDir = None,
    plugins: Plugins = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """List methods, models, tasks, engines or sweeps, or the runs in the output folder.

    Examples:

    * `cppo-lab list methods`
    * `cppo-lab list methods --diff dppo_topk_tv cppo`
    * `cppo-lab list runs algo=cppo trainer.lr=1e-4 status=finished`
    * `cppo-lab list runs --json`
    * `cppo-lab list runs status=running --watch`
    """
    load_plugins(plugins or [])
    if config_dir is not None and not config_dir.is_dir():
        raise UserError(f"--config-dir {config_dir}: no such folder.")
    if diff is not None and what != Kind.methods:
        raise UserError(f"--diff {' '.join(diff)}: only methods can be compared (list methods --diff).")
    if filters and what != Kind.runs:
        raise UserError(f"{' '.join(filters)}: only runs can be filtered (list runs {' '.join(filters)}).")
    if watch and (what != Kind.runs or as_json):
        raise UserError("--watch: only runs can be watched, and not as JSON (list runs --watch).")
    if watch:
        _watch(output or output_root(), filters or [])
        return
    if diff is not None:
        _show_difference(*diff, config_dir, as_json)
        return
    if what == Kind.methods:
        rows = methods(config_dir)
    elif what == Kind.runs:
        from cppo_lab.cli.list_runs import runs

        rows = runs(output or output_root(), filters or [])
    elif what == Kind.models:
        rows = models(config_dir)
    else:
        group = what.value.removesuffix("s")
        folders = sweep_dirs() if what == Kind.sweeps else [each / group for each in conf_dirs(config_dir)]
        rows = [{"name": name, "about": _about(path)} for name, path in _files(folders).items()]
    _show(rows, what.value.capitalize(), as_json)


def _show(rows: list[dict[str, Any]], title: str, as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    console().print(_as_table(rows, title))


def _as_table(rows: list[dict[str, Any]], title: str) -> Table | Text:
    if not rows:
        return Text(f"{title}: none.")
    shown = table(title, *rows[0])
    for row in rows:
        shown.add_row(*(Text("" if value is None else str(value)) for value in row.values()))
    return shown


def _watch(output: Path, filters: Sequence[str]) -> None:
    """The runs as they are, anew every _WATCH_S seconds, until an interrupt."""
    from rich.live import Live

    from cppo_lab.cli.list_runs import runs

    try:
        with Live(console=console(), auto_refresh=False) as live:
            while True:
                live.update(_as_table(runs(output, filters), "Runs"), refresh=True)
                time.sleep(_WATCH_S)
    except KeyboardInterrupt:
        return


def _files(folders: Sequence[Path]) -> dict[str, Path]:
    """The YAML files of folders by name, sorted; files that start with an underscore are parts of others."""
    paths = {path.stem: path for folder in reversed(folders) for path in folder.glob("[!_]*.yaml")}
    return dict(sorted(paths.items()))


def _about(path: Path) -> str:
    """The title of a sweep file, or the first comment of a configuration file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for line in lines:
        if line.startswith("title:"):
            return line.removeprefix("title:").strip().strip("\"'")
    comments = [line.lstrip("# ") for line in lines if line.startswith("# ") and "@package" not in line]
    return comments[0] if comments else ""


def _algo(name: str, config_dir: Path | None) -> AlgoSpec:
    from cppo_lab.objectives.named import listed_names, method, open_keys

    known = listed_names(config_dir)
    if name not in known:
        raise one_of("method", name, known)
    # A stand-in, which is never shown.
    return method(name, config_dir=config_dir, given=dict.fromkeys(open_keys(name, config_dir), math.inf))


def methods(config_dir: Path | None = None) -> list[dict[str, Any]]:
    """Every method with its coordinates."""
    from cppo_lab.objectives.describe import COORDINATES, admitted, summary
    from cppo_lab.objectives.named import listed_names, open_keys

    rows = []
    for name in listed_names(config_dir):
        if missing := open_keys(name, config_dir):
            needs = f"needs {', '.join(f'algo.{key}' for key in missing)}"
            empty = {key.replace("_", " "): None for key in COORDINATES}
            rows.append({"name": name, **empty, "trust region": needs, "theorem 1": None, "paper": None})
            continue
        algo = _algo(name, config_dir)
        coordinates = {key.replace("_", " "): value for key, value in summary(algo).items()}
        rows.append({"name": name, **coordinates, "theorem 1": admitted(algo), "paper": algo.paper})
    return rows


def _show_difference(first: str, second: str, config_dir: Path | None, as_json: bool) -> None:
    from cppo_lab.objectives.describe import difference
    from cppo_lab.objectives.named import open_keys

    found = difference(_algo(first, config_dir), _algo(second, config_dir))
    rows: list[dict[str, Any]] = [
        {"coordinate": key, first: left, second: right} for key, (left, right) in found.items()
    ]
    for name in (first, second):
        for row in rows:
            if row["coordinate"] in open_keys(name, config_dir):
                row[name] = "to be given"
    if as_json:
        print_json(rows)
    elif not rows:
        console().print(f"{first} and {second} do not differ.")
    else:
        shown = [{k: "null" if v is None else v for k, v in row.items()} for row in rows]
        _show(shown, f"{first} → {second}", False)


def models(config_dir: Path | None = None) -> list[dict[str, Any]]:
    """The named models with their numbers of parameters."""
    from cppo_lab.config.compose import compose_tree
    from cppo_lab.config.overrides import with_plugins
    from cppo_lab.models.config import ScratchModel
    from cppo_lab.models.shapes import SHAPES

    rows = []
    plugins = [plugin.reference for plugin in loaded_plugins()]
    for name, file in _files([folder / "model" for folder in conf_dirs(config_dir)]).items():
        about = _about(file)
        parameters = ""
        if name != "pretrained":
            tree = compose_tree(with_plugins(plugins, [f"model={name}"]), config_dir)["model"]
            if tree["kind"] == "scratch":
                parameters = count(ScratchModel.model_validate(tree).shape(45).parameters)
            elif tree["path"] in SHAPES:
                parameters = count(SHAPES[tree["path"]].parameters)
        rows.append({"name": name, "parameters": parameters, "about": about})
    return rows
