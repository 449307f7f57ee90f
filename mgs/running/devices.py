"""Tasks by several processes, one for each device, each of which opens the work once."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from mgs.interrupts import Stopped, interrupt
from mgs.running.screen import Screen
from mgs.running.work import TRIES, Outcome, Work, refuse_to_start
from mgs.running.worker import DONE, FAILED, LINE, OPENED, PROGRESS, SIGNALS, serve

SPAWN = multiprocessing.get_context("spawn")  # a forked process could not use CUDA


@dataclass
class Attempt:
    """A task on its way, and how many processes died of it."""

    task: Any
    deaths: int = 0


class Worker:
    """A place for a process on one device. The process is started with the first task, and replaced when it ends."""

    def __init__(self, name: str, device: str) -> None:
        self.name, self.device = name, device
        self.process: Any = None  # None: none is running
        self.connection: Connection
        self.attempt: Attempt | None = None
        self.opened = False  # whether the process has opened the work
        self.failures = 0  # processes in a row that died before that

    def start(self, work: Work) -> None:
        """Start the process, which gets neither Ctrl-C nor SIGTERM before it can answer them."""
        self.connection, other = SPAWN.Pipe()
        process, self.opened = SPAWN.Process(target=serve, args=(other,), name=f"mgs {self.name}"), False
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # which the new process inherits
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        other.close()
        self.process = process  # only now: a signal's handler may look
        self.send((work, self.device))

    def send(self, message: Any) -> None:
        """Send a message; if the process has died, its end is received next."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(message)

    def signal(self, number: int) -> None:
        """Send the process a signal, if it is running."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def end(self) -> str:
        """Wait for a process whose connection has ended; returns how it ended."""
        self.process.join()
        code = self.process.exitcode
        self.connection.close()
        self.process.close()
        self.process = None
        if code < 0:
            return f"its process was killed ({signal.Signals(-code).name})"
        return f"its process ended with exit code {code}"


class Pool:
    """Workers, the tasks that were given back, and the signals that came."""

    def __init__(self, work: Work, devices: Sequence[str]) -> None:
        many, seen = Counter(devices), Counter[str]()
        names = []
        for device in devices:
            seen[device] += 1
            names.append(device if many[device] == 1 else f"{device} #{seen[device]}")
        self.work = work
        self.workers = [Worker(name, device) for name, device in zip(names, devices, strict=True)]
        self.again: deque[Attempt] = deque()
        self.heard: list[int] = []

    def give(self, worker: Worker, attempt: Attempt) -> None:
        """Have a free worker do a task."""
        worker.attempt = attempt
        if not worker.process:
            worker.start(self.work)
        if self.heard:
            worker.signal(signal.SIGTERM)  # the handler came too early for it
        worker.send(pickle.dumps(attempt.task))

    def hand_out(self, fresh: Iterator[Attempt]) -> None:
        """Give a task to each worker that has none, while there are any; those that were given back come first."""
        for worker in self.workers:
            if not worker.attempt and not self.heard:
                if not (attempt := self.again.popleft() if self.again else next(fresh, None)):
                    return
                self.give(worker, attempt)

    def receive(self, screen: Screen, workers: Sequence[Worker]) -> Iterator[tuple[Worker, tuple | None]]:
        """Wait for messages of these workers, show what is to be shown, give the others. None: a process ended."""
        running = {worker.connection: worker for worker in workers if worker.process}
        for connection in wait(list(running)):
            worker = running[connection]  # type: ignore[index]
            try:
                data = worker.connection.recv_bytes()
            except (EOFError, OSError):
                yield worker, None
                continue
            try:
                kind, *parts = pickle.loads(data)
            except Exception:
                if len(self.heard) > 1:  # the second signal tore a message in two
                    continue
                raise
            if kind == LINE:
                screen.print(worker.name, *parts)
            elif kind == PROGRESS:
                screen.report(worker.name, *parts)
            else:
                yield worker, (kind, *parts)

    def hear(self, number: int, frame: object = None) -> None:
        """A signal's handler: the first ends the workers as it would end a process alone, the second kills them."""
        self.heard.append(number)
        if len(self.heard) > 1:
            for worker in self.workers:
                worker.signal(signal.SIGKILL)
            raise Stopped(number, "stopped at once; what was saved before is kept")
        with contextlib.suppress(OSError):
            os.write(2, b"\nstopping the workers; once more to stop at once\n")
        for worker in self.workers:
            worker.signal(signal.SIGTERM)

    @contextlib.contextmanager
    def heeding_signals(self) -> Iterator[None]:
        """Within, Ctrl-C and SIGTERM are heard; then those that came are raised."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.hear) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.heard:
            interrupt(self.heard[0])

    def dismiss(self, worker: Worker, screen: Screen) -> None:
        """End one worker's process, once it has ended its task, and wait for it."""
        worker.attempt = None
        worker.send(None)
        while worker.process:
            for _, message in self.receive(screen, [worker]):
                if message is None:
                    worker.end()

    def close(self, screen: Screen) -> None:
        """End all workers: those without a task quietly, the others as by SIGTERM; wait for them."""
        for worker in self.workers:
            if worker.attempt:
                worker.signal(signal.SIGTERM)
            elif worker.process:
                worker.send(None)
        while any(worker.process for worker in self.workers):
            for worker, message in self.receive(screen, self.workers):  # or a full pipe would hold a worker that prints
                if message is None:
                    worker.end()

    def settle(self, worker: Worker, message: tuple | None, screen: Screen) -> Outcome | None:
        """Take note of a worker's message, or of its end; returns its task's outcome, if that is decided."""
        kind, *parts = message or (None,)
        attempt = worker.attempt
        if kind == OPENED:
            worker.opened, worker.failures = True, 0
            return None
        if kind == DONE:
            result, error, broken = parts
            worker.attempt = None
            if broken and not self.heard:
                self.dismiss(worker, screen)
            if not attempt:
                return None
            return Outcome(attempt.task, None if result is None else pickle.loads(result), error)
        if kind == FAILED:
            self.dismiss(worker, screen)
            reason = parts[0]
        else:
            reason = worker.end()
            worker.attempt = None
        if self.heard or not attempt:
            return None
        if worker.opened:
            attempt.deaths += 1
            if attempt.deaths == TRIES:
                return Outcome(attempt.task, error=f"{reason}, {TRIES} times")
        else:
            worker.failures = worker.failures + 1 if kind is None else TRIES
            if worker.failures == TRIES:
                self.workers.remove(worker)
                if not self.workers:
                    raise refuse_to_start(reason)
                screen.print(worker.name, "stderr", f"left out, since no process could start there: {reason}")
        self.again.append(attempt)
        if worker in self.workers:
            screen.print(worker.name, "stderr", f"{attempt.task}: {reason}; trying again")
        return None


def run_on_devices(work: Work, tasks: Iterable[Any], devices: Sequence[str]) -> Iterator[Outcome]:
    """Outcomes as they come, of tasks that are taken one for each free worker.

    A worker that dies is started again, and its task is done again, at most twice. A process in which a task ended in a
    bug or an error of the machine does no other. A device on which no process can open the work is left out;
    `UserError` where that is true of all.
    """
    pool = Pool(work, devices)
    total = len(tasks) if isinstance(tasks, Sized) else None
    fresh = (Attempt(task) for task in tasks)
    with pool.heeding_signals(), Screen([worker.name for worker in pool.workers], total) as screen:
        atexit.register(pool.close, screen)  # whoever asked for outcomes may never close us, if an error ended them
        try:
            pool.hand_out(fresh)
            while any(worker.attempt for worker in pool.workers):
                for worker, message in pool.receive(screen, pool.workers):
                    outcome = pool.settle(worker, message, screen)
                    pool.hand_out(fresh)  # before the outcome, which may keep whoever asked for it busy
                    if outcome:
                        screen.end_task(worker.name)
                        yield outcome
        finally:
            atexit.unregister(pool.close)
            pool.close(screen)
