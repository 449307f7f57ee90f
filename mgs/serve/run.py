"""Run the server in this process until it is told to stop; what is in hand is finished first."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import math
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn

from mgs.errors import UserError
from mgs.scoring.mix import Mix
from mgs.serve.app import make_app
from mgs.serve.connections import IDLE_SECONDS, Connection, most_connections
from mgs.serve.service import Service

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Address:
    """Where a server listens, and who may ask it."""

    host: str
    port: int
    token: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can ask. Raises `UserError` for a host that is none."""
        return all(ipaddress.ip_address(found[4][0]).is_loopback for found in self.find())

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names that the server may be called by; None for any."""
        return (*LOCAL_NAMES, self.host) if self.is_local and self.token is None else None

    def find(self) -> list[Any]:
        """What the system knows of the host, as `socket.getaddrinfo` tells it. Raises `UserError`."""
        try:
            return socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise UserError(f"--host {self.host}: no address of this machine ({error}); see --host") from None

    def listen(self) -> socket.socket:
        """A socket that listens. Raises `UserError` where there can be none."""
        try:
            return socket.create_server((self.host, self.port), family=self.find()[0][0], backlog=2048)
        except OSError as error:
            remedy = "choose another with --port" if error.errno == errno.EADDRINUSE else "see --host and --port"
            raise UserError(f"{self.host}:{self.port}: {error.strerror}; {remedy}") from None

    def show(self, port: int) -> None:
        """Print where the server answers."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        print(f"http://{host}:{port}/  the page; /docs tells what programs may send", flush=True)


class Server(uvicorn.Server):
    """Uvicorn's server, which prints its address once it answers there."""

    def __init__(self, config: uvicorn.Config, address: Address) -> None:
        super().__init__(config)
        self.address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        if self.started and not self.should_exit and sockets:
            self.address.show(sockets[0].getsockname()[1])


def run_server(service: Service, mix: Mix, address: Address) -> None:
    """Serve until SIGTERM or Ctrl-C; a second one stops at once. Raises `UserError` for an address in use."""
    Connection.most = most_connections()
    asyncio.run(service.check())
    server = make_server(service, mix, address)
    with address.listen() as listening, stopped_by_signals(server):
        server.run(sockets=[listening])
    if not service.threads.close():
        sys.stderr.flush()
        os._exit(0)  # the process would wait for threads that decode what nobody waits for


def make_server(service: Service, mix: Mix, address: Address) -> Server:
    """A server of a service, which does not listen yet."""
    config = uvicorn.Config(
        make_app(service, mix, token=address.token, hosts=address.names),
        http=Connection,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        use_colors=False,  # by default the output is asked whether it is a terminal, and there may be none
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=math.ceil(service.limits.seconds),
    )
    return Server(config, address)


@contextlib.contextmanager
def stopped_by_signals(server: Server) -> Iterator[None]:
    """Signals end the server, also before uvicorn heeds them.

    Those that it has obeyed, and raises again at its end, do nothing: a server that was told to stop has not failed.
    """

    def stop(*_: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
