"""Memory and resuming of a long job: python -m benchmarks.long_job [--rows 1000000] [--method clip-score]

A table of that many rows names 1,000 small images in turn, each row with a prompt of its own. `mgs score` scores it by
the demo's CLIP in a process of its own, which is killed with SIGKILL in the middle and started again with --resume.
Prints the process's resident memory through both runs, how long it takes until there is a further row, and whether each
row is there once.
"""

from __future__ import annotations

import argparse
import csv
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from mgs.errors import exit_on_user_error

REPOSITORY = Path(__file__).parents[1]
IMAGES = 1000
EVERY = 1.0  # seconds between two looks
SETTLED = 0.1  # the share of the rows after which memory should no longer grow


def write_job(folder: Path, rows: int) -> None:
    """The images, and the table that names them."""
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f"{i}.jpg")
    with (folder / "long.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "prompt"])
        writer.writerows([f"{i % IMAGES}.jpg", f"wall number {i}"] for i in range(rows))


def begin(folder: Path, method: str, *more: str) -> subprocess.Popen:
    """The job as a process of its own."""
    words = ["score", "--table", "long.csv", "--method", method, "--clip", "demo", "--out", "scores/", *more]
    words += ["--batch-size", "64"]
    return subprocess.Popen([sys.executable, "-m", "mgs", *words], cwd=folder, env={"PYTHONPATH": str(REPOSITORY)})


def count_rows(out: Path) -> int:
    """Rows that are on the disk, in whole parts and in the one that is being written."""
    parts = sum(pq.read_metadata(path).num_rows for path in out.glob("part-*.parquet"))
    return parts + sum(path.read_bytes().count(b"\n") - 1 for path in out.glob(".part-*.partial"))


def watch(process: subprocess.Popen, out: Path) -> Iterator[tuple[float, int, float]]:
    """Time, rows so far, and megabytes of memory, once a second while the process runs."""
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        memory = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")), 0)
        if memory:  # a process that has just ended has none
            yield time.monotonic(), count_rows(out), memory / 1000
        time.sleep(EVERY)


def main(argv: Sequence[str]) -> None:
    """Run, kill, resume, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--method", default="clip-score")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        folder, seen = Path(scratch), []
        out = folder / "scores"
        write_job(folder, args.rows)
        process, began = begin(folder, args.method), time.monotonic()
        for _, rows, memory in watch(process, out):
            seen.append((rows, memory))
            if rows > args.rows / 2:
                process.send_signal(signal.SIGKILL)
                break
        process.wait()
        killed, kept = time.monotonic(), count_rows(out)
        rate = kept / (killed - began)
        process, first = begin(folder, args.method, "--resume"), 0.0
        for now, rows, memory in watch(process, out):
            seen.append((rows - kept, memory))
            first = first or (now if rows > kept else 0.0)
        tables = [pq.read_table(path, columns=["prompt"]) for path in sorted(out.glob("part-*.parquet"))]
        prompts = [prompt for table in tables for prompt in table["prompt"].to_pylist()]
        settled = [memory for rows, memory in seen if rows > SETTLED * args.rows]
        print(f"{args.rows:,} rows, {args.method}: {rate:.0f} rows/s; exit code {process.returncode}")
        print(f"each row once, in order: {prompts == [f'wall number {i}' for i in range(args.rows)]}")
        print(f"memory after a tenth of the rows: {min(settled):.0f} to {max(settled):.0f} MB")
        print(f"killed at {kept:,} rows on the disk; the first further row came {first - killed:.0f} s after")


if __name__ == "__main__":
    exit_on_user_error(main, sys.argv[1:])
