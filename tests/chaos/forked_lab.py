"""`cppo-lab …` in processes that start at once: forked from one that has imported everything."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Command:
    """A running command: the leader of its own process group; what it prints is in a file."""

    pid: int
    printed_to: Path
    code: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, timeout: float = 300) -> int:
        """The exit code. A command that does not end in time is killed, and TimeoutError raised: it hangs."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
                raise TimeoutError(f"hangs: {self.printed}")
            time.sleep(0.005)
        return code

    def send(self, number: int, *, group: bool = True) -> None:
        """Send a signal to the command, or to its whole group."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    @property
    def printed(self) -> str:
        """All that it has printed."""
        return self.printed_to.read_text(encoding="utf-8", errors="replace")


def import_everything() -> None:
    """Import what commands import, in the process that is to be forked. It must not open a store or start a thread."""
    import mlflow
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    import torch
    import transformers  # noqa: F401

    torch.set_num_threads(1)


def start(arguments: Sequence[str], folder: Path, **environment: str) -> Command:
    """Start `cppo-lab …` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    printed_to = folder / f"printed-{time.monotonic_ns()}.txt"
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return Command(pid, printed_to)
    code = 1
    try:
        code = _run(arguments, folder, printed_to, environment)
    except KeyboardInterrupt:
        # It came before the command had begun.
        code = 130
    finally:
        # What the parent would do at its exit must not be done twice.
        os._exit(code)


def _run(arguments: Sequence[str], folder: Path, printed_to: Path, environment: dict[str, str]) -> int:
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    for key in [key for key in os.environ if key.startswith(("CPPO_LAB_", "MLFLOW_"))]:
        del os.environ[key]
    os.environ |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"} | environment
    output = os.open(printed_to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    sys.argv = ["cppo-lab", *arguments]
    from cppo_lab.cli import main

    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        print(f"Traceback of what main() let through: {error!r}", file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def run(arguments: Sequence[str], folder: Path, timeout: float = 300, **environment: str) -> Command:
    """Run `cppo-lab …` in `folder` to its end."""
    command = start(arguments, folder, **environment)
    command.wait(timeout)
    return command


@contextlib.contextmanager
def killed_at_the_end(*commands: Command) -> Iterator[None]:
    """Kill what is left of commands and their children."""
    try:
        yield
    finally:
        for command in commands:
            command.send(signal.SIGCONT)
            command.send(signal.SIGKILL)
            if command.code is None:
                command.wait(20)
