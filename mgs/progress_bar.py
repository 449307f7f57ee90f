"""Progress bars that are fit for logs, too, and for a worker, whose bars another process shows."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from tqdm import tqdm

RARE = 60.0  # seconds between two lines of a log
OFTEN = 0.5  # seconds between two reports of a worker's bar
Listener = Callable[[str, float, float | None], None]
_listeners: list[Listener] = []


def progress(items: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A tqdm bar with these options; if stderr is no terminal, at most one line a minute, and none in the first."""
    if _listeners:
        return ReportedBar(items, **{**options, "file": io.StringIO(), "mininterval": OFTEN, "maxinterval": OFTEN})
    if not sys.stderr.isatty():
        options |= {"mininterval": RARE, "maxinterval": RARE, "delay": RARE}
    return tqdm(items, **options)


def report_progress_to(listener: Listener) -> None:
    """Draw no bars in this process from now on; `listener` gets description, count and total of each instead."""
    tqdm.set_lock(threading.RLock())  # tqdm's own is shared between processes, and would outlive one that is killed
    _listeners[:] = [listener]


class ReportedBar(tqdm):
    """A bar that is not drawn: what it would show goes to the listener."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if msg is None:  # else the bar is being wiped
            _listeners[0](self.desc.removesuffix(": "), self.n, self.total)
