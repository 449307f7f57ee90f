"""Connections that neither hold a server's sockets for ever, nor fill its memory, before there is a request."""

from __future__ import annotations

import asyncio
import re
import resource
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MOST = 4096  # connections; each takes some tens of kilobytes
OTHER_FILES = 128  # descriptors for all but connections
IDLE_SECONDS = 60  # without a whole request's head
MOST_HEAD = 64 << 10  # bytes before a request's body
MOST_AROUND = 8  # bytes around each byte of a body that comes in chunks
MOST_PIPELINED = 16  # requests that wait for the answer to another
BLANK = re.compile(rb"(?:\A|\n)\r?\n")  # what ends a head
UPGRADE = re.compile(rb"\nupgrade[ \t]*:", re.IGNORECASE)
DETAIL = b'{"detail": "the request: too much before or after its body; send less of it"}'
TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(DETAIL), DETAIL)
)


def most_connections() -> int:
    """How many connections there may be; the process's limit of open files is raised to what it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST + OTHER_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(MOST, soft - OTHER_FILES))


class Connection(HttpToolsProtocol):
    """Uvicorn's connection, whose own limits begin with a request, with limits before that.

    It is closed if it brings no request for a while, and where there are too many, if it has been idle longest.
    """

    most = MOST
    idle: dict[Connection, asyncio.TimerHandle] = {}  # noqa: RUF012 - of all connections, longest first

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.unread: asyncio.TimerHandle | None = None  # runs while the client does not read
        self.in_head, self.head = True, 0  # whether a request's head is what comes next, and its bytes so far
        self.unparsed = bytearray()  # of a head that is not whole
        self.body, self.around = 0, 0  # bytes of a body, and those that came with it
        self.cycles: list[RequestResponseCycle] = []  # of requests that are not answered

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        self.wait_for_request()
        if len(self.connections) > self.most:
            oldest = next(iter(self.idle))
            oldest.stop_waiting()  # or the next new one would choose it again, which ends a moment later
            oldest.transport.abort()

    def wait_for_request(self) -> None:
        """Be idle from now on."""
        self.idle[self] = self.loop.call_later(IDLE_SECONDS, self.transport.abort)

    def stop_waiting(self) -> None:
        """Be busy."""
        if timer := self.idle.pop(self, None):
            timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request. A head is parsed once it is whole."""
        if self.in_head:
            self.head += len(data)
            seen = max(0, len(self.unparsed) - 2)  # a head that comes byte by byte is searched once
            self.unparsed += data
            end = BLANK.search(self.unparsed, seen)
            if len(self.pipeline) > MOST_PIPELINED or (self.head > MOST_HEAD and not end):
                self.refuse_more()
                return
            if not end:
                return
            data, self.unparsed = without_upgrade(bytes(self.unparsed), end.end()), bytearray()
        else:
            self.around += len(data)
        super().data_received(data)
        if self.around > MOST_HEAD + MOST_AROUND * self.body:  # what follows a body has no end
            self.refuse_more()

    def refuse_more(self) -> None:
        """Say that there is too much, and close the connection."""
        self.transport.write(TOO_LARGE)
        self.transport.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Read a header; those after a body are of no use here, and have no end."""
        if self.in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A request has begun."""
        self.in_head, self.head, self.body, self.around = False, 0, 0, 0
        self.stop_waiting()
        super().on_headers_complete()
        self.cycles = [*(cycle for cycle in self.cycles if not cycle.response_complete), self.cycle]

    def on_body(self, body: bytes) -> None:
        """Read a part of a body."""
        self.body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is here; what follows is another one's head."""
        self.in_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A request was answered."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self.wait_for_request()

    def pause_writing(self) -> None:
        """The client reads too slowly; one that goes on like this is dropped."""
        super().pause_writing()
        self.unread = self.loop.call_later(IDLE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        if self.unread:
            self.unread.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self.stop_waiting()
        if self.unread:
            self.unread.cancel()
        self.pipeline.clear()
        for cycle in self.cycles:  # uvicorn tells the newest alone
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)


def without_upgrade(data: bytes, end: int) -> bytes:
    """A request whose head ends there, without a wish for another protocol.

    httptools would take the body for that protocol's. A server may pass over the wish, which curl --http2 and Java's
    client send with every first request.
    """
    return UPGRADE.sub(b"\nx-upgrade:", data[:end]) + data[end:]
