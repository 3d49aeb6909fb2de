"""Interrupts: held while native code saves, heeded once, and terminations among them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_runs import clean_environment

from cppo_lab.interrupts import (
    heed_one_interrupt,
    interrupts_blocked,
    interrupts_held,
    termination_as_interrupt,
)


@pytest.fixture(autouse=True)
def _handlers_afterwards() -> Iterator[None]:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    hook = sys.unraisablehook
    yield
    sys.unraisablehook = hook
    for each, handler in before.items():
        signal.signal(each, handler)


def test_a_held_interrupt_takes_effect_on_leaving(tmp_path: Path) -> None:
    def save() -> None:
        with interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
            (tmp_path / "written").touch()

    with pytest.raises(KeyboardInterrupt):
        save()
    assert (tmp_path / "written").exists()


def test_nothing_is_raised_where_nothing_was_held() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interrupts_held():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_a_termination_is_an_interrupt_inside_and_not_after() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), termination_as_interrupt():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


_IN_A_DESTRUCTOR = """
import os, signal, sys, time
from cppo_lab.interrupts import heed_one_interrupt, termination_as_interrupt

class Interrupted:
    def __del__(self):
        os.kill(os.getpid(), getattr(signal, sys.argv[2]))
        for _ in range(1000):
            pass

def work():
    made = Interrupted()
    del made
    time.sleep(10)
    print("slept through it")

try:
    if sys.argv[1] == "worker":
        heed_one_interrupt()
        work()
    else:
        with termination_as_interrupt():
            work()
except KeyboardInterrupt:
    print("interrupted")
    os.kill(os.getpid(), signal.SIGTERM if sys.argv[1] == "worker" else 0)
    print("once")
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("where", ["worker", "command"])
def test_an_interrupt_that_python_drops_is_raised_again(where: str, number: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _IN_A_DESTRUCTOR, where, number],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "interrupted\nonce\n", done.stderr
    assert not done.stderr


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_only_the_first_interrupt_is_heeded(first: signal.Signals) -> None:
    heed_one_interrupt()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), first)
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)


def test_interrupt_of_a_process_that_still_starts_waits_until_it_lets_it_in(tmp_path: Path) -> None:
    script = (
        "import signal, sys, time\n"
        "time.sleep(1)\n"
        "print('imported', flush=True)\n"
        "from cppo_lab.interrupts import heed_one_interrupt, let_interrupts_in\n"
        "heed_one_interrupt()\n"
        "try:\n"
        "    let_interrupts_in()\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    print('heeded', flush=True)\n"
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        with interrupts_blocked():
            process = subprocess.Popen(
                [sys.executable, "-c", script],
                env=clean_environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert (out.split(), err, process.returncode) == ([b"imported", b"heeded"], b"", 0)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set(), "this process takes them as before"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks /proc which signals wait")
def test_worker_is_started_with_its_interrupts_waiting_the_first_one_too() -> None:
    script = (
        "import multiprocessing, time\n"
        "from pathlib import Path\n"
        "from cppo_lab.interrupts import start_uninterrupted\n"
        "if __name__ == '__main__':\n"
        "    for _ in range(2):\n"
        "        process = multiprocessing.get_context('spawn').Process(target=time.sleep, args=(30,))\n"
        "        start_uninterrupted(process)\n"
        "        for owner in (process.pid, 'self'):\n"
        "            lines = Path(f'/proc/{owner}/status').read_text().splitlines()\n"
        "            print(next(line.split()[1] for line in lines if line.startswith('SigBlk')))\n"
        "        process.kill()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    waiting = 1 << (signal.SIGINT - 1) | 1 << (signal.SIGTERM - 1)
    assert [int(mask, 16) & waiting for mask in done.stdout.split()] == [waiting, 0] * 2
