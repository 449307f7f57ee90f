"""What serving costs: python -m benchmarks.serving --root PATH_OF_AGIQA-3K [--clip NAME] [--soak MINUTES]

Images are scored in turns: by `score_items`, as `mgs score` does, with their files' content in memory; and by a server
in a process of its own, with batches and with --batch-size 1, for many clients at once, each with one image a request,
which wrk sends from another process. Prints images per second, each beside those of the same turn's `score_items`, and
clients' times. With --soak, half the server's rate is then sent for so many minutes, and the server's memory and open
files are printed as they go. wrk comes with Debian, Ubuntu and Homebrew under this name.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from mgs.errors import UserError, exit_on_user_error
from mgs.machine import device_name
from mgs.progress_bar import progress
from mgs.scoring.scorer import Scorer
from mgs.scoring.shards import ScoreOptions, score_items
from mgs.sources.find import find_sources
from mgs.sources.item import Item
from mgs.sources.tables import TableOptions

MARK = "mgs-benchmark"
KIND = f"multipart/form-data; boundary={MARK}"
LUA = """
local bodies, next = {}, 0
function init()
  for i = 0, COUNT - 1 do
    local file = io.open("FOLDER/" .. i, "rb")
    bodies[i] = file:read("*a")
    file:close()
  end
end
function request()
  next = (next + 1) % COUNT
  return wrk.format("POST", "/score", {["Content-Type"] = "KIND"}, bodies[next])
end
"""


class Load(NamedTuple):
    """What clients saw of a server."""

    rate: float  # images a second
    median: str
    slowest: str  # of all but one in a hundred


def write_bodies(items: Sequence[Item], folder: Path) -> Path:
    """A request's body for each image, and the script by which wrk sends them."""
    for number, item in enumerate(items):
        parts = {'name="images"; filename="a.jpg"': item.data or b"", 'name="prompts"': (item.prompt or "").encode()}
        body = b"".join(
            f"--{MARK}\r\ncontent-disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"
            for head, data in parts.items()
        )
        (folder / str(number)).write_bytes(body + f"--{MARK}--\r\n".encode())
    script = LUA.replace("COUNT", str(len(items))).replace("FOLDER", str(folder)).replace("KIND", KIND)
    (folder / "load.lua").write_text(script)
    return folder / "load.lua"


@contextlib.contextmanager
def server(clip: str, *words: str) -> Iterator[str]:
    """A server's address, once it answers."""
    command = [sys.executable, "-m", "mgs", "serve", "--clip", clip, "--port", "0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout
            address = process.stdout.readline().split("/  ")[0]
            for _ in range(600):
                with contextlib.suppress(OSError):
                    read(f"{address}/ready")
                    break
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()


def read(address: str) -> str:
    """What an address answers."""
    with urllib.request.urlopen(address) as reply:
        return str(reply.read().decode())


def load(address: str, script: Path, clients: int, seconds: int) -> Load:
    """Have clients send as fast as they are answered."""
    command = [
        "wrk",
        "-t1",
        f"-c{clients}",
        f"-d{seconds}s",
        "--timeout",
        "60s",
        "--latency",
        "-s",
        str(script),
        address,
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in told or "Socket errors" in told:
        raise UserError(f"{address}: not all requests were answered; {told}")
    found = [re.search(rf"^\s+{share}%\s+(\S+)", told, re.MULTILINE) for share in (50, 99)]
    rate = re.search(r"Requests/sec:\s+(\S+)", told)
    if not (rate and found[0] and found[1]):
        raise UserError(f"wrk: an unknown version; it says {told}")
    return Load(float(rate[1]), found[0][1], found[1][1])


async def soak(address: str, folder: Path, count: int, rate: float, minutes: float) -> None:
    """Send so many requests a second, whether or not others are answered, and print what the server holds."""
    import aiohttp

    bodies = [(folder / str(number)).read_bytes() for number in range(count)]
    draw, times = random.Random(0), list[float]()

    async def ask(session: aiohttp.ClientSession) -> None:
        start = time.perf_counter()
        async with session.post(f"{address}/score", data=draw.choice(bodies), headers={"Content-Type": KIND}) as reply:
            reply.raise_for_status()
            await reply.read()
        times.append(time.perf_counter() - start)

    begun = time.perf_counter()
    async with aiohttp.ClientSession() as session:
        tasks: set[asyncio.Task[None]] = set()
        told = begun
        while (now := time.perf_counter()) < begun + 60 * minutes:
            tasks = {task for task in tasks if not (task.done() and (task.result() or True))}
            tasks.add(asyncio.ensure_future(ask(session)))
            if now >= told:
                told += 60
                print(f"{(now - begun) / 60:5.1f} min  {holds(address)}", flush=True)
            await asyncio.sleep(draw.expovariate(rate))
        await asyncio.gather(*tasks)
    cuts = statistics.quantiles(times, n=100)
    print(f"{minutes:5.1f} min  {holds(address)}")
    print(
        f"{len(times)} requests at {rate:.0f}/s: median {cuts[49] * 1000:.0f} ms, 99 % within {cuts[98] * 1000:.0f} ms"
    )


def holds(address: str) -> str:
    """A server's memory and open files."""
    found = dict(
        re.findall(r"^process_(resident_memory_bytes|open_fds) (\S+)", read(f"{address}/metrics"), re.MULTILINE)
    )
    return f"{float(found['resident_memory_bytes']) / 1e6:.0f} MB, {float(found['open_fds']):.0f} open files"


def main(argv: Sequence[str]) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="AGIQA-3K's folder: data.csv and images/")
    parser.add_argument("--clip", default="demo")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--soak", type=float, default=0, help="minutes")
    args = parser.parse_args(argv)
    if shutil.which("wrk") is None:
        raise UserError("wrk: is not installed; apt-get install wrk")
    table = find_sources([str(args.root / "data.csv")], TableOptions(images=str(args.root / "images")))
    items = [replace(item, data=item.read()) for item in list(table.items())[: args.images]]
    scorer, options = Scorer.zero_shot(args.clip), ScoreOptions(None, "sentence", None, "")
    with (
        tempfile.TemporaryDirectory() as name,
        server(args.clip) as full,
        server(args.clip, "--batch-size", "1") as one,
    ):
        script, found = write_bodies(items, Path(name)), {"batches": list[Load](), "--batch-size 1": list[Load]()}
        own = []
        for turn in progress(range(args.repeat + 1), desc="turns", unit="turn"):
            start = time.perf_counter()
            scored = sum(1 for _ in score_items(scorer, items, options))
            rate = scored / (time.perf_counter() - start)
            loads = [load(address, script, args.clients, args.seconds) for address in (full, one)]
            if turn:  # the first warms up
                own.append(rate)
                for kept, new in zip(found.values(), loads, strict=True):
                    kept.append(new)
        about = device_name(scorer.engine.machine.device), args.clip, f"{args.clients} clients"
        print(f"{', '.join(about)}, medians of {args.repeat}")
        print(f"{'':<16}{'images/s':>9}{'share':>7}{'p50':>12}{'p99':>12}")
        print(f"{'score_items':<16}{statistics.median(own):9.1f}{1:7.0%}")
        for kind, loads in found.items():
            share = statistics.median(one.rate / rate for one, rate in zip(loads, own, strict=True))
            middle = sorted(loads)[len(loads) // 2]
            print(f"{kind:<16}{middle.rate:9.1f}{share:7.0%}{middle.median:>12}{middle.slowest:>12}")
        if args.soak:
            half = statistics.median(one.rate for one in found["batches"]) / 2
            asyncio.run(soak(full, Path(name), len(items), half, args.soak))


if __name__ == "__main__":
    exit_on_user_error(main, sys.argv[1:])
