"""`mlflow server` on SQLite or PostgreSQL, as a real process that is killed and started again at the same address."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

from forked_lab import killed_at_the_end, run, start
from trials import ALLOWED, TRAIN, Base, Tally


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Postgres:
    """A PostgreSQL server of its own; needs its programs, and the right to become the user `postgres`."""

    def __init__(self) -> None:
        # Folders of tests are closed to other users.
        self.home, self.port = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp")), _free_port()
        home = self.home
        shutil.chown(home, "postgres")
        self._as_postgres("initdb", "-D", str(home / "data"), "-A", "trust")
        options = f"-p {self.port} -k {home} -c listen_addresses=127.0.0.1"
        self._as_postgres(
            "pg_ctl", "-D", str(home / "data"), "-l", str(home / "log"), "-o", options, "-w", "start"
        )
        self._as_postgres("createdb", "-h", "127.0.0.1", "-p", str(self.port), "mlflow")

    @staticmethod
    def problem() -> str | None:
        """Why there can be none here; None if there can."""
        missing = [name for name in ("initdb", "pg_ctl", "createdb", "runuser") if shutil.which(name) is None]
        missing += [] if find_spec("psycopg2") else ["psycopg2"]
        return f"no {', '.join(missing)}" if missing else None if os.geteuid() == 0 else "it needs root"

    @property
    def uri(self) -> str:
        """The address of the database."""
        return f"postgresql+psycopg2://postgres@127.0.0.1:{self.port}/mlflow"

    def stop(self) -> None:
        """Stop the server, and remove its files."""
        self._as_postgres("pg_ctl", "-D", str(self.home / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self.home)

    def _as_postgres(self, *command: str) -> None:
        done = subprocess.run(
            ["runuser", "-u", "postgres", "--", *command], cwd="/tmp", capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


class Server:
    """`mlflow server`, which keeps and serves artifacts itself."""

    def __init__(self, home: Path, store: str) -> None:
        self._home, self._store, self.port = home, store, _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and return once it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", self._store, "--workers", "1"]
        command += ["--artifacts-destination", str(self._home / "artifacts")]
        with (self._home / "log").open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                command, cwd=self._home, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError((self._home / "log").read_text(encoding="utf-8")) from None
                time.sleep(0.1)

    def kill(self) -> None:
        """Kill it, in the middle of whatever it does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)


def kill_server(base: Base, count: int, seed: int) -> Tally:
    """Kill a tracking server, and the run that sends to it, again and again."""
    tally, at = Tally("a tracking server killed"), random.Random(seed)
    for kind in ("sqlite", "postgres"):
        if kind == "postgres" and (problem := Postgres.problem()):
            tally.counts[f"PostgreSQL left out ({problem})"] += 1
            continue
        home = base.root / f"server-{kind}"
        home.mkdir()
        database = Postgres() if kind == "postgres" else None
        server = Server(home, database.uri if database else f"sqlite:///{home}/server.db")
        server.start()
        try:
            for trial in range(count):
                _one_trial(base, server, f"{kind}-{seed}-{trial}", at, tally)
                tally.counts[f"runs on {kind}"] += 1
        finally:
            server.kill()
            if database:
                database.stop()
    return tally


def _one_trial(base: Base, server: Server, name: str, at: random.Random, tally: Tally) -> None:
    output = base.output(name, with_store=False)
    arguments = [*TRAIN, f"seed={at.randrange(10**6)}", f"tracking.uri={server.uri}", "tracking.every_s=0.2"]
    arguments += ["-o", str(output)]
    command = start(arguments, output / "printed")
    with killed_at_the_end(command):
        time.sleep(at.uniform(0.2, 3))
        how = at.choice(["the server", "the run", "both"])
        if how != "the run":
            server.kill()
        if how != "the server":
            command.send(signal.SIGKILL)
        code = command.wait()
        tally.check(code in ALLOWED, f"{name}: exit code {code}: {command.printed[-400:]}")
        tally.check("Traceback" not in command.printed, f"{name}: {command.printed[-600:]}")
        tally.counts[f"killed {how}"] += 1
    if how != "the run":
        server.start()
    done = run(arguments, output / "printed")
    tally.check(done.code == 0, f"{name}: {how}: {done.printed[-400:]}")
    done = run(["sync", "--all", "--check", "-o", str(output)], output / "printed")
    tally.check(done.code == 0, f"{name}: {how}: MLflow differs: {done.printed[-400:]}")
    shutil.rmtree(output)
