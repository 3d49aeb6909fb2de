"""The runs of an MLflow experiment as a study.

Files of runs are kept in a cache: those of a run that has ended are fetched once, those of one that goes on every time.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from filelock import FileLock

from cppo_lab.analysis.formatting import listed, plural
from cppo_lab.analysis.load.axes import Source
from cppo_lab.analysis.load.mlflow_records import (
    fetch_manifest,
    fetch_record,
    folder_name,
    has_ended,
    safe_name,
)
from cppo_lab.analysis.load.run_record import RunRecord, not_started
from cppo_lab.analysis.load.sources import NothingToReport, SweepSource, join, sweep_source
from cppo_lab.analysis.load.study import Study
from cppo_lab.errors import UserError, first_line, near_miss
from cppo_lab.tracking.mlflow_names import KIND_TAG, RUN_ID_TAG
from cppo_lab.tracking.mlflow_store import quiet_client
from cppo_lab.tracking.sqlite_store import sqlite_problem

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_PARENT_TAG = "mlflow.parentRunId"
_AT_A_TIME = 8
_PAGE = 500


@dataclass(frozen=True)
class Selection:
    """What to report from a tracking server: an experiment, or only these sweeps and runs of it."""

    uri: str
    experiment: str
    sweeps: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """The server's address without the credentials it may hold."""
        parts = urlsplit(self.uri)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else self.uri


@dataclass(frozen=True)
class _Listing:
    """The lab's runs in an experiment, one entry for each; and its sweeps with their members."""

    runs: dict[str, Run]
    sweeps: dict[str, Run]
    members: dict[str, list[str]]

    @property
    def alone(self) -> list[str]:
        """Runs that belong to no sweep."""
        inside = {run_id for members in self.members.values() for run_id in members}
        return [run_id for run_id in self.runs if run_id not in inside]


def load_experiment(wanted: Selection, cache: Path, *, force: bool = False) -> Study:
    """The study of an experiment's runs; their files are cached in `cache`.

    Raises NothingToReport when the server cannot be read, or has no such experiment, sweep or run; NotComparable as
    load_study does.
    """
    with _reading(wanted):
        client = _client(wanted)
        listing = _listing(client, wanted)
        names, alone = _chosen(listing, wanted)
        root = cache / f"{safe_name(wanted.experiment)}-{_digest(wanted.address)}"
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".lock"):
            needed = dict.fromkeys([*(run for name in names for run in listing.members[name]), *alone])
            runs = [listing.runs[run_id] for run_id in needed]
            with ThreadPoolExecutor(_AT_A_TIME) as pool:
                fetched = list(pool.map(lambda run: fetch_record(client, run, root / "runs"), runs))
            records = {record.run_id: record for record, _ in fetched}
            sweeps = [_sweep(client, listing, name, records, root) for name in names]
    of_runs = [records[run_id] for run_id in alone]
    selected = Source(f"runs-{_digest(*sorted(alone))}", False, tuple(of_runs)) if alone else None
    unsent = [record.folder.name for record, has_sent in fetched if not has_sent]
    name = "+".join(["mlflow", safe_name(wanted.experiment), *map(safe_name, (*wanted.sweeps, *wanted.runs))])
    source = f"MLflow experiment {wanted.experiment} at {wanted.address}"
    return join(sweeps, selected, force=force, name=name, source=source, notes=_told(unsent))


@contextmanager
def _reading(wanted: Selection) -> Iterator[None]:
    """Turn any error of a store (SQLAlchemy, requests, MLflow, the system) into one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise NothingToReport(
            f"--mlflow {wanted.address}: cannot be read ({_reason(error, wanted)})."
        ) from error


def _reason(error: Exception, wanted: Selection) -> str:
    """The system error at the end of the chain (`connection refused`), else the first line of the error."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.strerror:
            return link.strerror.lower()
        link = link.__cause__ or link.__context__
    return first_line(Exception(str(error).replace(wanted.uri, wanted.address) or type(error).__name__))


def _client(wanted: Selection) -> MlflowClient:
    scheme, separator, path = wanted.uri.partition("://")
    if not separator:
        raise NothingToReport(
            f"--mlflow {wanted.uri}: is not the address of a store; allowed are http://…, https://… and sqlite:///…"
        )
    # MLflow would create an empty store.
    if (
        scheme in ("sqlite", "file")
        and not Path(path.removeprefix("/") if scheme == "sqlite" else path).exists()
    ):
        raise NothingToReport(f"--mlflow {wanted.uri}: no such store.")
    problem = sqlite_problem(wanted.uri)
    if problem:
        raise NothingToReport(f"--mlflow {wanted.uri}: cannot be read ({problem}).")
    quiet_client()
    from mlflow import MlflowClient

    return MlflowClient(wanted.uri)


def _listing(client: MlflowClient, wanted: Selection) -> _Listing:
    experiment = client.get_experiment_by_name(wanted.experiment)
    if experiment is None:
        known = [each.name for each in client.search_experiments()]
        raise NothingToReport(
            f"--experiment {wanted.experiment}: no such experiment at {wanted.address}; there are "
            f"{', '.join(sorted(known)) or 'none'}.{near_miss(wanted.experiment, known)}"
        )
    page = client.search_runs([experiment.experiment_id], max_results=_PAGE)
    everything: list[Run] = [*page]
    while page.token:
        page = client.search_runs([experiment.experiment_id], max_results=_PAGE, page_token=page.token)
        everything += page
    runs: dict[str, Run] = {}
    for run in everything:
        if run.data.tags.get(KIND_TAG) == "run" and run.data.tags.get(RUN_ID_TAG):
            run_id = run.data.tags[RUN_ID_TAG]
            # A run is sent once for each of its sweeps.
            runs[run_id] = max(runs.get(run_id, run), run, key=_weight)
    if not runs:
        raise NothingToReport(
            f"--experiment {wanted.experiment}: holds no run of the lab ({plural(len(everything), 'other run')})."
        )
    parents = sorted(
        (run for run in everything if run.data.tags.get(KIND_TAG) == "sweep"),
        key=lambda run: run.info.start_time,
    )
    sweeps: dict[str, Run] = {}
    for parent in reversed(parents):
        name = safe_name(parent.info.run_name or parent.info.run_id)
        sweeps[name if name not in sweeps else f"{name}-{parent.info.run_id[:8]}"] = parent
    by_parent: dict[str, list[str]] = defaultdict(list)
    # The server lists the newest first.
    for run in reversed(everything):
        if run.data.tags.get(RUN_ID_TAG) in runs and _PARENT_TAG in run.data.tags:
            by_parent[run.data.tags[_PARENT_TAG]].append(run.data.tags[RUN_ID_TAG])
    members = {
        name: list(dict.fromkeys(by_parent[run.info.run_id])) for name, run in reversed(sweeps.items())
    }
    return _Listing(runs, sweeps, members)


def _sweep(
    client: MlflowClient, listing: _Listing, name: str, records: Mapping[str, RunRecord], root: Path
) -> SweepSource:
    members = [listing.runs[run_id] for run_id in listing.members[name]]
    manifest = fetch_manifest(client, listing.sweeps[name], members, root / "sweeps" / name)

    def record_of(entry: Mapping[str, Any]) -> RunRecord:
        # A path that came over the network is not followed.
        run_id = str(entry["run_id"])
        return records.get(run_id) or not_started(root / "runs" / safe_name(run_id), run_id)

    return sweep_source(name, manifest, record_of)


def _weight(run: Run) -> tuple[bool, int]:
    return has_ended(run), run.info.end_time or run.info.start_time or 0


def _chosen(listing: _Listing, wanted: Selection) -> tuple[list[str], list[str]]:
    """The names of the sweeps, and the ids of the single runs, to report."""
    if not wanted.sweeps and not wanted.runs:
        return [name for name, members in listing.members.items() if members], listing.alone
    names: list[str] = []
    for asked in wanted.sweeps:
        found = [name for name, run in listing.sweeps.items() if asked in (name, run.info.run_name)]
        if not found:
            raise NothingToReport(_unknown("sweep", asked, list(listing.members), wanted))
        names += found
    alone = []
    for asked in wanted.runs:
        called = {run_id: folder_name(run) for run_id, run in listing.runs.items()}
        match = [
            run_id
            for run_id, run in listing.runs.items()
            if asked in (run_id, called[run_id], run.info.run_id)
        ]
        if not match:
            raise NothingToReport(_unknown("--run", asked, list(called.values()), wanted))
        alone += match
    return list(dict.fromkeys(names)), list(dict.fromkeys(alone))


def _unknown(key: str, asked: str, known: Sequence[str], wanted: Selection) -> str:
    there = f"; there are {', '.join(sorted(known)[:20])}" if known else ""
    return (
        f"{key} = {asked}: not in experiment {wanted.experiment} at {wanted.address}{there}."
        f"{near_miss(asked, known)}"
    )


def _told(unsent: Sequence[str]) -> list[str]:
    """A note on the runs that were read from parameters and metrics."""
    if not unsent:
        return []
    names = listed([*unsent[:6], *([f"{len(unsent) - 6} more"] if len(unsent) > 6 else [])])
    has = "has" if len(unsent) == 1 else "have"
    return [
        f"{plural(len(unsent), 'run')} {has} sent no files to the server ({names}): parameters and metrics were read, "
        "but no timings, profiles or samples."
    ]


def _digest(*names: str) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:6]
