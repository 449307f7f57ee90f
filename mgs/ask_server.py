"""Ask an HTTP server for JSON, and again as long as there is hope. Needs aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from mgs.errors import UserError

try:
    import aiohttp
except ImportError:
    raise UserError("mgs.client needs aiohttp: run pip install aiohttp") from None

Field: TypeAlias = "tuple[str, str | bytes]"  # of a form: a text, or a file's content
TRY_AGAIN = (408, 429, 500, 502, 503, 504)  # 500 comes from Ray, of a replica that died
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0  # seconds before a request is repeated: doubled from the first to the longest
JITTER = random.Random()  # of its own: the sequence of random numbers of whoever calls stays as it is


@dataclass(frozen=True)
class Server:
    """A server's address, and how patiently it is asked. Raises `UserError` for what cannot be asked.

    `timeout` is in seconds, for each try; a request that fails is repeated up to `retries` times.
    """

    address: str
    token: str | None = None
    timeout: float = 120.0
    retries: int = 6

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"address {self.address!r}: give a server's, such as http://127.0.0.1:8000")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise UserError("token: line breaks or letters that HTTP has no place for; give the server's own")
        if not (self.timeout > 0 and self.retries >= 0):
            raise UserError(f"timeout={self.timeout}, retries={self.retries}: give more than 0 s, and 0 or more")

    def open_session(self) -> aiohttp.ClientSession:
        """Connections for `ask`, of the running event loop, to be closed by the caller."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=self.timeout))

    async def ask(self, session: aiohttp.ClientSession, path: str, fields: Sequence[Field] = ()) -> Any:
        """The JSON that answers a form of these fields, or a GET where there are none.

        It is asked again if the server cannot be reached, is late or busy: after the time that the server tells
        (Retry-After), else after pauses that double. Raises `ConnectionError` when the tries are spent or the server
        failed, `UserError` for what it refuses.
        """
        method, url = "POST" if fields else "GET", self.address.rstrip("/") + path
        for tries in itertools.count(1):
            told = None
            try:
                data = make_form(fields) if fields else None
                # a redirect would take the token along
                async with session.request(method, url, data=data, allow_redirects=False) as answer:
                    content = await answer.read()
                if answer.status not in TRY_AGAIN:
                    return self._read(answer.status, content, answer.headers.get("Location"))
                reason, told = f"{answer.status}: {detail(content)}", answer.headers.get("Retry-After")
            except TimeoutError:
                reason = f"no answer within {self.timeout:g} s"
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
                reason = str(error) or type(error).__name__
            if tries > self.retries:
                raise ConnectionError(f"{self.address}: gave up after {tries} tries ({reason}); check the server")
            await asyncio.sleep(pause(tries, told, self.timeout))

    def _read(self, status: int, content: bytes, location: str | None) -> Any:
        """The JSON of an answer; for any status but 200 an error with the server's own words."""
        if status == 200:
            with self.expecting("JSON"):
                return json.loads(content)
        if status == 401:
            remedy = "give token=" if self.token is None else "give the server's own as token="
            raise UserError(f"{self.address}: 401: {detail(content)}; {remedy}")
        if 300 <= status < 400:
            raise UserError(f"{self.address}: redirects to {location}, which is not followed; give that address")
        if status >= 500:
            raise ConnectionError(f"{self.address}: {status}: {detail(content)}; look at the server's log")
        raise UserError(f"{self.address}: {status}: {detail(content)}")

    @contextlib.contextmanager
    def expecting(self, what: str) -> Iterator[None]:
        """While an answer is read: what it lacks, or has of another kind, is a `UserError`."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{self.address}: no {what} in its answer ({reason}); is this `mgs serve`?") from error


def make_form(fields: Sequence[Field]) -> aiohttp.FormData:
    """A form, multipart, to be sent once."""
    form = aiohttp.FormData(quote_fields=False)
    for name, value in fields:
        if isinstance(value, bytes):
            form.add_field(name, io.BytesIO(value), filename="the image", content_type="application/octet-stream")
        else:
            form.add_field(name, value)
    return form


def pause(tries: int, told: str | None, longest: float) -> float:
    """Seconds until a request is repeated, with some jitter; `told` is Retry-After, seconds or a date, if any."""
    if told is not None:
        with contextlib.suppress(ValueError, OverflowError):
            wanted = float(told) if told.isdigit() else parsedate_to_datetime(told).timestamp() - time.time()
            return min(max(wanted, 0.0), longest) + JITTER.uniform(0, FIRST_PAUSE)
    return min(FIRST_PAUSE * 2 ** (tries - 1), LONGEST_PAUSE) * JITTER.uniform(0.5, 1)


def detail(content: bytes) -> str:
    """The reason that an answer gives, on one line."""
    try:
        text = str(json.loads(content)["detail"])
    except (ValueError, LookupError, TypeError):
        text = content[:200].decode("utf-8", "replace")
    return " ".join(text.split()) or "no reason given"
