"""The runs of an output folder: state, accuracy, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cppo_lab.cli.console import seconds
from cppo_lab.cli.damaged import readable
from cppo_lab.errors import UserError, near_miss
from cppo_lab.tracking.run_folder import RunFolder

# What runs are usually filtered by, and where their files have it.
_SHORT = {"algo": "algo.name", "model": "model.name", "task": "task.kind"}
# Settings that are shown by themselves, follow others, or say only where something is written.
_NO_AXES = (
    *("status", "seed", "seeds.", "warmup.seed", "algo.name", "algo.paper", "model.", "task.kind"),
    *("paths.", "tracking.", "plugins"),
)
_ACCURACY = "eval/heldout/accuracy"


@dataclass(frozen=True)
class _Listed:
    folder: RunFolder
    info: Mapping[str, Any]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The configuration by dotted keys, and the state."""
        import yaml

        path = self.folder.path / "config.yaml"
        tree = yaml.load(path.read_text(encoding="utf-8"), _loader()) if path.is_file() else {}
        return dict(_flat(tree)) | {"status": str(self.folder.present_status).lower()}

    @property
    def method(self) -> str:
        return str(self.settings.get("algo.name", self.info.get("method")))

    def row(self, axes: Sequence[str]) -> dict[str, Any]:
        info, accuracy = self.info, self._accuracy()
        return {
            "run": self.folder.path.name,
            "status": self.settings["status"],
            "method": self.method,
            "seed": info["seed"],
            "steps": f"{info['steps_done']}/{info['steps']}",
            "accuracy": None if accuracy is None else f"{100 * accuracy:.1f}%",
            "model": info.get("model", {}).get("name"),
            "task": info["task"],
            "settings": " ".join(f"{key}={self.settings[key]}" for key in axes if key in self.settings),
            "time": seconds(info.get("duration_s")),
            "started": info["started_at"],
            "reason": info.get("reason"),
        }

    def _accuracy(self) -> float | None:
        evaluated = [row[_ACCURACY] for row in self.folder.rows("metrics.jsonl") if _ACCURACY in row]
        return evaluated[-1] if evaluated else None


def runs(output: Path, filters: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The runs of an output folder, latest first, with the settings in which they differ but for method and seed.

    Each of `filters` is `key=value`. Raises UserError for a key that no run has.
    """
    folders = readable(RunFolder(path.parent) for path in sorted((output / "runs").glob("*/run.json")))
    listed = [_Listed(folder, folder.info) for folder in folders]
    for text in filters:
        listed = _filtered(listed, text)
    listed.sort(key=lambda each: str(each.info.get("started_at")), reverse=True)
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for each in listed:
        by_method.setdefault(each.method, []).append(each.settings)
    common = [key for key in _axes([each.settings for each in listed]) if not key.startswith("algo.")]
    own = {name: [key for key in _axes(of) if key.startswith("algo.")] for name, of in by_method.items()}
    return [each.row([*common, *own[each.method]]) for each in listed]


def _filtered(listed: Sequence[_Listed], text: str) -> list[_Listed]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"{text}: not a filter; give key=value.")
    key = _SHORT.get(name, name)
    known = {key for each in listed for key in each.settings}
    if listed and key not in known:
        raise UserError(f"{text}: no run has the setting {key}.{near_miss(name, known | _SHORT.keys())}")
    return [each for each in listed if key in each.settings and _is(each.settings[key], value)]


def _is(setting: Any, value: str) -> bool:
    if isinstance(setting, bool) or setting is None:
        return str(setting).lower() == value.lower() or (setting is None and value == "null")
    if isinstance(setting, int | float):
        try:
            return float(value) == setting
        except ValueError:
            return False
    return str(setting) == value


def _axes(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys in which the runs that have them differ, but for those that are shown by themselves."""
    keys = dict.fromkeys(key for each in settings for key in each if not key.startswith(_NO_AXES))
    return [key for key in keys if len({str(each[key]) for each in settings if key in each}) > 1]


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _loader() -> Any:
    import yaml

    # libyaml's is ten times as fast, where PyYAML was built with it.
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)
