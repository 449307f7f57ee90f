"""Ctrl-C and SIGTERM: they end a program through every `finally`, or, while training, at the end of a step."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

ended_by: list[int] = []  # the signal that ended the program
_heard: list[int] = []  # signals that wait for the end of a step; a process has one set of handlers
_copies: list[bool] = []  # not empty: signals after the first are copies of it


class Stopped(KeyboardInterrupt):
    """A signal, Ctrl-C or SIGTERM, ends the program."""

    def __init__(self, number: int, message: str = "interrupted") -> None:
        super().__init__(message)
        self.number = number


class Interrupted(Stopped):
    """A signal ends the program at a good moment; the message says what was kept."""


def ignore_copies() -> None:
    """From now on, take further signals for copies of the first, and print nothing about them.

    A worker gets Ctrl-C from the terminal or SIGTERM from a job's manager, and again from the process that started it.
    That process says what happens, and kills the worker if it must stop at once.
    """
    _copies[:] = [True]


def interrupt(number: int, frame: object = None) -> None:
    """A signal's handler: end the program, through every `finally`."""
    if _copies and ended_by:
        return
    ended_by[:] = [number]
    raise Interrupted(number)


@contextlib.contextmanager
def heed_signals() -> Iterator[None]:
    """Within, the first Ctrl-C or SIGTERM waits for `stop_if_interrupted`; a second ends the program at once."""
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread alone
        yield
        return

    def note(number: int, frame: object) -> None:
        if _copies and (_heard or ended_by):
            return
        if _heard:
            raise Stopped(number, "stopped at once; what was saved before is kept")
        _heard.append(number)
        if _copies:
            return
        with contextlib.suppress(OSError):  # whoever read our output may have had the same Ctrl-C
            os.write(
                2, b"\nstopping after this step; once more to stop at once\n"
            )  # unbuffered: we may be within a print

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
        stop_if_interrupted()  # a signal that came after the last step
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _heard.clear()


def stop_if_interrupted() -> None:
    """Raise `Interrupted` if a signal has come since `heed_signals` began; for loops to call between steps."""
    if _heard:
        interrupt(_heard[0])
