"""Keeps MLflow up to date with a sweep, or with one run, while it goes on."""

from __future__ import annotations

import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from cppo_lab.config.schema import RunConfig, Tracking
from cppo_lab.tracking.mlflow_store import Store, first_line, tracking_uri
from cppo_lab.tracking.run_folder import RunFolder


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
    def manifest_path(self) -> Path: ...
    def read_manifest(self) -> Mapping[str, Any]: ...
    def write_manifest(self, **extra: Any) -> Path: ...


class NoMirror:
    """Tracking is off."""

    run_id = ""

    def poll(self) -> None:
        """Nothing to do."""

    def close(self, succeeded: bool) -> None:
        """Nothing to do."""


class _Mirror(ABC):
    """Sends what is new every so many seconds, in a thread: a slow store never keeps the runs waiting.

    A store that fails meanwhile is said once and tried again.
    """

    def __init__(self, tracking: Tracking, output: Path) -> None:
        self._every = tracking.every_s
        self._last = 0.0
        self._complained = False
        self._sender: threading.Thread | None = None
        # Runs that had ended when they were last sent, with the time of their run.json: one that goes on changes it.
        self._ended: dict[Path, int] = {}
        uri = tracking_uri(tracking.uri, output)
        self.store = Store(uri, tracking.experiment, output)

    @abstractmethod
    def runs(self) -> list[tuple[RunFolder, str]]:
        """The run folders to mirror, each with the name to give its MLflow run."""

    @property
    def parent(self) -> str | None:
        return None

    def poll(self) -> None:
        """Begin to send what is new, unless that goes on already or was done a moment ago."""
        if self._sender is not None and self._sender.is_alive():
            return
        if time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            # An interpreter that ends does not wait for it; `close` does.
            self._sender = threading.Thread(target=self.send, name="mlflow", daemon=True)
            self._sender.start()

    def send(self) -> None:
        """Send what is new, and return when it is sent."""
        self._forgiving(self._send_new)

    def close(self, succeeded: bool) -> None:
        """Wait for what is on its way, and send the rest."""
        if self._sender is not None:
            self._sender.join()
        self.send()

    def _send_new(self) -> None:
        for folder, name in self.runs():
            written = folder.written_at
            if written is None or self._ended.get(folder.path) == written:
                continue
            if self.store.mirror(folder, self.parent, name):
                self._ended[folder.path] = written

    def _forgiving(self, action: Callable[[], None]) -> None:
        """Do `action`; a store that fails is complained of once and costs no result."""
        try:
            action()
        except Exception as error:
            # Results are in the run folders; a store that is down for a while must not stop the runs.
            if not self._complained:
                reason = first_line(error)
                print(f"Warning: MLflow store {self.store.uri}: {reason}; trying again.", file=sys.stderr)
            self._complained = True


class SweepMirror(_Mirror):
    """Mirrors all runs of a sweep, nested under one parent run, which the sweep's manifest names."""

    def __init__(self, sweep: TrackedSweep, tracking: Tracking) -> None:
        super().__init__(tracking, sweep.output)
        self._sweep = sweep
        known = sweep.read_manifest()
        axes = {key: ",".join(values) for key, values in sweep.axes.items()}
        self.run_id = self.store.parent_run(
            sweep.name,
            {"sweep": sweep.name, "axes": axes},
            known.get("mlflow_run_id") if known.get("tracking_store") == self.store.name else None,
        )
        # The address is for readers; the name stays the same when the output folder moves.
        sweep.write_manifest(
            tracking_uri=self.store.uri, tracking_store=self.store.name, mlflow_run_id=self.run_id
        )
        # At once: who looks at the store sees which runs are still to come, whatever happens to this process.
        self._forgiving(lambda: self.store.describe_parent(self.run_id, [self._sweep.manifest_path]))

    def runs(self) -> list[tuple[RunFolder, str]]:
        """All runs, by their axis values."""
        return [(run.folder, run.label) for run in self._sweep.runs]

    @property
    def parent(self) -> str | None:
        """The sweep's own run."""
        return self.run_id

    def close(self, succeeded: bool) -> None:
        """Send the rest, and end the parent run."""
        super().close(succeeded)
        self._sweep.write_manifest()
        self._forgiving(lambda: self.store.close_parent(self.run_id, succeeded, [self._sweep.manifest_path]))


class RunMirror(_Mirror):
    """Mirrors one run, alone or under a parent that another process made."""

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
