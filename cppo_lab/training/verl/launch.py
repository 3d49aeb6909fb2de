"""Starts the process that trains a run by verl, watches it, and ends whatever is left of it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cppo_lab.config.backend import VerlBackend
from cppo_lab.errors import UserError
from cppo_lab.files import read_object
from cppo_lab.paths import checkout
from cppo_lab.tracking.run_folder import RunFolder
from cppo_lab.training.activity import Activity, OnActivity
from cppo_lab.training.verl.driver import ACTIVITY, JOB, OUTCOME, PLUGINS
from cppo_lab.training.verl.translate import translate

if TYPE_CHECKING:
    from cppo_lab.config.schema import RunConfig

MARK = "CPPO_LAB_VERL_RUN"
"""The environment variable by which every process of a run is known."""
LOG = "verl/verl.log"
_POLL_S = 0.5
_KILLED_S = 5.0
_ROUNDS = 10
_GRACE_S = 60.0
"""How long the driver may take to end its workers after it was told to."""


def environment_python(backend: VerlBackend) -> Path:
    """The Python of verl's environment. Raises UserError where there is none."""
    given = backend.python or os.environ.get("CPPO_LAB_VERL_PYTHON")
    path = Path(given) if given else (checkout() or Path()) / ".venv-verl" / "bin" / "python"
    if path.is_file():
        return path
    if given:
        key = "backend.python" if backend.python else "CPPO_LAB_VERL_PYTHON"
        raise UserError(f"{key}={given}: no such Python.")
    raise UserError(
        f"backend=verl: verl has no environment yet ({path}); run make backend-verl, or give backend.python."
    )


def check(config: RunConfig) -> None:
    """Raise UserError, before any work starts, where verl cannot train the run."""
    assert isinstance(config.backend, VerlBackend), "the caller checked it"
    backend = config.backend
    refusals = translate(config, "START").refusals
    if refusals:
        raise UserError(refusals[0])
    if backend.nodes > 1 and backend.address is None:
        raise UserError(
            f"backend.nodes={backend.nodes}: needs the Ray cluster that the nodes belong to; give backend.address."
        )
    environment_python(backend)


def train_by_verl(
    config: RunConfig,
    folder: RunFolder,
    start: str,
    on_step: Callable[[int, Mapping[str, Any]], None] | None,
    on_activity: OnActivity | None = None,
) -> None:
    """Train the run from the starting policy at `start` in a process of its own, until it ends.

    Raises what stopped it: UserError for what went wrong, Diverged, or KeyboardInterrupt; no process is left then.
    """
    from cppo_lab.training.update import Diverged

    backend = config.backend
    assert isinstance(backend, VerlBackend), "the caller checked it"
    _write_job(folder, config, start)
    process, family = _started(backend, folder), Family(_mark(folder))
    try:
        _watch(process, family, backend, folder, on_step, on_activity)
    finally:
        _end(process, family)
    outcome = _outcome(process, folder)
    if outcome["status"] == "INTERRUPTED":
        raise KeyboardInterrupt
    if outcome["status"] == "FAILED":
        raise (Diverged if outcome.get("diverged") else UserError)(outcome["reason"])


def command(backend: VerlBackend, folder: Path) -> list[str]:
    """The command line of the driver."""
    return [str(environment_python(backend)), "-m", "cppo_lab.training.verl.driver", str(folder)]


def _write_job(folder: RunFolder, config: RunConfig, start: str) -> None:
    path = folder.path / JOB
    path.parent.mkdir(exist_ok=True)
    job = {"start": start, "overrides": list(translate(config, start).overrides)}
    path.write_text(json.dumps(job, indent=2) + "\n", encoding="utf-8")
    for name in (OUTCOME, ACTIVITY):
        (folder.path / name).unlink(missing_ok=True)


def driver_environment(backend: VerlBackend, mark: str) -> dict[str, str]:
    """The environment of the driver; Ray gives it on to every process of the run."""
    # An installed lab lies among other packages, which verl's environment has in versions of its own.
    given, own = os.environ.get("PYTHONPATH", ""), checkout()
    told = {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(own or ""), given))),
        "VERL_USE_EXTERNAL_MODULES": PLUGINS,
        MARK: mark,
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HYDRA_FULL_ERROR": "1",
    }
    if backend.device == "cpu":
        # Ray kills workers when a machine's memory fills up, which says nothing about these small ones.
        told |= {"VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1", "RAY_memory_monitor_refresh_ms": "0"}
    return os.environ | told


def _mark(folder: RunFolder) -> str:
    """What only this run has: another output folder may hold one of the same name."""
    return str(folder.path.resolve())


def _started(backend: VerlBackend, folder: RunFolder) -> subprocess.Popen[bytes]:
    with (folder.path / LOG).open("ab") as log:
        return subprocess.Popen(
            command(backend, folder.path),
            env=driver_environment(backend, _mark(folder)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # A terminal's Ctrl-C reaches this process alone, which tells the driver.
            start_new_session=True,
        )


class Family:
    """The processes of a run on this machine: what carries its mark, and what descended from its driver.

    Both are needed: Ray starts processes that outlive their parents, and some whose titles overwrite the mark.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._seen: set[Any] = set()

    def look(self, driver: int) -> None:
        """Take note of the driver's present descendants."""
        import psutil

        with suppress(psutil.NoSuchProcess):
            self._seen.update(psutil.Process(driver).children(recursive=True))

    def alive(self) -> list[Any]:
        """Those that still live, as psutil knows them."""
        import psutil

        return [
            each
            for each in {*self._seen, *psutil.process_iter()}
            if _lives(each, None if each in self._seen else self._mark)
        ]

    def end(self) -> None:
        """Kill them all."""
        import psutil

        # A process may start another one while it is being found.
        for _ in range(_ROUNDS):
            victims = self.alive()
            if not victims:
                return
            for each in victims:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            psutil.wait_procs(victims, timeout=_KILLED_S)


def _lives(process: Any, mark: str | None) -> bool:
    """Whether a process runs and, if `mark` is given, carries it."""
    import psutil

    try:
        if mark is not None and process.environ().get(MARK) != mark:
            return False
        # psutil compares the time of creation, so that a number given away again is nobody's.
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        # It ended, or belongs to somebody else.
        return False


def _watch(
    process: subprocess.Popen[bytes],
    family: Family,
    backend: VerlBackend,
    folder: RunFolder,
    on_step: Callable[[int, Mapping[str, Any]], None] | None,
    on_activity: OnActivity | None,
) -> None:
    """Until the driver ends. Raises UserError where it gives no sign of life for too long."""
    started = heard = time.monotonic()
    rows = folder.rows("metrics.jsonl")
    told, allowed = len(rows), backend.startup_s
    done = rows[-1]["step"] if rows else 0
    seen: Activity | None = None
    while process.poll() is None:
        time.sleep(_POLL_S)
        family.look(process.pid)
        rows = folder.rows("metrics.jsonl")
        # A resumed driver first removes what came after its checkpoint.
        told = min(told, len(rows))
        for row in rows[told:]:
            heard, allowed = time.monotonic(), backend.silence_s
            if on_step is not None:
                on_step(row["step"], row)
        told = len(rows)
        doing = _activity(folder)
        if doing != seen:
            heard, allowed, seen = time.monotonic(), backend.silence_s, doing
            if on_activity is not None and doing is not None:
                on_activity(doing)
        if on_activity is not None and heard == started:
            on_activity(Activity(done, "start", int(time.monotonic() - started), int(backend.startup_s)))
        if time.monotonic() - heard > allowed:
            key = "startup_s" if allowed == backend.startup_s else "silence_s"
            raise UserError(
                f"verl gave no sign of life for {allowed:g} s (backend.{key}); {folder.path / LOG} has what it said."
            )


def _activity(folder: RunFolder) -> Activity | None:
    """What the driver last said that it does."""
    found = read_object(folder.path / ACTIVITY)
    return Activity(**found) if found else None


def _end(process: subprocess.Popen[bytes], family: Family) -> None:
    """End the driver if it runs, and every process that it started."""
    if process.poll() is None:
        family.look(process.pid)
        process.terminate()
        try:
            process.wait(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    family.end()


def _outcome(process: subprocess.Popen[bytes], folder: RunFolder) -> dict[str, Any]:
    path = folder.path / OUTCOME
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["status"] == "FAILED":
            found["reason"] += f"; {folder.path / LOG} has what verl said."
        return found
    how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
    reason = f"verl's driver ended with {how}; {folder.path / LOG} has what it said."
    return {"status": "FAILED", "reason": reason}
