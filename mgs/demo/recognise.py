"""Which pictures are the demo's. It imports nothing that draws: scoring asks at every start."""

from __future__ import annotations

import contextlib
import functools
import json
from pathlib import Path

PROTOCOL = "prompt-disjoint"
RECORD = Path("splits", PROTOCOL, "protocol.json")  # the mark of a folder of drawings


def is_drawing(path: Path) -> bool:
    """Whether a file lies in a dataset that `write_demo` drew."""
    return _is_demo(path.absolute().parent)


@functools.lru_cache(maxsize=1024)
def _is_demo(folder: Path) -> bool:
    """Whether a folder, or one above it, holds the protocol that `write_demo` leaves."""
    for root in (folder, *folder.parents):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if json.loads((root / RECORD).read_text(encoding="utf-8"))["dataset"] == "demo":
                return True
    return False
