"""Tuned points: `sweeps/tuned/NAME.yaml`, the setting that a study chose for each method in each panel.

A sweep that says `tuned: NAME` gives its runs these settings. What its own overrides set stays as they set it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from cppo_lab.config.default_choices import default_choice
from cppo_lab.errors import UserError
from cppo_lab.files import file_sha256, write_atomically
from cppo_lab.plugins import sweep_dirs
from cppo_lab.sweeps.expansion import Combination
from cppo_lab.sweeps.sweep_file import SweepFile
from cppo_lab.sweeps.tune_section import THRESHOLD

FOLDER = "tuned"
TUNED = "tuned"
"""The value of a tuned key, such as trainer.lr, on its axis where a run has that of its tuned point."""
# What a panel names although its study may not vary it: a point holds for no other model, task or regime. The
# configuration names the first two; a regime is known by its override alone.
CHOICES = ("model", "task")
REGIME = "regime"
HEADER = """\
# Written by `cppo-lab tune`, from the results of a tuning study; sweeps that say `tuned: {name}` use it.
# accuracy: mean final accuracy over the tuning seeds, the highest of the settings tried and so a little too high;
# regret: what the published setting falls short of it on the same seeds; choice_error: the standard error in accuracy
# that comes from choosing on these seeds rather than on others, which contrasts of tuned methods count.
"""


@dataclass(frozen=True)
class Tried:
    """A setting with its mean final accuracy and standard error over `seeds` tuning seeds; no mean if a run failed."""

    setting: Mapping[str, float]
    accuracy: float | None
    stderr: float | None
    seeds: int


@dataclass(frozen=True)
class Published:
    """The setting without tuning, its mean final accuracy, and how much less that is than the chosen one's, with the
    standard error of the difference; None where it was not tried, or a run of it failed.
    """

    setting: Mapping[str, float]
    accuracy: float | None
    regret: float | None
    stderr: float | None


@dataclass(frozen=True)
class TunedPoint:
    """The chosen setting of a method in a panel, and `overrides`, what it sets.

    choice_error: see `tune_choice.choice_error`; contrasts of tuned sweeps count it.
    """

    panel: Mapping[str, str]
    method: str
    overrides: tuple[str, ...]
    setting: Mapping[str, float]
    accuracy: float
    stderr: float | None
    choice_error: float | None
    trials: int
    published: Published
    notes: tuple[str, ...]
    tried: tuple[Tried, ...]

    @property
    def place(self) -> str:
        """Method and panel, as refusals and the plan name them."""
        panel = ", ".join(f"{key}={value}" for key, value in self.panel.items() if key not in CHOICES)
        return f"{self.method} ({panel})" if panel else self.method


@dataclass(frozen=True)
class TunedPoints:
    """The content of a tuned file. `given` are the command line's overrides of the study, `chosen_at` is in UTC, and
    `commits` are those that the tuning runs were made at.
    """

    study: str
    keys: tuple[str, ...]
    seeds: tuple[int, ...]
    rule: str
    given: tuple[str, ...]
    chosen_at: str
    commits: tuple[str, ...]
    study_sha256: str
    rows_sha256: str
    points: tuple[TunedPoint, ...]
    path: Path | None = None

    @cached_property
    def sha256(self) -> str:
        """The hash of the file's bytes."""
        assert self.path is not None, "only what was read has a file"
        return file_sha256(self.path)

    def point(self, method: str, values: Mapping[str, str]) -> TunedPoint | None:
        """The point of a method where the keys of its panel have these `values`; a model or task left out fits any."""
        for each in self.points:
            fits = (values.get(key, v if key in CHOICES else None) == v for key, v in each.panel.items())
            if each.method == method and all(fits):
                return each
        return None


def tuned_file(file: SweepFile) -> Path:
    """Where the tuned points of a study are: beside its file, in the folder `tuned`."""
    assert file.path is not None, "an ad-hoc sweep is no study"
    return file.path.parent / FOLDER / f"{file.slug}.yaml"


def read_tuned(name: str, beside: Path | None) -> TunedPoints:
    """The tuned points of a name, looked for beside a sweep file and among those of the lab and of plug-ins.

    Raises UserError for an unknown name or a file that is none.
    """
    folders = [*([beside.parent] if beside else []), *sweep_dirs()]
    path = next((p for folder in folders if (p := folder / FOLDER / f"{name}.yaml").is_file()), None)
    if path is None:
        raise UserError(f"tuned: {name}: there is no {FOLDER}/{name}.yaml; cppo-lab tune {name} writes it.")
    return read_tuned_file(path)


def read_tuned_file(path: Path) -> TunedPoints:
    """The tuned points in a file. Raises UserError where it holds none."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        points = tuple(_point(each) for each in content.pop("points"))
        known: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in content.items()}
        return TunedPoints(**known, points=points, path=path)
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{path}: is no file of tuned points ({reason}); cppo-lab tune writes it anew."
        ) from error


def _point(content: Mapping[str, Any]) -> TunedPoint:
    known = dict(content)
    known["published"] = Published(**known["published"])
    known["tried"] = tuple(Tried(**each) for each in known["tried"])
    for key in ("overrides", "notes"):
        known[key] = tuple(known[key])
    return TunedPoint(**known)


def write_tuned(path: Path, points: TunedPoints) -> None:
    """Write the file."""
    content = asdict(points)
    del content["path"]
    text = yaml.dump(
        _plain(content),
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=None,
        width=120,
        allow_unicode=True,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, HEADER.format(name=points.study) + text)


class _Dumper(yaml.SafeDumper):
    pass


def _short(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    # YAML reads 1e-05 as a text, and 1.0e-05 as a number.
    text = f"{value:.6g}"
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    elif "e" not in text and "." not in text:
        text += ".0"
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.add_representer(float, _short)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class TunedRun:
    """A run with the overrides of its tuned point; `overruled` are those whose keys its sweep sets otherwise."""

    run: Combination
    point: TunedPoint | None = None
    overruled: tuple[str, ...] = ()

    def value(self, axis: str) -> str | None:
        """Its value on an axis of its sweep, TUNED where it has that of its point; None if nothing sets it."""
        overruled = {text.partition("=")[0] for text in self.overruled}
        is_tuned = self.point is not None and axis in self.point.setting and axis not in overruled
        return TUNED if is_tuned else self.run.value(axis)


def tuned_runs(file: SweepFile, points: TunedPoints, runs: Sequence[Combination]) -> list[TunedRun]:
    """The runs of a sweep at the tuned points of their methods and panels.

    Raises UserError for a run that has no tuned point and does not set the tuned keys itself.
    """
    return [_tuned(file, points, run) for run in runs]


def _tuned(file: SweepFile, points: TunedPoints, run: Combination) -> TunedRun:
    keys = {key for point in points.points for key in point.panel}
    values = {key: value for key in keys if (value := run.value(key)) is not None}
    values.setdefault(REGIME, default_choice(REGIME))
    method = run.value("algo") or "the method of the configuration"
    point = points.point(method, values)
    given = {text.lstrip("+").partition("=")[0] for text in run.overrides}
    if point is None:
        if all(key in given for key in points.keys if key != THRESHOLD):
            return TunedRun(run)
        raise _no_point(file, points, method, values)
    own = [text for text in point.overrides if text.partition("=")[0] not in given]
    overruled = tuple(text for text in point.overrides if text.partition("=")[0] in given)
    return TunedRun(Combination((*run.overrides, *own), run.axes), point, overruled)


def _no_point(file: SweepFile, points: TunedPoints, method: str, values: Mapping[str, str]) -> UserError:
    panels = list(dict.fromkeys(_text(point.panel) for point in points.points if point.method == method))
    if not panels:
        has = f"it has those of {', '.join(dict.fromkeys(point.method for point in points.points))}"
    else:
        has = f"its points are for {' and for '.join(panels)}"
    return UserError(
        f"sweep {file.slug}: tuned: {points.study}: has no tuned point of {method} at "
        f"{_text(values) or 'these settings'}; {has}; leave it out, set {', '.join(points.keys)} for it, or tune it."
    )


def _text(values: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())


def refuse_tuning_seeds(file: SweepFile, points: TunedPoints, seeds: Sequence[int]) -> None:
    """Raise UserError for test seeds among those that the points were chosen on."""
    shared = sorted({*seeds} & {*points.seeds})
    if shared:
        raise UserError(
            f"sweep {file.slug}: seed={','.join(map(str, shared))}: the points of {points.study} were tuned on these "
            "seeds; test on others, or the best of many trials is taken for a result."
        )


def check_choices(
    file: SweepFile, points: TunedPoints, runs: Sequence[tuple[TunedPoint | None, Any]]
) -> None:
    """Raise UserError for a run, given with its configuration, of another model or task than its point's."""
    for point, config in runs:
        if point is None:
            continue
        chosen = {"model": config.model.name, "task": config.task.kind}
        for key, value in chosen.items():
            if point.panel.get(key, value) != value:
                raise _no_point(file, points, point.method, {**point.panel, key: value})
