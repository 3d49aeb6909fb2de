"""Ad-hoc sweeps: defined on the command line, and known by their name afterwards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cppo_lab.config.identity import digest
from cppo_lab.config.overrides import parse
from cppo_lab.errors import UserError
from cppo_lab.fields import NAME_LENGTH, name_problem
from cppo_lab.manifests import read_sealed
from cppo_lab.paths import output_root
from cppo_lab.sweeps.expansion import expand, hydra_settings, values_set
from cppo_lab.sweeps.sweep_file import Grid, SweepFile, sweep_path

_OF_METHOD = re.compile(r"(?P<method>\w+):(?P<override>[+~]?\w[\w./@]*=.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Naming:
    """What the command line says of an ad-hoc sweep beside its runs.

    name: its folder's, and what other commands call it; baseline: the method that others are compared with; title: of
    its report.
    """

    name: str | None = None
    baseline: str | None = None
    title: str | None = None

    @property
    def given(self) -> str | None:
        """The first of the options that is given, as typed."""
        options = {"--name": self.name, "--baseline": self.baseline, "--label": self.title}
        return next((f"{option} {value}" for option, value in options.items() if value is not None), None)


def adhoc_sweep(overrides: Sequence[str], naming: Naming | None = None) -> SweepFile:
    """A sweep defined by command-line overrides alone, of which `METHOD:key=value` holds for one method.

    Raises UserError for a name that a sweep file has, or that is no folder's, and for a method that is not compared.
    """
    naming = naming or Naming()
    if naming.name is not None:
        _check_name(naming.name)
    shared, of_methods = split_methods(overrides)
    grids, common = ((Grid({}),), ()) if not of_methods else _grids(shared, of_methods)
    return SweepFile(
        name=naming.name or f"adhoc-{digest(list(overrides))[:6]}",
        title=naming.title or " ".join(overrides),
        question="",
        overrides=tuple(common),
        grids=grids,
        baseline=naming.baseline,
        typed=tuple(overrides),
        of_methods={method: [_axis(each) for each in given] for method, given in of_methods.items()},
    )


def split_methods(overrides: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The overrides of all runs, and those of single methods."""
    shared: list[str] = []
    of_methods: dict[str, list[str]] = {}
    for override in overrides:
        found = _OF_METHOD.fullmatch(override)
        if found is None:
            shared.append(override)
        else:
            of_methods.setdefault(found["method"], []).append(found["override"])
    return shared, of_methods


def _grids(
    shared: Sequence[str], of_methods: dict[str, list[str]]
) -> tuple[tuple[Grid, ...], tuple[str, ...]]:
    """A grid for the methods without settings of their own and one for each other, and the overrides of all grids."""
    methods = [axes.get("algo", "") for _, axes in expand([o for o in shared if o.startswith("algo=")])]
    methods = [each for each in methods if each] or [values_set(shared).get("algo", "")]
    for method, given in of_methods.items():
        if method not in methods:
            known = ", ".join(each for each in methods if each) or "none: give algo=…"
            raise UserError(f"{method}:{given[0]}: must be for a method of the sweep, which has {known}.")
        if any(override.startswith("algo=") for override in given):
            raise UserError(f"{method}:{given[0]}: must be a setting of {method}, and not a method.")
    parse([override for given in of_methods.values() for override in given])
    plain = [method for method in methods if method not in of_methods]
    grids = [Grid({"algo": ",".join(plain)})] if plain else []
    for method in methods:
        if method in of_methods:
            own = values_set(of_methods[method])
            grids.append(Grid({"algo": method, **own}))
    return tuple(grids), tuple(override for override in shared if not override.startswith("algo="))


def _axis(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name_problem(name) or name.endswith((".yaml", ".yml")):
        raise UserError(
            f"--name {name}: must be letters, digits, '.', '_' and '-', at most {NAME_LENGTH}, as it names a folder, "
            "and not a YAML file."
        )
    if sweep_path(name) is not None:
        raise UserError(f"--name {name}: is the name of a sweep file; give another one.")


def saved_sweep(name: str, overrides: Sequence[str]) -> SweepFile | None:
    """The ad-hoc sweep of this name that the output folder has; None if it has none.

    Raises UserError where the command line says more of it than where its output is.
    """
    if not _NAME.fullmatch(name) or name.endswith((".yaml", ".yml")):
        return None
    manifest = _manifest(_output(overrides), name)
    typed = manifest.get("typed")
    if not isinstance(typed, list) or not all(isinstance(each, str) for each in typed):
        return None
    more = distinguishing(overrides)
    if more:
        raise UserError(
            f"sweep {name}: {more[0]}: an ad-hoc sweep is what it was started as ({' '.join(typed)}); for other runs, "
            "type their overrides, with another --name."
        )
    naming = Naming(None, manifest.get("baseline"), manifest.get("title"))
    return replace(adhoc_sweep(typed, naming), name=name)


def command_line(file: SweepFile, overrides: Sequence[str]) -> list[str]:
    """The overrides that its runs get from the command line: without settings of single methods, all that was typed."""
    others = [override for override in overrides if override not in distinguishing(overrides)]
    return others if any(grid.axes for grid in file.grids) else [*file.typed, *others]


def distinguishing(overrides: Sequence[str]) -> list[str]:
    """The overrides that make it another sweep: not its output, tracking and plug-ins, nor Hydra's launchers."""
    others = hydra_settings(overrides)
    return [o for o in overrides if not o.startswith(("paths.", "tracking", "plugins=")) and o not in others]


def refuse_other(file: SweepFile, output: Path) -> None:
    """Raise UserError where the output folder has another ad-hoc sweep of the same name."""
    typed = _manifest(output, file.name).get("typed")
    if typed is not None and typed != list(file.typed):
        raise UserError(
            f"--name {file.name}: {output} has another sweep of this name ({' '.join(map(str, typed))}); "
            "give another name."
        )


def _manifest(output: Path, name: str) -> dict[str, Any]:
    """What sweep.json says; empty without one, also where `output` is no folder."""
    path = output / "sweeps" / name / "sweep.json"
    return read_sealed(path, "remove it, and the same overrides make it again") if path.is_file() else {}


def _output(overrides: Sequence[str]) -> Path:
    """The output folder that overrides name, else the usual one."""
    given = [override for override in overrides if override.startswith("paths.output=")]
    return Path(str(parse(given[-1:])[0].value())) if given else output_root()
