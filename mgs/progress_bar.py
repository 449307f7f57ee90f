"""Progress bars that are fit for logs, too."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

RARE = 60.0  # seconds between two lines of a log


def progress(items: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A tqdm bar with these options; if stderr is no terminal, at most one line a minute, and none in the first."""
    if not sys.stderr.isatty():
        options |= {"mininterval": RARE, "maxinterval": RARE, "delay": RARE}
    return tqdm(items, **options)
