"""The server on Ray Serve: replicas of one service on a cluster's devices, behind Ray's own HTTP servers."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import platform
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.types import ASGIApp

from mgs.errors import UserError
from mgs.interrupts import Stopped
from mgs.running.ray_cluster import connect, count_gpus
from mgs.running.words import LOCAL
from mgs.safe_text import one_line, printable
from mgs.scoring.mix import Mix
from mgs.scoring.scorer import Scorer
from mgs.serve.app import make_app
from mgs.serve.connections import IDLE_SECONDS
from mgs.serve.limits import Limits, Refused
from mgs.serve.run import Address
from mgs.serve.service import Service

INSTALL = "pip install 'ray[data,serve]'"
NAME = "mgs"  # of the application among Ray Serve's, and of its deployment
QUIET = "CRITICAL"  # its log's level: what Ray has to say is in its status, too
LOOK_SECONDS = 0.5  # between two looks at that
HEALTH_SECONDS = 5  # between two checks of a replica
START_TRIES = 3  # of replicas, before the first one works; after that Ray tries for ever
REASON = re.compile(r"UserError: (.*)")


@dataclass(frozen=True)
class Replicas:
    """How many replicas there are: as many as the requests need, from `least` to `most`."""

    least: int
    most: int


@dataclass(frozen=True)
class Recipe:
    """What each replica makes its service of. It is pickled."""

    makers: Mapping[str, Callable[[str], Scorer]]  # of scorers, by name; each takes a device's name
    mix: Mix
    limits: Limits
    address: Address
    style: str | None
    batch_size: int | None
    folder: str  # which paths begin at; a cluster's processes have another one

    def make(self, device: str) -> Service:
        """The service, on this machine. Raises `UserError`."""
        if not os.path.isdir(self.folder):
            remedy = "all machines need the command's folder at the same path, on shared storage"
            raise UserError(f"{self.folder}: no such folder; {remedy}")
        os.chdir(self.folder)
        scorers = {name: make(device) for name, make in self.makers.items()}
        return Service(scorers, self.limits, style=self.style, batch_size=self.batch_size)


class Replica:
    """The service in a process that Ray Serve starts, watches and replaces."""

    def __init__(self, recipe: Recipe, device: str) -> None:
        self.recipe = recipe
        try:
            self.service = recipe.make(device)
        except UserError as error:
            raise UserError(f"on {platform.node()}: {error}") from None

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        """The app, once the models are known to work, as `serve.ingress` asks for it."""
        await self.check_health()
        address = self.recipe.address
        return make_app(self.service, self.recipe.mix, token=address.token, hosts=address.names)

    async def check_health(self) -> None:
        """What Ray calls every few seconds. Raises `UserError` if the models do not work."""
        try:
            await self.service.check()
        except Refused as error:  # which cannot be pickled
            raise UserError(f"on {platform.node()}: {error.detail}") from None


def serve_on_ray(recipe: Recipe, cluster: str, replicas: Replicas | None, device: str) -> None:
    """Serve on a cluster, or a Ray of this machine, until SIGTERM or Ctrl-C; a second one stops at once.

    Each replica has a GPU where there are any and `device` is not cpu, else its share of the cores. By default there is
    one for each GPU. Raises `UserError` for an address in use, and where no replica can start.
    """
    ray, ours = connect(cluster, "ray.serve", INSTALL)
    logging.getLogger("ray.serve").setLevel(QUIET)
    serve, address = ray.serve, recipe.address
    try:
        if serve.status().proxies:
            raise UserError(f"--ray {cluster}: Ray Serve runs there already; end it with `serve shutdown`")
        gpus = count_gpus(ray, device)
        replicas = replicas or Replicas(max(1, gpus), max(1, gpus))
        if cluster == LOCAL and 0 < gpus < replicas.most:
            raise UserError(f"--replicas {replicas.most}: each takes a GPU, and this machine has {gpus}")
        with address.listen() as listening:  # Ray would share a port with any other that is willing
            port = listening.getsockname()[1]
        room = {"num_gpus": 1} if gpus else {"num_cpus": share_cores(ray, replicas.most)}
        with heeding_signals() as told_to_stop:
            try:
                begin(serve, recipe, port, deployment(serve, recipe.limits, replicas, room), "cuda" if gpus else "cpu")
                if watch(serve, told_to_stop, partial(address.show, port)):
                    answer_the_last(serve)
            finally:
                if cluster != LOCAL:
                    serve.shutdown()
    except (ray.exceptions.RayError, TimeoutError) as error:
        reason = [line for line in str(error).splitlines() if line.strip()][-1].strip()
        raise UserError(f"--ray {cluster}: the cluster failed ({reason}); see `ray status`") from None
    finally:
        if ours:
            ray.shutdown()


def share_cores(ray: Any, count: int) -> float:
    """How many cores each of `count` replicas gets, so that all of them fit on the cluster's machines."""
    cores = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    fitting = (share for share in range(int(max(cores)), 0, -1) if sum(own // share for own in cores) >= count)
    return next(fitting, 1 / math.ceil(count / max(1, sum(cores))))


def deployment(serve: Any, limits: Limits, replicas: Replicas, room: Mapping[str, float]) -> Any:
    """`Replica` as Ray Serve deploys it.

    A replica gets twice as many requests as it has places for images: one that has none left refuses at once by
    itself. Ray refuses only where all replicas have that many. A replica is added where each has more than half as many
    requests in hand as fill its places if all are as large as they may be.
    """
    target = max(1, limits.queue // limits.images // 2)
    scaling = {"min_replicas": replicas.least, "max_replicas": replicas.most, "target_ongoing_requests": target}
    count = {"autoscaling_config": scaling} if replicas.least < replicas.most else {"num_replicas": replicas.most}
    return serve.deployment(
        serve.ingress()(Replica),
        name=NAME,
        ray_actor_options=dict(room),
        max_ongoing_requests=2 * limits.queue,
        max_queued_requests=limits.queue,
        backpressure_config={"retry_after_s": 1},
        graceful_shutdown_timeout_s=limits.seconds,
        graceful_shutdown_wait_loop_s=1,
        health_check_period_s=HEALTH_SECONDS,
        health_check_timeout_s=limits.seconds,
        max_constructor_retry_count=START_TRIES,
        **count,
    )


def begin(serve: Any, recipe: Recipe, port: int, replicas: Any, device: str) -> None:
    """Have Ray start its HTTP servers, and the replicas, which takes a while."""
    seconds = 3 * recipe.limits.seconds  # to wait for a replica, to arrive there, and to be scored
    times = {"request_timeout_s": seconds, "keep_alive_timeout_s": IDLE_SECONDS}
    log = {"log_level": QUIET, "enable_access_log": False}
    serve.start(http_options={"host": recipe.address.host, "port": port, **times}, logging_config=log)
    target = serve.RunTarget(replicas.bind(recipe, device), name=NAME, logging_config=log)
    serve.run_many([target], wait_for_applications_running=False)


def watch(serve: Any, told_to_stop: threading.Event, show: Callable[[], None]) -> bool:
    """Say how many replicas there are whenever it changes, and `show` the address once all work; until told to stop.

    Returns whether they ever did. Raises `UserError` where one cannot start before that, or another command ends them.
    """
    up, before = False, ""
    while not told_to_stop.wait(LOOK_SECONDS):
        app = serve.status().applications.get(NAME)
        if app is None:
            raise UserError("Ray Serve: the replicas are gone, ended by another command; start this one again")
        state = app.deployments[NAME]
        if not up and (found := REASON.search(state.message)):
            raise UserError(f"a replica cannot start {found[1]}")
        if app.status == "DEPLOY_FAILED":
            raise UserError(f"no replica can start: {state.message}")
        counts = ", ".join(f"{number} {name.lower()}" for name, number in sorted(state.replica_states.items()))
        told = "; ".join([f"replicas: {counts}", *state.message.strip().splitlines()[-1:]])
        if told != before:
            print(printable(one_line(told)), file=sys.stderr, flush=True)
            before = told
        if not up and app.status == "RUNNING":
            up = True
            show()
    return up


def answer_the_last(serve: Any) -> None:
    """Wait until the requests in hand are answered; further ones are refused."""
    while NAME in serve.status().applications:
        with contextlib.suppress(TimeoutError):  # which comes after a minute
            serve.delete(NAME)


@contextlib.contextmanager
def heeding_signals() -> Iterator[threading.Event]:
    """Within, the first Ctrl-C or SIGTERM sets the event, and a second one ends the program."""
    heard = threading.Event()

    def hear(number: int, frame: object) -> None:
        if heard.is_set():
            raise Stopped(number, "stopped at once")
        heard.set()

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
