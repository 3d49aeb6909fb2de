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
    yield
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
