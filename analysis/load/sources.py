"""Sweeps and run folders on disk as a study.

Run folders are the source of truth; no tracking server is asked. A run that failed, was interrupted, never started or
is unreadable stays in the study with that status.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from cppo_lab.analysis.formatting import listed, plural
from cppo_lab.analysis.load.axes import Source, canonical, study_axes, unique_records
from cppo_lab.analysis.load.comparability import check, code_versions, find_differences, uncontrolled
from cppo_lab.analysis.load.run_record import RunRecord, read_object, read_run, steps_of
from cppo_lab.analysis.load.study import Heading, Study, assemble
from cppo_lab.config.seed_axes import is_seed_axis
from cppo_lab.errors import UserError, near_miss
from cppo_lab.manifests import is_intact
from cppo_lab.tracking.run_folder import RunFolder

OVERRIDE = re.compile(r"\+{0,2}[\w./@-]+=")
SELECTED = "runs"
_MOST_TITLES = 3
_LONGEST_NAME = 80


class NothingToReport(UserError):
    """No sweep or run with a finished step was found; the message lists those that exist."""


@dataclass(frozen=True)
class SweepSource:
    """A sweep as its manifest describes it: the heading of its report, and its runs with their axes."""

    heading: Heading
    source: Source


def known_sweeps(output_root: Path) -> list[str]:
    """Names of the sweeps recorded under `output_root`, newest first."""
    files = sorted((output_root / "sweeps").glob("*/sweep.json"))
    return [path.parent.name for path in sorted(files, key=_created_at, reverse=True)]


def load_study(
    output_root: Path,
    sweep: str | Sequence[str] | None = None,
    run_folders: Sequence[Path] | None = None,
    *,
    force: bool = False,
) -> Study:
    """Read sweeps, run folders, or both; by default the newest sweep or, without one, every run.

    A run that is in several sources counts once. Raises NothingToReport when a sweep is unknown, a run folder is
    missing, or no run finished a step; NotComparable when the runs differ in keys that must agree, unless `force`,
    which marks the study instead.
    """
    names = [sweep] if isinstance(sweep, str) else list(dict.fromkeys(sweep or ()))
    folders = list(dict.fromkeys(run_folders or ()))
    if not names and run_folders is None:
        known = known_sweeps(output_root)
        names = known[:1]
        folders = [] if known else sorted(path for path in output_root.glob("runs/*") if path.is_dir())
        if not names and not folders:
            raise NothingToReport(f"{output_root} holds no sweep and no run; run a sweep first.")
        selected = SELECTED
    else:
        selected = f"{SELECTED}-{_digest(sorted(folder.name for folder in folders))}"
    sweeps = [read_sweep(output_root, name) for name in names]
    return join(sweeps, read_selected(folders, selected) if folders else None, force=force)


def read_sweep(output_root: Path, name: str) -> SweepSource:
    """A recorded sweep with its runs. Raises NothingToReport when there is none of that name."""
    path = output_root / "sweeps" / name / "sweep.json"
    if Path(name).name != name or not path.is_file():
        raise NothingToReport(_unknown_sweep(name, known_sweeps(output_root), output_root))
    notes: list[str] = []
    manifest = read_object(path, notes)
    if manifest is None:
        raise NothingToReport(f"sweep = {notes[0]}")
    if not is_intact(manifest):
        raise NothingToReport(
            f"sweep = {name}: {path} is damaged (its own hash differs); remove it, and the sweep's command makes it "
            "again."
        )

    def record_of(entry: Mapping[str, Any]) -> RunRecord:
        run_id = str(entry["run_id"]) if entry.get("run_id") else None
        return _present(read_run(_inside(output_root, str(entry.get("folder", ""))), run_id=run_id))

    return sweep_source(name, manifest, record_of)


def _inside(output_root: Path, folder: str) -> Path:
    """A run folder that a manifest names. Raises NothingToReport for one outside the output folder."""
    if Path(folder).is_absolute() or ".." in Path(folder).parts:
        raise NothingToReport(f"sweep.json: folder {folder!r}: must be below {output_root}.")
    return output_root / folder


def sweep_source(
    name: str, manifest: Mapping[str, Any], record_of: Callable[[Mapping[str, Any]], RunRecord]
) -> SweepSource:
    """A sweep as its manifest describes it; `record_of` reads the run of an entry."""
    entries = manifest.get("runs") or []
    records = tuple(_listed(record_of(entry), entry) for entry in entries)
    axes = {str(key): [str(v) for v in values] for key, values in (manifest.get("axes") or {}).items()}
    overrides = {
        record.run_id: dict(_key_and_value(each) for each in entry.get("overrides") or ())
        for record, entry in zip(records, entries, strict=True)
    }
    title, command = title_and_command(str(manifest.get("title") or name), axes)
    heading = Heading(
        name=name,
        title=title,
        command=command,
        question=str(manifest.get("question") or ""),
        baseline=str(manifest["baseline"]) if manifest.get("baseline") else None,
        window=int(manifest["window"]) if manifest.get("window") else None,
        created_at=str(manifest["created_at"]) if manifest.get("created_at") else None,
        claims=tuple(each for each in manifest.get("claims") or () if isinstance(each, dict)),
        tuned=manifest.get("tuned") or {},
        frozen=manifest.get("frozen") or {},
        of_methods=manifest.get("of_methods") or {},
        looks=manifest.get("looks") or {},
    )
    return SweepSource(heading, Source(name, True, records, axes, overrides))


def read_selected(folders: Sequence[Path], name: str) -> Source:
    """Run folders selected one by one. Raises NothingToReport for one that does not exist."""
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise NothingToReport(f"run folder = {missing[0]}: no such folder.")
    return Source(name, False, tuple(_present(read_run(folder)) for folder in folders))


def join(
    sweeps: Sequence[SweepSource],
    selected: Source | None,
    *,
    force: bool,
    name: str | None = None,
    source: str | None = None,
    notes: Sequence[str] = (),
) -> Study:
    """One study of all sources; `name` and `source` replace the default ones. Raises as load_study does."""
    sources = [sweep.source for sweep in sweeps] + ([selected] if selected else [])
    records = unique_records(sources)
    if steps_of(records) < 1:
        raise NothingToReport(_nothing_yet(sources, records))
    axes = study_axes(sources)
    differences = find_differences(sources, axes)
    if not force:
        check(differences)
    heading, disagreements = _heading(sweeps, selected, len(records))
    heading = replace(heading, name=name or heading.name, source=source or heading.source)
    told = (uncontrolled(axes, differences), code_versions(records), _unchecked(records))
    all_notes = (*notes, *disagreements, *(sentence for sentence in told if sentence))
    return assemble(records, axes, heading, all_notes, differences)


def title_and_command(title: str, axes: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """The heading of a page, and the command behind it: a sweep given on the command line has its overrides as title
    and is headed by what it varies (`algo × trainer.lr`). Any other title stays, without a command.
    """
    words = title.split()
    starts = [word.partition("=")[0].lstrip("+") for word in words if OVERRIDE.match(word)]
    if not words or not OVERRIDE.match(words[0]) or not axes or not set(axes) <= set(starts):
        return title, ""
    varied = [axis for axis, values in axes.items() if len(values) > 1]
    named = [axis for axis in varied if not is_seed_axis(axis)] or varied or list(axes)
    return " × ".join(named), title


def _heading(sweeps: Sequence[SweepSource], selected: Source | None, count: int) -> tuple[Heading, list[str]]:
    """The heading of the joined study, and a sentence for each setting that its sweeps disagree on."""
    if not sweeps:
        name = selected.name if selected else SELECTED
        return Heading(name, plural(count, "run"), source="" if name == SELECTED else "selected runs"), []
    headings = [sweep.heading for sweep in sweeps]
    if len(headings) == 1 and selected is None:
        return headings[0], []
    titles = list(dict.fromkeys(heading.title for heading in headings))
    names = [heading.name for heading in headings]
    baselines = list(dict.fromkeys(canonical(h.baseline) for h in headings if h.baseline))
    windows = sorted({heading.window for heading in headings if heading.window})
    disagreements = []
    if len(baselines) > 1:
        disagreements.append(
            f"The sweeps have different baselines ({', '.join(baselines)}); this report uses {baselines[0]}."
        )
    if len(windows) > 1:
        disagreements.append(
            f"The sweeps select the best accuracy within different windows ({', '.join(map(str, windows))} steps); "
            f"this report uses {windows[0]}."
        )
    sources = [f"{'sweep' if len(names) == 1 else 'sweeps'} {listed(names)}"]
    if selected:
        sources.append(f"{plural(len(selected.records), 'selected run')}")
    heading = Heading(
        name=_joined_name([*names, *([selected.name] if selected else [])]),
        title=" · ".join(titles) if len(titles) <= _MOST_TITLES else plural(len(names), "sweep"),
        question=" ".join(dict.fromkeys(h.question for h in headings if h.question)),
        command="; ".join(dict.fromkeys(h.command for h in headings if h.command)),
        baseline=baselines[0] if baselines else None,
        window=windows[0] if windows else None,
        created_at=max((h.created_at for h in headings if h.created_at), default=None),
        source=", ".join(sources),
        of_methods=_joined_axes([heading.of_methods for heading in headings]),
    )
    return heading, disagreements


def _joined_axes(of_methods: Sequence[Mapping[str, Sequence[str]]]) -> dict[str, list[str]]:
    joined: dict[str, list[str]] = {}
    for each in of_methods:
        for method, axes in each.items():
            joined[method] = list(dict.fromkeys([*joined.get(method, ()), *axes]))
    return joined


def _joined_name(names: Sequence[str]) -> str:
    """A folder name for several sources; a long one is cut and made unique by a digest."""
    name = "+".join(names)
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}-{_digest(names)}"


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:6]


def _listed(record: RunRecord, entry: Mapping[str, Any]) -> RunRecord:
    """The run with its values on the sweep's axes. Its status when the sweep last saw it tells a run that never started
    from one deleted.
    """
    record = replace(record, axes={str(key): str(value) for key, value in (entry.get("axes") or {}).items()})
    if record.info.get("status") == "PENDING" and entry.get("status"):
        reason = f"its folder was deleted; its last known status is {str(entry['status']).lower()}"
        return replace(record, info={"status": "MISSING", "reason": reason})
    return record


def _present(record: RunRecord) -> RunRecord:
    """The run with its present status: one marked RUNNING that no process works on was interrupted."""
    if record.info.get("status") != "RUNNING" or RunFolder(record.folder).present_status == "RUNNING":
        return record
    reason = "its process was killed; the same command resumes it from its last checkpoint"
    return replace(record, info={**record.info, "status": "INTERRUPTED", "reason": reason})


def _key_and_value(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+~").partition("=")
    return key, value


def _unchecked(records: Sequence[RunRecord]) -> str | None:
    bare = [record.folder.name for record in records if not record.config and record.folder.is_dir()]
    if not bare or len(records) == 1:
        return None
    which = listed(bare[:6]) + (f" and {len(bare) - 6} more" if len(bare) > 6 else "")
    return f"Some runs have no readable configuration ({which}), so it is unknown whether the runs are comparable."


def _nothing_yet(sources: Sequence[Source], records: Sequence[RunRecord]) -> str:
    states = ", ".join(sorted({str(record.info.get("status", "UNKNOWN")) for record in records}))
    if not sources[0].is_sweep:
        return f"none of the {len(records)} run folders has finished a step yet ({states})."
    names = listed([source.name for source in sources if source.is_sweep])
    return (
        f"sweep {names}: none of its {len(records)} runs has finished a step yet ({states or 'none listed'})."
    )


def _unknown_sweep(name: str, known: list[str], output_root: Path) -> str:
    if not known:
        return f"sweep = {name}: {output_root} holds no sweep yet."
    there = ", ".join(sorted(known))
    return (
        f"sweep = {name}: no such sweep in {output_root}; known sweeps are {there}.{near_miss(name, known)}"
    )


def _created_at(path: Path) -> tuple[str, float]:
    try:
        created = str(json.loads(path.read_text(encoding="utf-8")).get("created_at") or "")
        datetime.fromisoformat(created)
    except (ValueError, AttributeError):
        created = ""
    return created, path.stat().st_mtime
