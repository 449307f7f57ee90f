"""How robust training is: the demo's training killed again and again, and two hundred trainings in a row.

python -m benchmarks.endurance kill --times 25      SIGKILL at random moments, resumed, against an unbroken run
python -m benchmarks.endurance soak --times 200     memory and open files over that many trainings in one process
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.stats import theilslopes
from tqdm import tqdm

from mgs.demo.write import write_demo
from mgs.errors import exit_on_user_error
from mgs.recipes import train
from mgs.training.progress import read_progress

REPOSITORY = Path(__file__).parents[1]
KEPT = ("best.safetensors", "predictions_val.csv", "metrics.jsonl")
SHORT = ("train.epochs=2",)
SAVE_MINUTES = 0.005  # so that a run that is killed every few seconds makes progress
LONGEST = 3.0  # seconds of training before the next kill
SETTLED = 20  # trainings after which memory should no longer grow
MOST_SLOPE = 10.0  # kB a training
MALLINFO2 = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)
PAGE = os.sysconf("SC_PAGE_SIZE")


def kill(times: int, seed: int) -> bool:
    """Kill the demo's training `times` times at random moments, each time starting the same command again.

    Whenever a run finishes, its results are compared with an unbroken run's, byte for byte.
    """
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "configs").symlink_to(REPOSITORY / "configs")
        drawn = REPOSITORY / "data/demo"
        if not drawn.exists():
            write_demo(drawn)
        (folder / "data").mkdir()
        (folder / "data/demo").symlink_to(drawn)
        unbroken = finish(folder)
        shutil.rmtree(folder / "runs")
        kills, forward, ends, equal, begun = 0, 0, 0, 0, time.monotonic()
        place = (0, 0)
        with tqdm(total=times, desc="killing", unit="kill") as bar:
            while kills < times:
                if die(folder, moments.uniform(0, LONGEST)):
                    before, place = place, find_place(folder)
                    kills, forward = kills + 1, forward + (place > before)
                    bar.update()
                else:
                    ends, equal, place = ends + 1, equal + (results(folder) == unbroken), (0, 0)
                    shutil.rmtree(folder / "runs")
        ends, equal = ends + 1, equal + (finish(folder) == unbroken)
        left = [path for path in (folder / "runs").rglob("*") if path.name.startswith(".") or path.name == "last.pt"]
    minutes = (time.monotonic() - begun) / 60
    print(
        f"{kills} kills in {minutes:.1f} minutes, after {forward} of them training had made progress; {ends} runs "
        f"finished, {equal} equal the unbroken one byte for byte; left over: {len(left)} files"
    )
    return ends == equal and not left


def start(folder: Path) -> BaseProcess:
    """Start the demo's training, in a folder that has what it needs; its output goes to `log` there.

    It is forked from a process that has imported everything and computed nothing, since torch takes seconds to import.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mgs.recipes.train", "clip"])
    process = context.Process(target=train_in, args=(folder,))
    process.start()
    return process


def train_in(folder: Path) -> None:
    """The training's own process."""
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    exit_on_user_error(train.main, ["configs/demo.yaml", *SHORT, f"train.save_minutes={SAVE_MINUTES}"])


def die(folder: Path, seconds: float) -> bool:
    """Train, and kill the process this long after its first step; returns whether it was still running."""
    (folder / "log").unlink(missing_ok=True)
    process = start(folder)
    while process.is_alive() and b"epoch" not in said(folder):
        time.sleep(0.02)
    process.join(seconds)
    process.kill()
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise SystemExit(f"the training failed by itself: {said(folder).decode(errors='replace')[-2000:]}")
    return process.exitcode != 0


def said(folder: Path) -> bytes:
    """What the training has printed."""
    log = folder / "log"
    return log.read_bytes() if log.exists() else b""


def find_place(folder: Path) -> tuple[int, int]:
    """Epoch and step that the next attempt resumes at."""
    content = read_progress(folder / "runs/demo/fold_01/last.pt")
    return (content["trainer"]["counts"]["epoch"], content["trainer"]["counts"]["steps"]) if content else (0, 0)


def finish(folder: Path) -> dict[str, bytes]:
    """Train to the end; returns what it leaves."""
    process = start(folder)
    process.join()
    if process.exitcode:
        raise SystemExit(f"the training failed by itself: {said(folder).decode(errors='replace')[-2000:]}")
    return results(folder)


def results(folder: Path) -> dict[str, bytes]:
    """The bytes of all that a run leaves, except TensorBoard's files, which hold the time of day."""
    return {name: (folder / "runs/demo/fold_01" / name).read_bytes() for name in KEPT}


class MallInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`: what its allocator holds; from malloc.h."""

    _fields_ = [(name, ctypes.c_size_t) for name in MALLINFO2]


def soak(times: int) -> bool:
    """Train a small table `times` times in one process, and find the slope of its memory, by Theil and Sen.

    Memory in use is what a leak shows in. Resident memory has the libraries in it, and what the allocator keeps of
    freed memory, which the trainings' many threads leave in pieces.
    """
    torch.set_num_threads(1)  # the pictures are tiny: a second thread would only wait
    glibc = ctypes.CDLL("libc.so.6")
    glibc.mallinfo2.restype = MallInfo
    used, resident, files = [], [], []
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch), open(os.devnull, "w") as nowhere:
        write_table(Path())
        for _ in tqdm(range(times), desc="soaking", unit="training"):
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                train.main(["own.yaml", "overwrite=true"])
            gc.collect()
            info = glibc.mallinfo2()
            used.append((info.uordblks + info.hblkhd) / 1e6)
            resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6)
            files.append(len(os.listdir("/proc/self/fd")))
    after = np.arange(min(SETTLED, times // 2), times)
    slopes = []
    print(f"{times} trainings; slopes from training {after[0] + 1} on")
    for what, megabytes in (("in use", used), ("resident", resident)):
        slopes.append(1000 * float(theilslopes(np.array(megabytes)[after], after)[0]))
        print(
            f"memory {what}: {megabytes[0]:.1f} MB after the first, {megabytes[after[0]]:.1f} after training "
            f"{after[0] + 1}, {megabytes[-1]:.1f} at the end, slope {slopes[-1]:+.2f} kB a training"
        )
    print(f"open files: {files[0]} after the first, {files[-1]} at the end, {max(files)} at most")
    return files[-1] <= files[0] and slopes[0] < MOST_SLOPE


def write_table(folder: Path) -> None:
    """Thirty pictures as good as they are bright, their table, and a config for the demo's CLIP."""
    rows = ["image,prompt,quality,correspondence"]
    for i in range(30):
        Image.new("RGB", (64, 64), (8 * i, 8 * i, 8 * i)).save(folder / f"{i}.png")
        rows.append(f"{i}.png,a grey wall {i},{i / 6},{5 - i / 6}")
    (folder / "mos.csv").write_text("\n".join(rows) + "\n")
    (folder / "own.yaml").write_text(
        "data: {table: mos.csv, protocol: random-image}\nmodel: {clip: demo}\ntrain: {epochs: 1, batch_size: 4}\n"
        "folds: [1]\n"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run what the command line names; exit code 1 if it failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kill", "soak"))
    parser.add_argument("--times", type=int, help="kills (25) or trainings (200)")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments of the kills")
    args = parser.parse_args(argv)
    held = kill(args.times or 25, args.seed) if args.what == "kill" else soak(args.times or 200)
    sys.exit(not held)


if __name__ == "__main__":
    main()
