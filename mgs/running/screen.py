"""What people see of several workers: their lines, a bar for each of them, and one for all tasks."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from mgs import progress_bar
from mgs.progress_bar import progress


class Screen:
    """Shows workers by name; a context manager. Without a terminal: lines, and once a minute how far all are."""

    def __init__(self, names: Sequence[str], total: int | None) -> None:
        """`total` is the number of tasks, where it is known."""
        self.total, self.ended = total, 0
        self.bars: list[tqdm] = []
        self.bar_of: dict[str, tqdm] = {}
        if sys.stderr.isatty():
            self.bars = [progress(total=total, desc="tasks", unit="task", position=0)]
            self.bars += [progress(desc=name, position=i, leave=False) for i, name in enumerate(names, 1)]
            self.bar_of = dict(zip(names, self.bars[1:], strict=True))
        self.states: dict[str, str] = {}  # of workers, in words
        self.shown = time.monotonic()

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        for bar in reversed(self.bars):
            bar.close()

    def print(self, name: str, stream: str, text: str) -> None:
        """Print a worker's lines on stdout or stderr, each after the worker's name."""
        lines = "\n".join(f"{name} | {line}" for line in text.split("\n"))
        tqdm.write(lines, file=sys.stdout if stream == "stdout" else sys.stderr)

    def report(self, name: str, description: str, count: float, total: float | None) -> None:
        """Show how far a worker's own bar is."""
        self.states[name] = f"{name} {description} {count:g}" + (f"/{total:g}" if total else "")
        if name in self.bar_of:
            bar = self.bar_of[name]
            if bar.desc != (described := f"{name} {description}") or bar.n > count:
                bar.reset(total)
                bar.set_description_str(described, refresh=False)
            bar.n = count
            bar.refresh()
        self.show()

    def end_task(self, name: str) -> None:
        """Count a task that a worker has ended, whatever came of it."""
        self.ended += 1
        self.states.pop(name, None)
        if name in self.bar_of:
            bar = self.bar_of[name]
            bar.reset()
            bar.set_description_str(name)
            self.bars[0].update()
        self.show()

    def show(self) -> None:
        """Without a terminal, once a minute, print how far all are."""
        if not self.bars and time.monotonic() - self.shown >= progress_bar.RARE:
            self.shown = time.monotonic()
            done = f"tasks {self.ended}" + (f"/{self.total}" if self.total else "")
            print("; ".join([done, *self.states.values()]), file=sys.stderr, flush=True)
