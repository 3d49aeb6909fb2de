"""Sweep files: a question and the grids of runs that answer it, at one or more scales (`lab`, `paper`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cppo_lab.errors import UserError, near_miss, one_of
from cppo_lab.plugins import sweep_dirs
from cppo_lab.sweeps.tune_section import TuneSection, read_tune

DEFAULT_SCALE = "lab"
_SCALE_KEYS = {"overrides", "axes", "window", "tune", "tuned"}
_KEYS = {"title", "question", "paper", "figure", "baseline", "claims", "scales", "plugins", *_SCALE_KEYS}


@dataclass(frozen=True)
class Grid:
    """Axes in Hydra's sweep grammar, the last one varying fastest, and the overrides of all runs of the grid."""

    axes: Mapping[str, str]
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class SweepFile:
    """A sweep file at one scale. Its runs are those of all its grids.

    `paper` is the figure or table that it reproduces, `figure` the report's figure that answers the question, and
    `claims` the paper's claims, in the form of analysis/claims.py. `window` is the number of training steps in which
    the report looks for the best accuracy (default: the steps of the shortest finished run). `tune` makes it a tuning
    study; `tuned` names the study whose tuned points its runs have. `typed` are the overrides that define an ad-hoc
    sweep, which has no file, and `of_methods` the axes that it gives to single methods.
    """

    name: str
    title: str
    question: str
    overrides: tuple[str, ...]
    grids: tuple[Grid, ...]
    baseline: str | None
    window: int | None = None
    paper: str | None = None
    figure: str | None = None
    scale: str = DEFAULT_SCALE
    scales: tuple[str, ...] = (DEFAULT_SCALE,)
    claims: tuple[Mapping[str, Any], ...] = field(default=())
    plugins: tuple[str, ...] = ()
    tune: TuneSection | None = None
    tuned: str | None = None
    path: Path | None = None
    typed: tuple[str, ...] = ()
    of_methods: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """The name, followed by the scale unless it is the default."""
        return self.name if self.scale == DEFAULT_SCALE else f"{self.name}-{self.scale}"


def sweep_names() -> list[str]:
    """The sweeps of the lab and of the loaded plug-ins."""
    return sorted({path.stem for folder in sweep_dirs() for path in folder.glob("*.yaml")})


def sweep_path(name: str) -> Path | None:
    """The file of a sweep by its name; None if neither the lab nor a loaded plug-in has it."""
    paths = (folder / f"{name}.yaml" for folder in sweep_dirs())
    return next((path for path in paths if path.is_file()), None)


def read_sweep(name_or_file: str, scale: str = DEFAULT_SCALE) -> SweepFile:
    """The sweep of a name or a file at `scale`. Raises UserError if it is missing or not a valid sweep file."""
    path = Path(name_or_file)
    if path.suffix not in (".yaml", ".yml"):
        known = sweep_path(name_or_file)
        if known is None:
            names = sweep_names()
            raise UserError(
                f"sweep {name_or_file}: unknown; allowed are {', '.join(names)}, or the path of a YAML file."
                f"{near_miss(name_or_file, names)}"
            )
        path = known
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such sweep file.") from error
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a readable YAML file ({' '.join(str(error).split())[:160]})."
        ) from error
    return _sweep_file(path, content, scale)


def split_scale(overrides: Sequence[str]) -> tuple[str, list[str]]:
    """The scale that `scale=…` selects, and the other overrides."""
    named = [override.partition("=")[2] for override in overrides if override.startswith("scale=")]
    rest = [override for override in overrides if not override.startswith("scale=")]
    return (named[-1] if named else DEFAULT_SCALE), rest


def _sweep_file(path: Path, content: Any, scale: str) -> SweepFile:
    if not isinstance(content, dict):
        raise UserError(f"{path}: a sweep file needs 'axes', or 'scales' with axes.")
    _known_keys(path, content, _KEYS, "")
    at_scale, scales = _at_scale(path, content, scale)
    grids = _crossed(path, scale, at_scale.get("axes"), content.get("axes"))
    if not grids or not all(grid.axes for grid in grids):
        raise UserError(
            f"{path}: a sweep file needs 'axes', a mapping from keys to lists or Hydra sweep expressions."
        )
    claims = content.get("claims") or []
    if not isinstance(claims, list) or not all(isinstance(claim, dict) for claim in claims):
        raise UserError(f"{path}: claims: must be a list of mappings.")
    return SweepFile(
        name=path.stem,
        title=str(content.get("title", path.stem)),
        question=" ".join(str(content.get("question", "")).split()),
        overrides=(
            *_overrides(path, content, ""),
            *_overrides(path, at_scale, f"scales.{scale}."),
        ),
        plugins=_plugins(path, content),
        grids=tuple(grids),
        baseline=_text(path, "baseline", content.get("baseline")),
        window=_window(path, at_scale.get("window", content.get("window"))),
        paper=_text(path, "paper", content.get("paper")),
        figure=_text(path, "figure", content.get("figure")),
        scale=scale,
        scales=scales,
        claims=tuple(claims),
        tune=read_tune(path, at_scale.get("tune", content.get("tune"))),
        tuned=_text(path, "tuned", at_scale.get("tuned", content.get("tuned"))),
        path=path,
    )


def _known_keys(path: Path, content: Mapping[Any, Any], known: set[str], place: str) -> None:
    for key in content:
        if key not in known:
            allowed = ", ".join(sorted(known))
            hint = near_miss(str(key), known)
            raise UserError(f"{path}: {place}{key}: unknown key; allowed are {allowed}.{hint}")


def _at_scale(
    path: Path, content: Mapping[str, Any], scale: str
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The file's part for `scale`, and the names of its scales."""
    scales = content.get("scales")
    if scales is None:
        scales = {DEFAULT_SCALE: {}}
    if not isinstance(scales, dict) or not all(isinstance(each, dict) for each in scales.values()):
        raise UserError(f"{path}: scales: must be a mapping from scales to their settings.")
    if not scales:
        raise UserError(f"{path}: scales={{}}: must name a scale such as {DEFAULT_SCALE}, or be left out.")
    for name, each in scales.items():
        _known_keys(path, each, _SCALE_KEYS, f"scales.{name}.")
    if scale not in scales:
        raise one_of("scale", scale, [str(name) for name in scales])
    return scales[scale], tuple(map(str, scales))


def _crossed(path: Path, scale: str, at_scale: Any, of_file: Any) -> list[Grid]:
    """Every grid of the scale crossed with every grid of the file.

    An axis in both keeps the values that both list; a pair of grids without a common value is left out.
    """
    outer, inner = _grids(path, at_scale, f"scales.{scale}."), _grids(path, of_file, "")
    grids = []
    for grid in outer:
        shared = [key for key in grid.axes if any(key in own.axes for own in inner)]
        for key in shared:
            known = [v for own in inner if key in own.axes for v in _listed(path, key, own.axes[key])]
            for value in _listed(path, key, grid.axes[key]):
                if value not in known:
                    raise one_of(f"{path}: scales.{scale}.axes: {key}", value, known)
        for own in inner:
            both = {
                key: [v for v in _listed(path, key, own.axes[key]) if v in _listed(path, key, grid.axes[key])]
                for key in shared
                if key in own.axes
            }
            if all(both.values()):
                axes = {**grid.axes, **own.axes, **{key: ",".join(kept) for key, kept in both.items()}}
                grids.append(Grid(axes, (*own.overrides, *grid.overrides)))
    return grids


def _listed(path: Path, key: str, axis: str) -> list[str]:
    """The values of an axis that is both in the file and in one of its scales."""
    if set("()[]{}'\"") & set(axis):
        raise UserError(
            f"{path}: axes: {key}: {axis}: must be a list of plain values, since a scale narrows it."
        )
    return axis.split(",")


def _grids(path: Path, axes: Any, place: str) -> list[Grid]:
    """One grid or a list of grids; the key `overrides` among the axes holds a grid's own overrides."""
    given = axes if isinstance(axes, list) else [axes or {}]
    grids = []
    for each in given:
        if not isinstance(each, dict):
            raise UserError(
                f"{path}: {place}axes: must be a mapping from keys to values, or a list of such mappings."
            )
        overrides = _overrides(path, each, f"{place}axes.")
        own = {str(key): value for key, value in each.items() if key != "overrides"}
        empty = next((key for key, value in own.items() if value == []), None)
        if empty is not None:
            raise UserError(f"{path}: {place}axes: {empty}=[]: must have at least one value.")
        grids.append(Grid({key: _axis(value) for key, value in own.items()}, overrides))
    return grids


def _overrides(path: Path, content: Mapping[str, Any], place: str) -> tuple[str, ...]:
    given = content.get("overrides") or []
    if not isinstance(given, list):
        raise UserError(f"{path}: {place}overrides: must be a list of overrides such as trainer.lr=1e-4.")
    return tuple(str(item) for item in given)


def _plugins(path: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    """The plug-ins of the file: paths relative to its folder, or names of installed plug-ins."""
    given = content.get("plugins") or []
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise UserError(
            f"{path}: plugins={given}: must be a list of Python files, folders or installed plug-ins."
        )
    beside = [(each, path.parent / each) for each in given]
    return tuple(str(file.resolve()) if file.exists() else each for each, file in beside)


def _axis(value: Any) -> str:
    return ",".join(map(_value, value)) if isinstance(value, list) else _value(value)


def _value(value: Any) -> str:
    """A value of the file in Hydra's grammar."""
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    return "null" if value is None else str(value)


def _text(path: Path, key: str, value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        raise UserError(f"{path}: {key}={value}: must be a text.")
    return None if value is None else str(value)


def _window(path: Path, window: Any) -> int | None:
    if window is not None and (type(window) is not int or window < 1):
        raise UserError(
            f"{path}: window={window}: must be a number of training steps of at least 1, or null."
        )
    return window
