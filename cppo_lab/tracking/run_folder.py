"""The run folder: the record of a run, complete whenever its process is killed, readable while it runs.

config.yaml     the resolved configuration
run.json        identity, status, starting policy, versions, counts
metrics.jsonl   one line per step, deterministic (null where a value is undefined)
timings.jsonl   wall-clock times per step, when it was logged (Unix time), and the tokens trained on so far
profiles.jsonl  divergence and masking by position
agreement.jsonl mask overlap: which of the same tokens other rules would mask
masked_tokens.json  what the mask hit, over all steps up to the last checkpoint
samples/        some graded training responses of every step
manifest.json   the hashes of a finished run's files
checkpoints/    step_N (with trainer state; the last two until the run ends, then the last) and best_step_N (N > 0), in
                Hugging Face format
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from filelock import FileLock, Timeout

from cppo_lab.config.identity import run_id
from cppo_lab.errors import UserError
from cppo_lab.files import flush, jsonable, read_log, remove_folder, sweep_scratch, write_atomically, writing
from cppo_lab.manifests import read_sealed, sealed_text

if TYPE_CHECKING:
    # The schema loads PyTorch; readers of run folders need none of it.
    from cppo_lab.config.schema import RunConfig

Status = Literal["RUNNING", "FINISHED", "FAILED", "INTERRUPTED"]

LOCK_FILE = ".lock"
"""Locked by the process that trains the run."""

MASKED_TOKENS = "masked_tokens.json"
UNSAFE_KEEPS = "unsafe_keeps.json"
"""Written by `cppo-lab unsafe-keeps` alone."""

LOGS = ("metrics.jsonl", "timings.jsonl", "profiles.jsonl", "agreement.jsonl")


class RunFolder:
    """Reads and writes one run folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, config: Mapping[str, Any]) -> None:
        """Make the folder and write the resolved configuration."""
        (self.path / "samples").mkdir(parents=True, exist_ok=True)
        (self.path / "checkpoints").mkdir(exist_ok=True)
        text = yaml.safe_dump(jsonable_config(config), sort_keys=False, allow_unicode=True)
        write_atomically(self.path / "config.yaml", text)

    @property
    def info(self) -> dict[str, Any]:
        """The content of run.json; empty before the first attempt. Raises Damaged if it is not what was written."""
        return read_sealed(self.path / "run.json", f"--repair trains the run again, or remove {self.path}")

    @property
    def is_readable(self) -> bool:
        """Whether run.json is what was written, or not there yet."""
        try:
            return self.info is not None
        except UserError:
            return False

    @property
    def written_at(self) -> int | None:
        """When run.json was last written, in nanoseconds; None before the first attempt."""
        path = self.path / "run.json"
        return path.stat().st_mtime_ns if path.exists() else None

    def update_info(self, **changes: Any) -> None:
        """Merge `changes` into run.json."""
        write_atomically(self.path / "run.json", sealed_text(jsonable(self.info | changes)))

    @property
    def status(self) -> Status | None:
        """The recorded status; None when the run has never started, FAILED where run.json cannot be read."""
        try:
            return self.info.get("status")
        except UserError:
            return "FAILED"

    @property
    def present_status(self) -> Status | None:
        """The status; INTERRUPTED for a run recorded as RUNNING that no process is training."""
        status = self.status
        if status != "RUNNING":
            return status
        if not (self.path / LOCK_FILE).exists():
            return "INTERRUPTED"
        lock = FileLock(self.path / LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except (Timeout, PermissionError):
            # Without write permission there is no telling whether another process holds the lock.
            return status
        lock.release()
        return "INTERRUPTED"

    def append(self, log: str, row: Mapping[str, Any]) -> None:
        """Append one line to a log such as `metrics.jsonl`."""
        with writing(self.path / log), (self.path / log).open("a", encoding="utf-8") as file:
            file.write(json.dumps(jsonable(row), allow_nan=False) + "\n")

    def flush_logs(self) -> None:
        """Wait until the logs are on the disk."""
        for name in LOGS:
            if (self.path / name).exists():
                flush(self.path / name)
        flush(self.path)

    def write_object(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON object such as `masked_tokens.json` anew."""
        text = json.dumps(jsonable(content), ensure_ascii=False, allow_nan=False)
        write_atomically(self.path / name, text + "\n")

    def rows(self, log: str) -> list[dict[str, Any]]:
        """The complete lines of a log."""
        return read_log(self.path / log)

    def row_times(self, started: int) -> dict[int, int]:
        """When the row of each step was written, in milliseconds since 1970, for a run `started` then.

        Rows of earlier versions have no time: theirs is the start and the time that the steps took.
        """
        found = {0: started}
        last = float(started)
        for row in self.rows("timings.jsonl"):
            laps = sum(value for key, value in row.items() if key.endswith("_s") and key != "tokens_per_s")
            last = row["logged_at"] * 1000 if "logged_at" in row else last + laps * 1000
            found[row["step"]] = int(last)
        return found

    def write_samples(self, step: int, rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
        """Write the graded responses of a step; the file's name, with its SHA-256."""
        text = "".join(json.dumps(jsonable(row), ensure_ascii=False) + "\n" for row in rows)
        name = f"step_{step:06d}.jsonl"
        write_atomically(self.path / "samples" / name, text)
        return {name: hashlib.sha256(text.encode()).hexdigest()}

    def sample_files(self) -> list[tuple[int, Path]]:
        """(step, file) of the samples, oldest first."""
        found = [
            (int(number), path)
            for path in (self.path / "samples").glob("step_*.jsonl")
            if (number := path.stem.removeprefix("step_")).isdecimal()
        ]
        return sorted(found)

    def checkpoints(self, prefix: str = "step_") -> list[tuple[int, Path]]:
        """(step, folder) of the complete checkpoints, oldest first; `best_step_` for the best one's weights."""
        found = [
            (int(number), path)
            for path in (self.path / "checkpoints").glob(f"{prefix}[0-9]*")
            if path.is_dir() and (number := path.name.removeprefix(prefix)).isdecimal()
        ]
        return sorted(found)

    def drop_checkpoints_before(self, step: int, prefix: str = "step_") -> None:
        """Remove checkpoints older than `step`, and partial ones left by a crash."""
        for number, path in self.checkpoints(prefix):
            if number < step:
                remove_folder(path)
        for path in (self.path / "checkpoints").glob(".*"):
            if path.is_dir() and path.suffix[1:].isdecimal():
                shutil.rmtree(path)

    def drop_superseded_bests(self) -> None:
        """Remove the best checkpoints but for the newest, and those that were it at a checkpoint to go on from."""
        bests = self.checkpoints("best_step_")
        kept = {bests[-1][0]} if bests else set()
        for step, _ in self.checkpoints():
            kept.update([number for number, _ in bests if number <= step][-1:])
        for number, path in bests:
            if number not in kept:
                remove_folder(path)

    def rewind(self, step: int) -> None:
        """Truncate every log after `step` and remove half-written files, so that a resumed run continues exactly."""
        for folder in (self.path, self.path / "samples"):
            sweep_scratch(folder)
        for log in LOGS:
            kept = [row for row in self.rows(log) if row["step"] <= step]
            if kept or (self.path / log).exists():
                write_atomically(self.path / log, "".join(json.dumps(row) + "\n" for row in kept))
        for number, path in self.sample_files():
            if number > step:
                path.unlink()
        for number, path in self.checkpoints("best_step_"):
            if number > step:
                remove_folder(path)


def jsonable_config(value: Any) -> Any:
    """A configuration as plain YAML types."""
    if isinstance(value, Mapping):
        return {str(key): jsonable_config(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable_config(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def run_folder(config: RunConfig) -> RunFolder:
    """The folder of the run that `config` describes."""
    return RunFolder(config.paths.output / "runs" / f"{config.algo.name}-{run_id(config)}")
