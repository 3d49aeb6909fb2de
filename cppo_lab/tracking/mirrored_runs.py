"""Brings MLflow's record of a run to what its folder says.

What the store holds is read from the store. `mlflow.json` in a run folder says only which MLflow runs are the folder's:
by store, then by parent, the run's ID and a token, which is written before the run is created, so that one created by
a process that died is found again.
"""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from filelock import FileLock

from cppo_lab.addresses import without_credentials
from cppo_lab.errors import UserError
from cppo_lab.failpoints import failpoint
from cppo_lab.files import read_object, write_atomically
from cppo_lab.tracking.mlflow_names import PARENT_TAG, RUN_ID_TAG, SENT_TAG, TOKEN_TAG
from cppo_lab.tracking.run_content import RunContent, run_content
from cppo_lab.tracking.run_differences import NOTHING, Differences, StoredRun, differences
from cppo_lab.tracking.run_folder import RunFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MIRROR_FILE = "mlflow.json"
LOCK_FILE = ".mlflow.lock"
ALONE = "none"
"""The parent, in `mlflow.json`, of a run on its own."""
_BATCH = 500
_LOCK_PATIENCE_S = 60.0


@dataclass(frozen=True)
class _Sent:
    """What this process has sent of a run that goes on; holds as long as nobody else has written `mlflow.json`."""

    run_id: str
    last_step: int
    tags: Mapping[str, str]
    params: Mapping[str, str]
    written: str


def recorded_stores(folder: Path) -> list[str]:
    """The names of the stores that a folder's work was sent to; none where that cannot be read."""
    try:
        return [without_credentials(store) for store in read_object(folder / MIRROR_FILE)]
    except UserError:
        return []


class Folder(Protocol):
    """A folder of work that has a record in MLflow, such as a run folder."""

    @property
    def path(self) -> Path: ...


class MirroredRuns:
    """The MLflow runs of run folders in one experiment of one store.

    is_own: whether the store belongs to the output folder, so that every run of it with a folder's run ID is the
    folder's.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, store: str, *, is_own: bool) -> None:
        self._client, self._experiment_id, self._store, self._is_own = client, experiment_id, store, is_own
        self._sent: dict[tuple[Path, str], _Sent] = {}

    def children(self, parent: str) -> dict[str, list[Run]]:
        """The MLflow runs under a parent, by the lab's run ID."""
        found: dict[str, list[Run]] = defaultdict(list)
        for run in self._search(f"tags.`{PARENT_TAG}` = '{parent}'"):
            found[run.data.tags.get(RUN_ID_TAG, "")].append(run)
        return found

    def update(
        self,
        folder: RunFolder,
        parent: str | None,
        name: str,
        *,
        is_live: bool = False,
        known: Sequence[Run] | None = None,
        thorough: bool = False,
    ) -> list[str]:
        """Send what MLflow lacks of a run and return what was mended, in words; nothing where all was there.

        `known` are its MLflow runs under the parent, where the caller has looked. Unless `thorough`, a run that has
        ended and was seen complete in the store is not read again. `is_live`: the caller has the run trained.
        """
        if folder.written_at is None:
            return []
        with self._locked(folder):
            content = run_content(folder, is_live=is_live)
            if content is None:
                return []
            if not content.has_ended and self._send_new_rows(folder, parent):
                return []
            mended = self._reconcile(folder, parent, name, content, known, thorough)
            if content.has_ended:
                # Another sweep may have seen the run's earlier attempt.
                for other in [each for each in self._entries(folder) if each != (parent or ALONE)]:
                    self._refresh(folder, other, content)
        return mended

    def update_ended(self, folder: Folder, name: str, content: RunContent) -> list[str]:
        """Send what MLflow lacks of work that has ended and goes on in no other process; what was mended, in words."""
        with self._locked(folder):
            return self._reconcile(folder, None, name, content, None, thorough=True)

    def check(self, folder: RunFolder, parent: str | None) -> list[str]:
        """How MLflow's record differs from the folder, in words. Writes nothing."""
        content = run_content(folder)
        return [] if content is None else self._check(folder, parent, content)

    def check_ended(self, folder: Folder, content: RunContent) -> list[str]:
        """As `check`, for work that has ended."""
        return self._check(folder, None, content)

    def _check(self, folder: Folder, parent: str | None, content: RunContent) -> list[str]:
        runs = self._find(folder, parent, content.run_id, None)
        if not runs:
            return ["is missing"]
        found = [f"is there {len(runs)} times"] if len(runs) > 1 else []
        stored = self._stored(runs[0])
        return found + (differences(content, stored).described() or _unknown_files(content, stored))

    @contextmanager
    def _locked(self, folder: Folder) -> Iterator[None]:
        with FileLock(folder.path / LOCK_FILE, timeout=_LOCK_PATIENCE_S):
            yield

    def _reconcile(
        self,
        folder: Folder,
        parent: str | None,
        name: str,
        content: RunContent,
        known: Sequence[Run] | None,
        thorough: bool,
    ) -> list[str]:
        runs = self._find(folder, parent, content.run_id, known)
        digest = content.digest if content.has_ended else None
        if len(runs) == 1 and not thorough and _is_seen_complete(runs[0], content, digest):
            if self._entry(folder, parent).get("run_id") != runs[0].info.run_id:
                self._note(folder, parent, run_id=runs[0].info.run_id)
            return []
        mended = [f"is there {len(runs)} times"] if len(runs) > 1 else []
        for surplus in runs[1:]:
            self._client.delete_run(surplus.info.run_id)
        if not runs:
            run_id = self._create(folder, parent, name, content)
            self._send(run_id, content, differences(content, NOTHING), digest)
            self._note_sent(folder, parent, run_id, content)
            return [*mended, "is missing"]
        stored = self._stored(runs[0])
        found = differences(content, stored)
        described = found.described() or _unknown_files(content, stored)
        if digest is not None and stored.tags.get(SENT_TAG) != digest:
            # A file of the same size may be another.
            found.files = list(content.files)
        run_id = runs[0].info.run_id
        if found.contradictions:
            self._client.delete_run(run_id)
            run_id, stored = self._create(folder, parent, name or runs[0].info.run_name, content), NOTHING
            self._send(run_id, content, differences(content, stored), digest)
        else:
            if found.described() or self._entry(folder, parent).get("run_id") != run_id:
                self._note(folder, parent, run_id=run_id)
            self._send(run_id, content, found, digest)
        # A run that was resumed makes rows again that the store has.
        ahead = max((step for _, step in stored.metrics), default=-1)
        self._note_sent(folder, parent, run_id, content, max(ahead, content.last_step))
        return mended + described

    def _refresh(self, folder: RunFolder, parent: str, content: RunContent) -> None:
        """Bring a copy under another parent up to date, and forget one that was deleted."""
        under = None if parent == ALONE else parent
        runs = self._find(folder, under, content.run_id, None)
        if runs:
            self._reconcile(folder, under, runs[0].info.run_name or "", content, runs, thorough=False)
        else:
            entries = self._entries(folder)
            del entries[parent]
            self._write_entries(folder, entries)

    def _send_new_rows(self, folder: RunFolder, parent: str | None) -> bool:
        """Send the rows of a run that goes on which this process has not sent yet. False if all has to be compared."""
        sent = self._sent.get((folder.path, parent or ALONE))
        if sent is None or sent.written != self._file_text(folder):
            return False
        content = run_content(folder, is_live=True, after=sent.last_step)
        rows = folder.rows("metrics.jsonl")
        is_rewound = not rows or rows[-1]["step"] < sent.last_step
        if content is None or content.has_ended or content.params != sent.params or is_rewound:
            return False
        new = Differences(
            metrics=list(content.metrics),
            tags=[key for key, text in content.tags.items() if sent.tags.get(key) != text],
        )
        if new.metrics or new.tags:
            # Whoever is interrupted here leaves a file that nobody trusts.
            del self._sent[folder.path, parent or ALONE]
            self._note(folder, parent, run_id=sent.run_id)
            self._send(sent.run_id, content, new, None)
            last = max(content.last_step, sent.last_step)
            self._note_sent(folder, parent, sent.run_id, content, last)
        return True

    def _note_sent(
        self,
        folder: Folder,
        parent: str | None,
        run_id: str,
        content: RunContent,
        last_step: int | None = None,
    ) -> None:
        if content.has_ended:
            self._sent.pop((folder.path, parent or ALONE), None)
            return
        last = content.last_step if last_step is None else last_step
        self._sent[folder.path, parent or ALONE] = _Sent(
            run_id, last, content.tags, content.params, self._file_text(folder)
        )

    def _send(self, run_id: str, content: RunContent, found: Differences, digest: str | None) -> None:
        """Send differences; the digest last, when all the rest is there."""
        from mlflow.entities import Metric, Param, RunTag

        params = [Param(key, content.params[key]) for key in found.params]
        for start in range(0, len(params), 100):
            self._client.log_batch(run_id, params=params[start : start + 100])
        tags = [RunTag(key, content.tags[key]) for key in found.tags]
        if tags:
            self._client.log_batch(run_id, tags=tags)
        for key in found.stale_tags:
            self._client.delete_tag(run_id, key)
        metrics = [
            Metric(key, content.metrics[key, step].value, content.metrics[key, step].at, step)
            for key, step in found.metrics
        ]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
            failpoint("mirror-metrics")
        for name in found.files:
            self._client.log_artifact(
                run_id, str(content.files[name]), str(Path(name).parent).strip(".") or None
            )
        if found.status and content.has_ended:
            self._client.set_terminated(run_id, content.status, content.ended)
        elif found.status:
            self._client.update_run(run_id, status=content.status)
        failpoint("mirror-ended")
        if digest is not None:
            self._client.set_tag(run_id, SENT_TAG, digest)

    def _create(self, folder: Folder, parent: str | None, name: str, content: RunContent) -> str:
        token = self._entry(folder, parent).get("token") or uuid.uuid4().hex
        self._note(folder, parent, token=token, run_id=None)
        failpoint("mirror-named")
        tags = {**content.tags, TOKEN_TAG: token}
        if parent:
            tags[PARENT_TAG] = parent
        run = self._client.create_run(
            self._experiment_id, start_time=content.started or None, tags=tags, run_name=name
        )
        failpoint("mirror-created")
        self._note(folder, parent, run_id=run.info.run_id)
        return str(run.info.run_id)

    def _find(
        self, folder: Folder, parent: str | None, run_id: str, known: Sequence[Run] | None
    ) -> list[Run]:
        """The folder's MLflow runs under a parent, the one that it names, or else the oldest, first."""
        entry = self._entry(folder, parent)
        # None known may mean that another process has made it since.
        found = known or self._search(f"tags.`{RUN_ID_TAG}` = '{run_id}'") or self._named(entry)
        under = [run for run in found if run.data.tags.get(PARENT_TAG) == parent]
        # Under a parent of its own, or in a store of its own, all are the folder's; elsewhere others run the same.
        own = [
            run
            for run in under
            if parent
            or self._is_own
            or run.info.run_id == entry.get("run_id")
            or (run.data.tags.get(TOKEN_TAG) or "?") == entry.get("token")
        ]
        return sorted(own, key=lambda run: (run.info.run_id != entry.get("run_id"), run.info.start_time))

    def _named(self, entry: Mapping[str, Any]) -> list[Run]:
        """The run that an entry names: earlier versions gave evaluations no tag to be found by."""
        from mlflow.exceptions import MlflowException

        if not entry.get("run_id"):
            return []
        try:
            run = self._client.get_run(entry["run_id"])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return []
        is_here = run.info.experiment_id == self._experiment_id and run.info.lifecycle_stage == "active"
        return [run] if is_here else []

    def _search(self, condition: str) -> list[Run]:
        page = self._client.search_runs([self._experiment_id], condition, max_results=1000)
        found = list(page)
        while page.token:
            page = self._client.search_runs(
                [self._experiment_id], condition, max_results=1000, page_token=page.token
            )
            found += page
        return found

    def _stored(self, run: Run) -> StoredRun:
        run_id = run.info.run_id
        metrics: dict[tuple[str, int], list[float]] = defaultdict(list)
        for key in run.data.metrics:
            for each in self._client.get_metric_history(run_id, key):
                metrics[key, each.step].append(each.value)
        there = self._client.list_artifacts(run_id)
        files = [each for each in there if not each.is_dir]
        if any(each.path == "samples" for each in there):
            files += self._client.list_artifacts(run_id, "samples")
        sizes = {each.path: each.file_size for each in files}
        return StoredRun(run.info.status, run.data.tags, run.data.params, metrics, sizes)

    def _entries(self, folder: Folder) -> dict[str, dict[str, Any]]:
        """The folder's runs in this store, by parent."""
        return self._read(folder).get(self._store, {})

    def _entry(self, folder: Folder, parent: str | None) -> dict[str, Any]:
        return self._entries(folder).get(parent or ALONE, {})

    def _read(self, folder: Folder) -> dict[str, dict[str, dict[str, Any]]]:
        try:
            content = read_object(folder.path / MIRROR_FILE)
        except UserError:
            # It only saves a search; what it named is found by the tags.
            return {}
        return {
            without_credentials(store): {ALONE: {"run_id": under}} if isinstance(under, str) else under
            for store, under in content.items()
            if isinstance(under, (str, dict))
        }

    def _note(self, folder: Folder, parent: str | None, **changes: str | None) -> None:
        """Change an entry, and its mark, which tells other processes that what they know of the run is out of date."""
        entries = self._entries(folder)
        known = {key: text for key, text in self._entry(folder, parent).items() if key in ("token", "run_id")}
        entries[parent or ALONE] = known | changes | {"mark": uuid.uuid4().hex[:8]}
        self._write_entries(folder, entries)

    def _write_entries(self, folder: Folder, entries: Mapping[str, Mapping[str, Any]]) -> None:
        content = self._read(folder) | {self._store: entries}
        write_atomically(folder.path / MIRROR_FILE, json.dumps(content))

    def _file_text(self, folder: Folder) -> str:
        path = folder.path / MIRROR_FILE
        return path.read_text(encoding="utf-8") if path.exists() else ""


def _unknown_files(content: RunContent, stored: StoredRun) -> list[str]:
    """The difference of a record whose files have the right sizes, and may be others."""
    is_known = not content.has_ended or stored.tags.get(SENT_TAG) == content.digest
    return [] if is_known else ["was sent before its files were what they are"]


def _is_seen_complete(run: Run, content: RunContent, digest: str | None) -> bool:
    """Whether the store held all of an ended run's content when it was last compared."""
    return digest is not None and run.data.tags.get(SENT_TAG) == digest and run.info.status == content.status
