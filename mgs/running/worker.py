"""A worker: a process that opens the work once, then does one task after another for the process that started it."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from mgs.errors import SIGNALLED, set_up_process
from mgs.interrupts import Stopped, ended_by, ignore_copies, interrupt
from mgs.progress_bar import OFTEN, report_progress_to
from mgs.running.work import attempt, explain

SIGNALS = (signal.SIGINT, signal.SIGTERM)
OPENED, FAILED, DONE, LINE, PROGRESS = "opened", "failed", "done", "line", "progress"  # kinds of messages


class Channel:
    """The way to the process that started this one. Once that has died, what is sent is lost.

    Threads read and write, so that no signal tears a message: signals interrupt the main thread alone.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.inbox: SimpleQueue[bytes] = SimpleQueue()
        self.outbox: SimpleQueue[bytes | threading.Event] = SimpleQueue()
        self.reported = 0.0  # when, on the monotonic clock
        for job in (self.read, self.write):
            threading.Thread(target=job, daemon=True).start()

    def read(self) -> None:
        """Collect messages. When there can be no more, end this process as SIGTERM would."""
        try:
            while True:
                self.inbox.put(self.connection.recv_bytes())
        except (EOFError, OSError):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def write(self) -> None:
        """Send what is in the outbox, without end."""
        while True:
            if isinstance(item := self.outbox.get(), threading.Event):
                item.set()
                continue
            with contextlib.suppress(OSError):  # `read` sees it, too
                self.connection.send_bytes(item)

    def receive(self) -> Any:
        """The next message; wait for it. Raises an error if it cannot be unpickled here."""
        return pickle.loads(self.inbox.get())

    def send(self, kind: str, *parts: Any) -> None:
        """Send a message; what cannot be pickled raises an error."""
        self.outbox.put(pickle.dumps((kind, *parts)))

    def report(self, description: str, count: float, total: float | None) -> None:
        """Send a bar's state, but not too often."""
        if time.monotonic() - self.reported >= OFTEN:
            self.reported = time.monotonic()
            self.send(PROGRESS, description, count, total)

    def flush(self) -> None:
        """Wait until all is sent."""
        sent = threading.Event()
        self.outbox.put(sent)
        sent.wait()


class SentLines(io.TextIOBase):
    """A stream whose lines are sent, for the other process to print."""

    def __init__(self, channel: Channel, name: str) -> None:
        self.channel, self.name, self.begun = channel, name, ""
        self.lock = threading.Lock()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self.lock:
            *lines, self.begun = (self.begun + text).split("\n")
            if lines:
                self.channel.send(LINE, self.name, "\n".join(lines))
        return len(text)

    def end(self) -> None:
        """Send half a line that was begun."""
        if self.begun:
            self.write("\n")


def serve(connection: Connection) -> None:
    """What a worker process does from beginning to end: messages come and go by `connection`."""
    set_up_process()
    ignore_copies()
    signal.signal(signal.SIGINT, interrupt)
    channel = Channel(connection)
    streams = SentLines(channel, "stdout"), SentLines(channel, "stderr")
    sys.stdout, sys.stderr = streams
    report_progress_to(channel.report)
    code = 0
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # blocked since before this process began
        do_tasks(channel)
    except Stopped as stopped:
        code = SIGNALLED + stopped.number
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    for stream in streams:
        stream.end()
    channel.flush()
    os._exit(code)  # at once: no thread of the work holds it up


def do_tasks(channel: Channel) -> None:
    """Open the work and do tasks until there are none."""
    try:
        work, device = channel.receive()
        do = work.open(device)
    except Exception as error:
        channel.send(FAILED, explain(error))
        return
    channel.send(OPENED)
    channel.flush()  # a task that kills this process must not be taken for a failure to open

    def do_next(message: bytes) -> bytes:
        return pickle.dumps(do(pickle.loads(message)))  # either may fail

    while not ended_by and (message := channel.receive()) is not None:
        try:
            outcome, broken = attempt(do_next, message)
        except Stopped as stopped:
            print(stopped)
            raise
        channel.send(DONE, outcome.result, outcome.error, broken)
