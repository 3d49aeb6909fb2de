"""Disks that fill up while a run goes on: a memory file system of a size that is drawn."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

from forked_lab import run
from trials import ALLOWED, TRAIN, Base, Tally, check_store, left_over, results

ROOMY = "size=256m"


def fill_disks(base: Base, count: int, seed: int) -> Tally:
    """Train on a disk that is too small, then make room and go on."""
    tally, at = Tally("a disk that filled up"), random.Random(seed)
    mounted = base.root / "disk"
    mounted.mkdir()
    if problem := _mount(mounted, ROOMY):
        tally.counts[f"left out ({problem})"] += 1
        return tally
    subprocess.run(["umount", str(mounted)], check=True)
    for trial in range(count):
        _one_trial(base, mounted, f"disk-{seed}-{trial}", at, tally)
    return tally


def _one_trial(base: Base, mounted: Path, name: str, at: random.Random, tally: Tally) -> None:
    expected = base.expected(TRAIN)
    prepared = base.output(name)
    size = sum(path.stat().st_size for path in prepared.rglob("*"))
    room = round(2 ** at.uniform(14, 23))
    _mount(mounted, f"size={size + room}")
    try:
        output = mounted / "outputs"
        try:
            shutil.copytree(prepared, output)
        except (OSError, shutil.Error):
            tally.counts["no room to begin"] += 1
            return
        command = run([*TRAIN, "-o", str(output)], base.root / "printed")
        said = f"{name}: {room} bytes: {command.printed[-600:]}"
        tally.check(command.code in ALLOWED, f"{said}: exit code {command.code}")
        tally.check("Traceback" not in command.printed, said)
        # The store alone may have found no room, which is code 4.
        told = any(each in command.printed for each in ("no room left", "No space left", "disk is full"))
        tally.check(command.code == 0 or told, said)
        tally.counts[f"exit code {command.code}"] += 1
        subprocess.run(["mount", "-o", f"remount,{ROOMY}", str(mounted)], check=True)
        done = run([*TRAIN, "-o", str(output)], base.root / "printed")
        tally.check(done.code == 0, f"{name}: does not end: {done.printed[-400:]}")
        tally.check(results(output) == expected, f"{name}: other bits")
        tally.check(not left_over(output), f"{name}: left over: {left_over(output)}")
        check_store(output, tally, name)
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
        shutil.rmtree(prepared)


def _mount(folder: Path, options: str) -> str | None:
    """Mount a memory file system; why it cannot be done, if it cannot."""
    if os.geteuid() != 0:
        return "it needs root"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr.strip() or None
