"""Before a request reaches the app: who may ask, how large and slow a body may be, whether its sender has left."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import re
import time
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mgs.images.metadata import as_text
from mgs.serve.limits import Limits, Refused
from mgs.serve.page_files import PAGE
from mgs.serve.service import Service

OPEN = (*PAGE, "/health", "/ready", "/docs", "/openapi.json")  # without a token, for GET
OPEN_FOLDER = "/static-offline-docs/"  # what /docs shows
BODILESS = ("GET", "HEAD")
SILENT_SECONDS = 10  # within a body
MOST_FORGOTTEN = 4  # times the largest body, of one that was refused
LONGEST_NUMBER = 20  # digits of a content-length, which Python reads up to a limit of its own
LEFT = 499  # nginx's status for a client that left
SCORING = ("/", "/score", "/rank", "/compute")  # what takes places in the queue


class ClientLeftError(Exception):
    """The sender of a request has closed the connection."""


class Guard:
    """An ASGI app around another. It reads a request's body, within the service's limits, before the other begins.

    A request whose sender leaves is cancelled. `hosts` are the names by which the server may be called; where only this
    machine may call it, a web page could otherwise bring a name of its own to point here.
    """

    def __init__(
        self, app: ASGIApp, *, service: Service, token: str | None = None, hosts: Collection[str] | None = None
    ) -> None:
        self.app, self.service, self.token, self.hosts = app, service, token, hosts
        self.limits = service.limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, begun, body = 0, time.perf_counter(), bytearray()

        async def watched_send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.serve(scope, receive, watched_send, body)
        except Refused as error:
            await refuse(error, receive, watched_send, self.limits)
        except ClientLeftError:
            status = LEFT
        except Exception:  # told by whoever runs this app
            status = status or 500
            raise
        finally:
            self.service.held -= len(body)
            path = getattr(scope.get("route"), "path", "other")
            self.service.metrics.requests.labels(path, str(status)).observe(time.perf_counter() - begun)

    async def serve(self, scope: Scope, receive: Receive, send: Send, body: bytearray) -> None:
        """Read the body, then have the app answer, for as long as the sender is there. Raises `Refused`."""
        self.check_sender(scope)
        if scope["method"] in BODILESS:
            await self.app(scope, receive, send)
            return
        if scope["path"] in SCORING:
            self.service.check_room()  # before a body is read for nothing
        try:
            async with asyncio.timeout(self.limits.seconds):
                await self.read_body(Headers(scope=scope), receive, body)
        except TimeoutError:
            told = f"not here within {self.limits.seconds:g} s, or nothing of it for {SILENT_SECONDS} s"
            raise Refused(408, f"the body: {told}; send less at once, or over a faster network") from None
        whole, answered = bytes(body), False

        async def replay() -> Message:
            nonlocal answered
            if answered:
                return await receive()
            answered = True
            return {"type": "http.request", "body": whole, "more_body": False}

        gone = asyncio.ensure_future(until_gone(receive))
        work = asyncio.ensure_future(self.app(scope, replay, send))
        try:
            await asyncio.wait((gone, work), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientLeftError
            work.result()
        finally:
            gone.cancel()
            work.cancel()
            await asyncio.gather(gone, work, return_exceptions=True)

    def check_sender(self, scope: Scope) -> None:
        """Raise `Refused` for one who may not ask."""
        headers = Headers(scope=scope)
        if self.hosts is not None:
            host = headers.get("host", "")
            if not any(re.fullmatch(rf"\[?{re.escape(name)}\]?(:\d+)?", host, re.IGNORECASE) for name in self.hosts):
                remedy = "call it by localhost, or start it with --host or --token"
                raise Refused(400, f"host {as_text(host)}: this server answers its own machine alone; {remedy}")
        if scope["method"] not in BODILESS and is_of_another_site(headers):
            raise Refused(403, "a page of another site asks: this server answers its own page, and programs")
        path, method = scope["path"], scope["method"]
        if self.token is None or (method in BODILESS and (path in OPEN or path.startswith(OPEN_FOLDER))):
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        known = hmac.compare_digest(token.strip().encode("latin-1"), self.token.strip().encode())
        if scheme.lower() != "bearer" or not known:
            raise Refused(401, "a token is needed: send it as Authorization: Bearer TOKEN")

    async def read_body(self, headers: Headers, receive: Receive, body: bytearray) -> None:
        """Read a request's body. Raises `Refused` where it is too large, or all bodies together are."""
        too_large = Refused(413, f"the body: more than {self.limits.bytes:,} bytes; send fewer images at once")
        told = headers.get("content-length", "0")
        if not told.isascii() or not told.isdigit() or int(told[:LONGEST_NUMBER]) > self.limits.bytes:
            raise too_large
        more = True
        while more:
            async with asyncio.timeout(SILENT_SECONDS):
                message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            part, more = message.get("body", b""), message.get("more_body", False)
            if len(body) + len(part) > self.limits.bytes:
                raise too_large
            if self.service.held + len(part) > self.limits.bodies:
                raise Refused(503, "the bodies of other requests fill the memory; try again later", 1)
            body += part
            self.service.held += len(part)


async def until_gone(receive: Receive) -> None:
    """Wait for a request's sender to leave."""
    while (await receive())["type"] != "http.disconnect":
        pass


def is_of_another_site(headers: Headers) -> bool:
    """Whether a browser sends this for a page that is not this server's. Old ones tell `Origin` alone."""
    if site := headers.get("sec-fetch-site"):
        return site == "cross-site"
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower()


async def refuse(error: Refused, receive: Receive, send: Send, limits: Limits) -> None:
    """Answer with what is wrong, and close the connection.

    What is left of the body is read and forgotten, as long as it comes in time and has an end: a connection that is
    closed while a client still sends may lose the answer.
    """
    body = json.dumps({"detail": error.detail}).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **({"WWW-Authenticate": "Bearer"} if error.status == 401 else {}),
        **error.headers,
    }
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limits.seconds):
            forgotten, more = 0, True
            while more and forgotten <= MOST_FORGOTTEN * limits.bytes:
                async with asyncio.timeout(SILENT_SECONDS):
                    message = await receive()
                forgotten, more = forgotten + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.body"})
