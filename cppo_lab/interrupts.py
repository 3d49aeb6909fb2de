"""Interrupts and terminations as KeyboardInterrupt, so that what is running can be put away."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Inside, SIGTERM (a cluster's or a container's stop) is what Ctrl-C is. Does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Inside, SIGINT and SIGTERM wait: native code that calls back into Python does not survive an exception there.

    They take effect on leaving. Does nothing outside the main thread, which no signal handler interrupts.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    for each in before:
        signal.signal(each, lambda number, _frame: held.append(number))
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        for number in held:
            signal.raise_signal(number)


def heed_one_interrupt() -> None:
    """For a worker process: the first SIGINT or SIGTERM raises KeyboardInterrupt, later ones are ignored.

    A terminal interrupts the whole process group and the parent its workers once more: the second interrupt must
    not cut short what the first one set off. Also undoes an ignored SIGINT, as a background shell hands it down.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            # Not SIG_IGN: Python complains of a signal that was on its way when it became ignored.
            signal.signal(each, lambda _number, _frame: None)
        _raise(number, frame)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, interrupt)
