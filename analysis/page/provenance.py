"""Where the runs of a report come from: model, task, code, versions, plug-ins, device, dates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cppo_lab.analysis.formatting import count
from cppo_lab.analysis.frozen import frozen_in_words
from cppo_lab.analysis.load.study import Study
from cppo_lab.plugins import loaded_plugins

Info = Mapping[str, Any]


def provenance(study: Study) -> list[tuple[str, str]]:
    """(what, value) from the runs' run.json; several values are joined where runs differ, unknown facts left out."""
    infos = list(study.provenance.values())
    facts = [("source", study.source)]
    began = sorted(str(info["started_at"]) for info in infos if info.get("started_at"))
    facts += [("claims", frozen_in_words(study.frozen, began[0] if began else None))]
    facts += [(name, _joined(map(said, infos))) for name, said in _FACTS.items()]
    return [(name, value) for name, value in [*facts, ("run dates", _dates(infos))] if value]


def _model(info: Info) -> str:
    model = info.get("model")
    if not isinstance(model, dict) or not model.get("name") or not model.get("parameters"):
        return ""
    return f"{model['name']} ({count(model['parameters'])} parameters)"


def _starting_policy(info: Info) -> str:
    start = info.get("starting_policy")
    if not isinstance(start, dict) or not start.get("recipe"):
        return ""
    return f"recipe {str(start['recipe'])[:12]}, seed {start.get('seed')}"


def _weights(info: Info) -> str:
    known = info.get("theorem_1")
    return f"{info.get('method')}: {known} by CPPO's Theorem 1" if known else ""


def _commit(info: Info) -> str:
    git = info.get("git")
    if not isinstance(git, dict) or not git.get("commit"):
        return ""
    return str(git["commit"])[:12] + (" with uncommitted changes" if git.get("dirty") else "")


def _plugins(info: Info) -> str:
    """The plug-ins that a run was made with; figures of one that is not loaded are not in the report."""
    given = info.get("plugins")
    here = {plugin.sha256 for plugin in loaded_plugins()}
    said = [
        f"{plugin.get('name')} ({str(plugin.get('sha256'))[:12]}"
        f"{'' if plugin.get('sha256') in here else '; not loaded for this report'})"
        for plugin in (given if isinstance(given, list) else [])
        if isinstance(plugin, dict)
    ]
    return ", ".join(said)


def _versions(info: Info) -> str:
    versions = info.get("versions")
    if not isinstance(versions, dict):
        return ""
    return " · ".join(f"{name} {version}" for name, version in versions.items() if version)


def _dates(infos: Iterable[Info]) -> str:
    dates = sorted(str(info[key]) for info in infos for key in ("started_at", "ended_at") if info.get(key))
    return f"{_minute(dates[0])} to {_minute(dates[-1])}" if dates else ""


def _minute(stamp: str) -> str:
    return stamp[:16].replace("T", " ")


def _joined(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(value for value in values if value))


_FACTS: Mapping[str, Callable[[Info], str]] = {
    "task": lambda info: str(info.get("task") or ""),
    "model": _model,
    "starting policy": _starting_policy,
    "position weights": _weights,
    "commit": _commit,
    "plug-ins": _plugins,
    "device": lambda info: str(info.get("device") or ""),
    "versions": _versions,
}
