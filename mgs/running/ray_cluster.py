"""Tasks by a Ray cluster. Ray Data starts workers where there is room, and has the cluster grow where it can."""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mgs.errors import UserError
from mgs.running.screen import Screen
from mgs.running.words import LOCAL
from mgs.running.work import TRIES, Outcome, Work, attempt, explain, refuse_to_start

INSTALL = "pip install 'ray[data]'"
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}  # no reports; every worker's line, also equal ones
PATIENCE = 10.0  # seconds for a cluster's first answer; Ray itself would try for minutes


class Attempts:
    """Counts how often each task was begun. Ray Data tries a task whose process died again without end."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        """How often the task has been begun, this time included."""
        self.begun[number] += 1
        return self.begun[number]


class RayWorker:
    """What each of Ray's worker processes holds. It opens the work with its first task."""

    def __init__(self, work: Work, device: str, attempts: Any) -> None:
        self.work, self.device, self.attempts = work, device, attempts
        self.do: Callable[[Any], Any] | None = None
        self.broken = False

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A task's outcome as a row. `refused` says why this process can do no task at all."""
        import ray

        if self.broken:
            os._exit(1)  # Ray starts another process, which does this task
        found = {"number": row["number"], "result": b"", "error": "", "refused": ""}
        if ray.get(self.attempts.begin.remote(row["number"])) > TRIES:
            return {**found, "error": f"its process died, {TRIES} times"}
        if self.do is None:
            try:
                self.do = self.work.open(self.device)
            except Exception as error:
                return {**found, "refused": explain(error)}
        outcome, self.broken = attempt(self.do, pickle.loads(row["task"]))
        if outcome.error is not None:
            return {**found, "error": outcome.error or "no reason given"}
        try:
            return {**found, "result": ray.cloudpickle.dumps(outcome.result)}
        except Exception as error:  # a result that cannot be pickled
            return {**found, "error": explain(error)}


def run_on_ray(work: Work, tasks: Sequence[Any], address: str, device: str) -> Iterator[Outcome]:
    """Outcomes as they come. Each worker has a CPU, and a GPU where the cluster has any and `device` is not cpu.

    Ray starts a worker that dies again, on another machine if need be, and its task is done again, at most twice.
    """
    ray, ours = connect(address)
    try:
        on_gpu = count_gpus(ray, device) > 0
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        # One task at a time for each worker, since one that waits behind a long task could be done elsewhere. By
        # default the pool grows only when more are waiting, and it does not grow for the last few tasks at all, so it
        # begins with as many workers as there is room for now.
        context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
        free = int(ray.available_resources().get("GPU" if on_gpu else "CPU", 0))
        pool = ray.data.ActorPoolStrategy(
            min_size=1,
            max_size=max(len(tasks), 1),
            initial_size=max(1, min(len(tasks), free)),
            max_tasks_in_flight_per_actor=1,
        )
        attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote()
        rows = [{"number": number, "task": ray.cloudpickle.dumps(task)} for number, task in enumerate(tasks)]
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            RayWorker,
            fn_constructor_args=(work, "cuda" if on_gpu else "cpu", attempts),
            compute=pool,
            num_cpus=1,
            num_gpus=1 if on_gpu else 0,
        )
        with Screen([], len(tasks)) as screen:
            for row in done.iter_rows() if tasks else ():
                if row["refused"]:
                    raise refuse_to_start(row["refused"])
                screen.end_task("")
                result = pickle.loads(row["result"]) if row["result"] else None
                yield Outcome(tasks[row["number"]], result, row["error"] or None)
    except ray.exceptions.RayError as error:
        reason = [line for line in str(error).splitlines() if line.strip()][-1].strip()
        remedy = (
            "every machine of it needs the same mgs as this one, and room for a worker; `ray status` shows the latter"
        )
        raise UserError(f"--ray {address}: the cluster failed ({reason}); {remedy}") from None
    finally:
        if ours:
            ray.shutdown()


def count_gpus(ray: Any, device: str) -> int:
    """How many GPUs workers may take: none if `device` is cpu. Raises `UserError` if it is cuda and there is none."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if device == "cuda" and not gpus:
        raise UserError("device=cuda: the Ray cluster has no GPU; add a machine that has one, or use device=cpu")
    return 0 if device == "cpu" else gpus


def connect(address: str, part: str = "ray.data", install: str = INSTALL) -> tuple[Any, bool]:
    """The module `ray` with a part of it, connected to the cluster, and whether this made the connection.

    Raises `UserError` if Ray is not installed, or the cluster is not reached.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})  # read by Ray's import
    try:
        import ray

        importlib.import_module(part)
    except ImportError as error:
        raise UserError(f"--ray: Ray is not installed ({error}); run {install}") from None
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        return ray, False
    before = signal.getsignal(signal.SIGTERM)
    try:
        if address == LOCAL:
            ray.init(address=LOCAL, include_dashboard=False, logging_level=logging.ERROR)
        else:
            knock(address)
            ray.init(address=address, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        remedy = "start one with `ray start --head`, name another address, or leave it out for this machine alone"
        raise UserError(f"--ray {address}: no Ray cluster reached ({error}); {remedy}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own would end us with another exit code
    return ray, True


def knock(address: str) -> None:
    """Raise an `OSError` where nothing listens at a `host:port`."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
