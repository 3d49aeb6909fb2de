"""Files damaged by a seeded generator."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

from forked_lab import killed_at_the_end, run, start
from trials import SWEEP, TRAIN, Base, Tally, results

_OF_A_RUN = ("policies/*/*", "runs/*/*", "runs/*/samples/*", "runs/*/checkpoints/*/*")


def damage_files(base: Base, count: int, seed: int) -> Tally:
    """Damage one file of a stopped run, a finished run or a finished sweep, and go on."""
    tally, at = Tally("a file damaged, then the same command"), random.Random(seed)
    arguments = [*TRAIN, "tracking=none"]
    sweep = [*SWEEP, "tracking=none"]
    states = []
    for steps_done in (3, None):
        output = base.output(f"state-{seed}-{steps_done}", with_store=False)
        command = start([*arguments, "-o", str(output)], output / "printed")
        with killed_at_the_end(command):
            while steps_done and _lines(output) <= steps_done and command.poll() is None:
                time.sleep(0.002)
            if steps_done is None:
                assert command.wait() == 0, command.printed
        states.append((arguments, output, _OF_A_RUN))
    output = base.output(f"state-{seed}-sweep", with_store=False)
    done = run([*sweep, "-o", str(output)], output / "printed")
    assert done.code == 0, done.printed
    states.append((sweep, output, ("sweeps/*/*",)))
    for trial in range(count):
        name = f"damage-{seed}-{trial}"
        output = base.root / name
        command_line, state, patterns = at.choices(states, [4, 4, 1])[0]
        expected = base.expected(command_line)
        shutil.copytree(state, output, symlinks=True)
        files = [
            path
            for pattern in patterns
            for path in sorted(output.glob(pattern))
            if path.is_file() and "lock" not in path.name
        ]
        victim = at.choice(files)
        how = _damage(victim, at)
        told = f"{name}: {victim.relative_to(output)} {how}"
        try:
            done = run([*command_line, "-o", str(output)], output / "printed", timeout=120)
        except TimeoutError:
            tally.check(False, f"{told}: hangs")
            continue
        tally.check("Traceback" not in done.printed, f"{told}: {done.printed[-600:]}")
        if done.code == 0:
            same = {key: value for key, value in results(output).items() if "best_step" not in key}
            wanted = {key: value for key, value in expected.items() if "best_step" not in key}
            changed = [key for key in wanted if same.get(key) != wanted[key]]
            tally.check(not changed or (victim.name in str(changed) and "checkpoints" in str(victim)),
                        f"{told}: silently different: {changed}")  # fmt: skip
            tally.counts["same bits" if not changed else "damage in a file that nobody reads again"] += 1
        else:
            named = victim.name in done.printed or victim.parent.name in done.printed
            tally.check(named, f"{told}: refused without its name: {done.printed[-400:]}")
            tally.counts["refused by name"] += 1
        shutil.rmtree(output)
    return tally


def _lines(output: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in output.glob("runs/*/metrics.jsonl"))


def _damage(path: Path, at: random.Random) -> str:
    content = path.read_bytes()
    how = at.choice(
        ["bit flipped", "cut off", "emptied", "deleted", "zeroes", "lines swapped", "a line lost"]
    )
    if how == "deleted":
        path.unlink()
    elif not content or how == "emptied":
        path.write_bytes(b"")
    elif how == "bit flipped":
        place = at.randrange(len(content))
        path.write_bytes(
            content[:place] + bytes([content[place] ^ 1 << at.randrange(8)]) + content[place + 1 :]
        )
    elif how == "cut off":
        path.write_bytes(content[: at.randrange(len(content))])
    elif how == "zeroes":
        place = at.randrange(len(content))
        path.write_bytes(content[:place] + bytes(len(content) - place))
    else:
        lines = content.splitlines(keepends=True)
        at.shuffle(lines)
        path.write_bytes(b"".join(lines if how == "lines swapped" else lines[1:]))
    return how
