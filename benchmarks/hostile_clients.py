"""What hostile clients cost the others: python -m benchmarks.hostile_clients [--clip NAME] [--seconds N]

A server, one honest client that sends an image after the other, and hostile ones, each in a process of its own. Prints
the honest client's times alone, and beside 10,000 connections that say nothing, bodies that come a byte a second,
half-sent bodies whose senders leave, bodies larger than they may be, images that unpack to more than they may be, and
pickles that would fill the memory; then what the server holds. Any honest request that is not answered ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from urllib.parse import urlsplit

import aiohttp
import numpy as np
from PIL import Image

from benchmarks.serving import holds, server
from mgs.errors import UserError, exit_on_user_error

MB = 1 << 20
Attack = Callable[["Target"], contextlib.AbstractAsyncContextManager[None]]


class Target:
    """A server's address, and connections to it."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self.address, self.host, self.port = address, str(parts.hostname), int(parts.port or 0)

    async def connect(self, head: str = "", body: bytes = b"") -> asyncio.StreamWriter | None:
        """A connection that sends this much; None where it is refused."""
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(self.host, self.port)
            writer.write(head.encode() + body)
            await writer.drain()
            return writer
        return None

    async def post(self, path: str, body: bytes) -> int:
        """The status of a request; 0 where the connection breaks."""
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async with aiohttp.ClientSession() as session, session.post(self.address + path, data=body) as reply:
                return reply.status
        return 0


def head_of(length: int) -> str:
    """A request's head that promises so many bytes."""
    return f"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"


@contextlib.asynccontextmanager
async def nothing(target: Target) -> AsyncIterator[None]:
    """The honest client alone."""
    yield


@contextlib.asynccontextmanager
async def silent_connections(target: Target) -> AsyncIterator[None]:
    """10,000 connections that say nothing."""
    writers = [await target.connect() for _ in range(10_000)]
    yield
    for writer in filter(None, writers):
        writer.close()


@contextlib.asynccontextmanager
async def slow_bodies(target: Target) -> AsyncIterator[None]:
    """500 bodies that come a byte a second."""
    writers = [await target.connect(head_of(MB)) for _ in range(500)]

    async def drip() -> None:
        while True:
            for writer in filter(None, writers):
                writer.write(b"x")
            await asyncio.sleep(1)

    task = asyncio.ensure_future(drip())
    yield
    task.cancel()
    for writer in filter(None, writers):
        writer.close()


def repeated(send: Callable[[Target], object], at_once: int) -> Attack:
    """An attack by clients that do the same again and again."""

    @contextlib.asynccontextmanager
    async def attack(target: Target) -> AsyncIterator[None]:
        async def repeat() -> None:
            while True:
                with contextlib.suppress(aiohttp.ClientError):  # which the server may answer an attack with
                    await send(target)  # type: ignore[misc]
                await asyncio.sleep(0.01)

        tasks = [asyncio.ensure_future(repeat()) for _ in range(at_once)]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    attack.__doc__ = send.__doc__
    return attack


async def leave_half_way(target: Target) -> None:
    """20 clients that send half a body and leave."""
    if writer := await target.connect(head_of(2 * MB), bytes(MB)):
        writer.close()


async def send_too_much(target: Target) -> None:
    """4 clients that send 100 MB."""
    await target.post("/score", bytes(100 * MB))


def form_of(picture: bytes, count: int) -> bytes:
    """JSON of so many equal images."""
    import base64
    import json

    return json.dumps({"images": [base64.b64encode(picture).decode()] * count}).encode()


def large_picture(side: int) -> bytes:
    """A small file of a large white picture."""
    Image.fromarray(np.full((side, side), True)).save(stream := io.BytesIO(), "PNG")
    return stream.getvalue()


BOMB, LARGEST = form_of(large_picture(30_000), 8), form_of(large_picture(4_096), 8)


async def send_bombs(target: Target) -> None:
    """4 clients with 8 images of 900 megapixels each."""
    async with (
        aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as session,
        session.post(f"{target.address}/score", data=BOMB) as reply,
    ):
        await reply.read()


async def send_largest(target: Target) -> None:
    """2 clients with 8 images of 17 megapixels, which are scored."""
    async with (
        aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as session,
        session.post(f"{target.address}/score", data=LARGEST) as reply,
    ):
        await reply.read()


async def send_lists(target: Target) -> None:
    """4 clients with pickles of 60 million empty lists."""
    await target.post("/", b"\x80\x04" + b"]" * (60 * MB) + b".")


ATTACKS: tuple[Attack, ...] = (
    nothing,
    silent_connections,
    slow_bodies,
    repeated(leave_half_way, 20),
    repeated(send_too_much, 4),
    repeated(send_bombs, 4),
    repeated(send_lists, 4),
    repeated(send_largest, 2),
    nothing,
)


async def honest(target: Target, seconds: float) -> list[float]:
    """Milliseconds of an honest client's requests, one after the other. Raises where one is not answered."""
    pixels = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream := io.BytesIO(), "JPEG")
    times, end = [], time.perf_counter() + seconds
    async with aiohttp.ClientSession() as session:
        while (start := time.perf_counter()) < end:
            form = aiohttp.FormData()
            form.add_field("images", stream.getvalue(), filename="a.jpg")
            async with session.post(f"{target.address}/score", data=form) as reply:
                reply.raise_for_status()
                assert (await reply.json())["results"][0]["scores"]
            times.append(1000 * (time.perf_counter() - start))
    return times


async def attack_until_killed(number: int, address: str) -> None:
    """Attack a server; says so once it has begun."""
    async with ATTACKS[number](Target(address)):
        print("begun", flush=True)
        await asyncio.Event().wait()


def measure(address: str, seconds: float) -> None:
    """Print the honest client's times beside each attack."""
    print(f"{'':<62}{'requests':>9}{'p50':>9}{'p99':>9}{'most':>9}")
    for number, attack in enumerate(ATTACKS):
        command = [sys.executable, "-m", "benchmarks.hostile_clients", "--attack", str(number), address]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as attacker:
            assert attacker.stdout
            if attacker.stdout.readline() != b"begun\n":
                raise UserError(f"{attack.__doc__}: has not begun; see above")
            times = asyncio.run(honest(Target(address), seconds))
            if attacker.poll() is not None:
                raise UserError(f"{attack.__doc__}: has ended too early; see above")
            attacker.kill()
        cuts = statistics.quantiles(times, n=100)
        told = str(attack.__doc__).splitlines()[0].removesuffix(".")
        print(
            f"{told:<62}{len(times):9}{cuts[49]:6.0f} ms{cuts[98]:6.0f} ms{max(times):6.0f} ms  {holds(address)}",
            flush=True,
        )


def main(argv: Sequence[str]) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", default="demo")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--attack", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if args.attack:
        asyncio.run(attack_until_killed(int(args.attack[0]), args.attack[1]))
        return
    with server(args.clip) as address:
        measure(address, args.seconds)


if __name__ == "__main__":
    exit_on_user_error(main, sys.argv[1:])
