"""Breaks real processes, stores and files on purpose, and counts what was lost: `make chaos N=1000`.

Every campaign takes a seeded generator, so that a failure can be repeated: `python tests/chaos/campaign.py train
--count 1 --seed 17`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import reduce
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from damaged_files import damage_files  # noqa: E402
from forked_lab import Command, import_everything, killed_at_the_end, run, start  # noqa: E402
from full_disks import fill_disks  # noqa: E402
from random_configurations import fuzz_configurations  # noqa: E402
from tracking_server import kill_server  # noqa: E402
from trials import (  # noqa: E402
    ALLOWED,
    FAILPOINTS,
    STOPPED,
    SWEEP,
    TRAIN,
    TWELVE,
    VARIANTS,
    Base,
    Tally,
    check_store,
    left_over,
    results,
    stop,
)  # fmt: skip

from cppo_lab.failpoints import VARIABLE  # noqa: E402


def _check_end(command: Command, tally: Tally, name: str, allowed: frozenset[int] = STOPPED) -> None:
    code = command.code
    tally.check(code in allowed, f"{name}: exit code {code}: {command.printed[-400:]}")
    tally.check("Traceback" not in command.printed, f"{name}: {command.printed[-600:]}")


def _finish(
    arguments: Sequence[str], output: Path, expected: Mapping[str, bytes], tally: Tally, name: str
) -> None:
    """Let a stopped command end, and compare what it leaves with what nobody stopped; what was lost is kept."""
    done = run([*arguments, "-o", str(output)], output / "printed")
    tally.check(done.code == 0, f"{name}: does not end: {done.printed[-400:]}")
    tally.check(results(output) == expected, f"{name}: other bits")
    tally.check(not left_over(output), f"{name}: left over: {left_over(output)}")
    check_store(output, tally, name)
    if not any(name in each for each in tally.lost):
        shutil.rmtree(output)


def stop_train(base: Base, count: int, seed: int) -> Tally:
    """Stop `train` again and again, at random moments and at named points, until the run is done."""
    tally, at, trial = Tally("`train` stopped"), random.Random(seed), 0
    while sum(tally.counts[each] for each in tally.counts if each.startswith("SIG")) < count:
        trial += 1
        name = f"train-{seed}-{trial}"
        arguments = [*TRAIN, *VARIANTS[trial % len(VARIANTS)]]
        expected = base.expected(arguments)
        output = base.output(name, with_store=trial % 5 > 0)
        for _ in range(60):
            point = {}
            if at.random() < 0.15:
                point = {VARIABLE: f"{at.choice(FAILPOINTS)}:{at.choice([1, 1, 2, 5])}"}
            command = start([*arguments, "-o", str(output)], output / "printed", **point)
            with killed_at_the_end(command):
                stopped = not point and stop(command, at, 3.0, tally)
                if not stopped:
                    code = command.wait()
                    if point and code == -signal.SIGKILL:
                        tally.counts["SIGKILL at named points"] += 1
                    elif code == 0:
                        break
                _check_end(command, tally, name)
        _finish(arguments, output, expected, tally, name)
        tally.counts["runs"] += 1
    return tally


def stop_sweep(base: Base, count: int, seed: int) -> Tally:
    """Stop `sweep`: its whole group, the parent alone, or a worker."""
    import psutil

    tally, at, trial = Tally("`sweep` stopped"), random.Random(seed), 0
    expected = base.expected(SWEEP)
    while sum(tally.counts[each] for each in tally.counts if each.startswith("SIG")) < count:
        trial += 1
        name = f"sweep-{seed}-{trial}"
        output = base.output(name)
        for _ in range(20):
            whom = at.choice(["group", "parent", "worker", "named point"])
            point = {}
            if whom == "named point":
                point = {VARIABLE: f"{at.choice([*FAILPOINTS, 'parent-created'])}:{at.choice([1, 1, 2, 5])}"}
            command = start([*SWEEP, "-o", str(output)], output / "printed", **point)
            with killed_at_the_end(command):
                if whom == "named point":
                    # Of the parent, or of one worker after another.
                    if command.wait() == 0:
                        break
                    tally.counts["SIGKILL at named points"] += 1
                elif whom == "worker":
                    time.sleep(at.uniform(3, 15))
                    workers = [] if command.poll() is not None else psutil.Process(command.pid).children()
                    workers = [each for each in workers if "spawn_main" in " ".join(each.cmdline())]
                    if workers:
                        at.choice(workers).kill()
                        tally.counts["SIGKILL of a worker"] += 1
                    if command.wait() == 0:
                        break
                elif not stop(command, at, 15.0, tally, group=whom == "group") and command.code == 0:
                    break
                # A run whose worker dies has failed.
                _check_end(command, tally, name, ALLOWED if whom in ("worker", "named point") else STOPPED)
        _finish(SWEEP, output, expected, tally, name)
        tally.counts["sweeps"] += 1
    return tally


def stop_first(base: Base, count: int, seed: int) -> Tally:
    """Stop the first command of an output folder while it makes its store."""
    tally, at = Tally("a first command stopped"), random.Random(seed)
    for trial in range(count):
        name = f"first-{seed}-{trial}"
        output = base.output(name, with_store=False)
        arguments = [*TRAIN, "trainer.steps=1", "-o", str(output)]
        command = start(arguments, output / "printed")
        with killed_at_the_end(command):
            stop(command, at, 4.0, tally)
        done = run(arguments, output / "printed")
        tally.check(done.code == 0, f"{name}: unusable: {done.printed[-400:]}")
        strays = [path.name for path in output.glob(".mlflow.db.*")]
        tally.check(not strays, f"{name}: left over: {strays}")
        check_store(output, tally, name)
        shutil.rmtree(output)
    return tally


def break_store(base: Base, count: int, seed: int) -> Tally:
    """Lock the store, delete it, put an older one in its place or take it away while a run goes on."""
    tally, at = Tally("the store broken while a run went on"), random.Random(seed)
    for trial in range(count):
        name = f"store-{seed}-{trial}"
        output = base.output(name)
        store = output / "mlflow.db"
        arguments = [*TRAIN, "tracking.every_s=0.2", "-o", str(output)]
        command = start(arguments, output / "printed")
        with killed_at_the_end(command):
            time.sleep(at.uniform(0.1, 2.5))
            how = ("locked", "deleted", "older", "no folder for artifacts")[trial % 4]
            tally.counts[how] += 1
            if how == "locked":
                with closing(sqlite3.connect(store)) as other:
                    other.execute("BEGIN EXCLUSIVE")
                    time.sleep(at.uniform(0.1, 3))
                    other.rollback()
            elif how == "deleted":
                for path in output.glob("mlflow.db*"):
                    path.unlink(missing_ok=True)
            elif how == "older":
                for path in output.glob("mlflow.db-*"):
                    path.unlink(missing_ok=True)
                shutil.copy(base.root / "empty" / "mlflow.db", output / "older.db")
                (output / "older.db").rename(store)
            else:
                shutil.rmtree(output / "mlartifacts", ignore_errors=True)
                (output / "mlartifacts").write_text("in the way")
            code = command.wait()
            tally.check(code in ALLOWED, f"{name}: {how}: exit code {code}: {command.printed[-400:]}")
            tally.check("Traceback" not in command.printed, f"{name}: {how}: {command.printed[-600:]}")
        if (output / "mlartifacts").is_file():
            (output / "mlartifacts").unlink()
        done = run(arguments, output / "printed")
        tally.check(done.code == 0, f"{name}: {how}: {done.printed[-400:]}")
        check_store(output, tally, f"{name}: {how}")
        shutil.rmtree(output)
    return tally


def share_sweep(base: Base, count: int, seed: int) -> Tally:
    """Four shells with the same sweep of twelve runs."""
    tally, at = Tally("a sweep of twelve runs from four shells"), random.Random(seed)
    expected = base.expected(TWELVE)
    for trial in range(count):
        name = f"shells-{seed}-{trial}"
        output = base.output(name)
        shells = []
        for _ in range(4):
            shells.append(start([*TWELVE, "-o", str(output)], output / "printed"))
            time.sleep(at.uniform(0, 1.5))
        with killed_at_the_end(*shells):
            codes = [shell.wait(600) for shell in shells]
        tally.check(codes == [0] * 4, f"{name}: {codes}: {[shell.printed[-300:] for shell in shells]}")
        tally.check(results(output) == expected, f"{name}: other bits")
        attempts = [json.loads(path.read_text())["attempts"] for path in output.glob("runs/*/run.json")]
        tally.check(attempts == [1] * len(attempts), f"{name}: runs done more than once: {attempts}")
        check_store(output, tally, name)
        tally.counts["sweeps"] += 1
        shutil.rmtree(output)
    return tally


CAMPAIGNS: dict[str, tuple[Callable[[Base, int, int], Tally], float]] = {
    "train": (stop_train, 1.0),
    "sweep": (stop_sweep, 0.2),
    "first": (stop_first, 0.2),
    "store": (break_store, 0.05),
    "disk": (fill_disks, 0.05),
    "damage": (damage_files, 0.5),
    "shells": (share_sweep, 0.01),
    "server": (kill_server, 0.01),
    "config": (fuzz_configurations, 5.0),
}
"""What is broken, and how often for each stop of `train`."""


def campaign(names: Sequence[str], count: int, seed: int, root: Path) -> list[Tally]:
    """Break things `count` times (other campaigns in proportion), and return what was lost."""
    base, found = Base(root), []
    for name in names:
        doing, share = CAMPAIGNS[name]
        started = time.monotonic()
        tally = doing(base, max(1, round(count * share)), seed)
        print(f"{name}: {tally.row()} {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        found.append(tally)
    return found


def in_processes(jobs: int, names: Sequence[str], count: int, seed: int, root: Path) -> list[Tally]:
    """The same in some processes at a time, each with its part of the count and a seed of its own."""
    import_everything()
    children = {}
    for job in range(jobs):
        part = root / str(job)
        part.mkdir()
        pid = os.fork()
        if not pid:
            os._exit(_one_process(names, -(-count // jobs), seed + job, part))
        children[pid] = part
    tallies = []
    for pid, part in children.items():
        _, status = os.waitpid(pid, 0)
        assert status == 0, f"seed {seed}: a process of the campaign itself failed: {part}"
        tallies.append([Tally.from_json(each) for each in json.loads((part / "tallies.json").read_text())])
    return [reduce(Tally.__add__, same) for same in zip(*tallies, strict=True)]


def _one_process(names: Sequence[str], count: int, seed: int, part: Path) -> int:
    try:
        found = campaign(names, count, seed, part)
        (part / "tallies.json").write_text(json.dumps([vars(tally) for tally in found]))
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("campaigns", nargs="*", metavar="|".join(CAMPAIGNS), help="default: all of them")
    parser.add_argument("--count", type=int, default=100, help="stops of train; the others are fewer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    given = parser.parse_args()
    unknown = set(given.campaigns) - set(CAMPAIGNS)
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    root = Path(tempfile.mkdtemp(prefix="chaos-"))
    found = in_processes(given.jobs, given.campaigns or list(CAMPAIGNS), given.count, given.seed, root)
    print("| tried | how often | lost or wrong |\n| --- | --- | --- |")
    for tally in found:
        print(tally.row())
    lost = [each for tally in found for each in tally.lost]
    for each in lost:
        print("LOST", each)
    if lost:
        print(f"What was lost is kept in {root}.")
        sys.exit(1)
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
