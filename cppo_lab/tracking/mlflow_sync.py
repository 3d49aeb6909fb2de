"""Keeps MLflow up to date with a sweep or a run while it is running."""

from __future__ import annotations

import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cppo_lab.addresses import without_credentials
from cppo_lab.config.schema import RunConfig, Tracking
from cppo_lab.errors import first_line
from cppo_lab.tracking.mirrored_sweep import MirroredSweep, sweep_status
from cppo_lab.tracking.mlflow_store import Store
from cppo_lab.tracking.run_folder import RunFolder
from cppo_lab.tracking.store_address import tracking_uri

if TYPE_CHECKING:
    from mlflow.entities import Run

# A store that failed so often in a row is down: no run is tried until the next time.
_FAILURES = 3


class TrackedRun(Protocol):
    """A planned run: its folder, and its method with the other axis values."""

    @property
    def folder(self) -> RunFolder: ...
    @property
    def label(self) -> str: ...


class TrackedSweep(Protocol):
    """What of a sweep is tracked; `cppo_lab.sweeps.sweep.Sweep` is one."""

    @property
    def name(self) -> str: ...
    @property
    def runs(self) -> Sequence[TrackedRun]: ...
    @property
    def axes(self) -> Mapping[str, Sequence[str]]: ...
    @property
    def output(self) -> Path: ...
    @property
    def folder(self) -> Path: ...
    def read_manifest(self) -> Mapping[str, Any]: ...
    def write_manifest(self, **extra: Any) -> Path: ...


class NoMirror:
    """Tracking is off."""

    run_id = ""
    unsent: Sequence[str] = ()
    address = ""

    def poll(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class _Mirror(ABC):
    """Sends new data every `tracking.every_s` seconds, in a thread, so that a slow store never blocks the runs.

    A store that fails is reported once and retried. unsent: after `close`, the names of what could not be sent.
    """

    def __init__(self, tracking: Tracking, output: Path) -> None:
        self._every = tracking.every_s
        self._last = 0.0
        self._reported = False
        self._sender: threading.Thread | None = None
        # Ended runs that were sent, with the time of their run.json, which changes when a run is resumed.
        self._ended: dict[Path, int] = {}
        uri = tracking_uri(tracking.uri, output)
        self.store = Store(uri, tracking.experiment, output)
        self.address = self.store.address
        self.unsent: list[str] = []

    @abstractmethod
    def runs(self) -> list[tuple[RunFolder, str]]:
        """The run folders to mirror, each with the name to give its MLflow run."""

    @property
    def parent(self) -> str | None:
        return None

    def poll(self) -> None:
        """Start sending new data, unless that is under way or was done within the interval."""
        if self._sender is not None and self._sender.is_alive():
            return
        if time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            # A daemon: the interpreter does not wait for it at exit; `close` does.
            self._sender = threading.Thread(target=self.send, name="mlflow", daemon=True)
            self._sender.start()

    def send(self) -> None:
        """Send new data and return when it is sent."""
        self._send_new(is_live=True)

    def close(self) -> None:
        """Wait for the running transfer, then send the rest, and compare."""
        if self._sender is not None:
            self._sender.join()
        self.unsent = self._send_new(is_live=False)

    def _send_new(self, *, is_live: bool) -> list[str]:
        """Send what is new of each run; the names of those of which something could not be sent."""
        unsent: list[str] = []
        failures = 0
        listed: dict[str, list[Run]] | None = None
        for folder, name in self.runs():
            written = folder.written_at
            if written is None or self._ended.get(folder.path) == written or not folder.is_readable:
                continue
            if failures >= _FAILURES:
                unsent.append(folder.path.name)
                continue
            try:
                if listed is None:
                    # One question for all runs of a sweep, of which most may be complete.
                    listed = {} if is_live or self.parent is None else self.store.runs.children(self.parent)
                known = listed.get(folder.path.name.rpartition("-")[2])
                self.store.runs.update(folder, self.parent, name, is_live=is_live, known=known)
                failures = 0
            except Exception as error:
                # The results are in the run folders; a store that is down must not stop the runs.
                failures += 1
                unsent.append(folder.path.name)
                self._report(error)
                continue
            if folder.status != "RUNNING":
                self._ended[folder.path] = written
        return unsent

    def _report(self, error: Exception) -> None:
        """Say once that the store fails."""
        if not self._reported:
            reason = without_credentials(first_line(error))[:200]
            print(f"Warning: MLflow store {self.address}: {reason}; trying again.", file=sys.stderr)
        self._reported = True


class SweepMirror(_Mirror):
    """Mirrors all runs of a sweep, nested under one parent run, which the sweep's manifest names."""

    def __init__(self, sweep: TrackedSweep, tracking: Tracking) -> None:
        super().__init__(tracking, sweep.output)
        self._sweep = sweep
        known = sweep.read_manifest()
        axes = {key: ",".join(values) for key, values in sweep.axes.items()}
        is_same = known.get("tracking_store") == self.store.name
        self._parent = MirroredSweep(
            store=self.store,
            folder=sweep.folder,
            name=sweep.name,
            params={"sweep": sweep.name, "axes": axes},
            legacy_id=known.get("mlflow_run_id") if is_same else None,
        )
        self.run_id = self.store.trying(self._parent.open)
        # The address is for readers; the name survives a move of the output folder.
        sweep.write_manifest(
            tracking_uri=self.address, tracking_store=self.store.name, mlflow_run_id=self.run_id
        )
        # At once, so that the store lists the planned runs whatever happens to this process.
        self._describe()

    def runs(self) -> list[tuple[RunFolder, str]]:
        """All runs, named by their axis values."""
        return [(run.folder, run.label) for run in self._sweep.runs]

    @property
    def parent(self) -> str | None:
        """The MLflow run of the sweep."""
        return self.run_id

    def close(self) -> None:
        """Send the rest, and end the parent run, unless another process still trains a run of it."""
        super().close()
        self._sweep.write_manifest()
        statuses = [run.folder.present_status for run in self._sweep.runs]
        if not self._describe(sweep_status(statuses)):
            self.unsent.append(self._sweep.name)

    def _describe(self, status: str = "RUNNING") -> bool:
        try:
            self._parent.describe(self._parent.open(status))
        except Exception as error:
            self._report(error)
            return False
        return True


class RunMirror(_Mirror):
    """Mirrors one run, on its own or under a parent created by another process."""

    def __init__(self, config: RunConfig, folder: RunFolder, parent: str | None = None) -> None:
        super().__init__(config.tracking, config.paths.output)
        self._folder, self._parent = folder, parent

    def runs(self) -> list[tuple[RunFolder, str]]:
        """The one run."""
        return [(self._folder, self._folder.info.get("name", self._folder.path.name))]

    @property
    def parent(self) -> str | None:
        """The parent, if any."""
        return self._parent
