"""The docs' picture of a leaderboard, from the JSON that a comparison left: SRCC with intervals, a panel per dimension.

python -m scripts.draw_leaderboard runs/comparison/leaderboard_MARK.json [docs/images/leaderboard.png] [GROUP]

GROUP is the number of the dataset and protocol to draw, from 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mgs.errors import UserError, exit_on_user_error
from mgs.evaluation.leaderboard_plots import draw_ranking
from mgs.evaluation.plots import png_bytes


def main(argv: Sequence[str]) -> None:
    """Draw one group, its panels side by side."""
    if not 1 <= len(argv) <= 3:
        raise UserError("draw_leaderboard: takes LEADERBOARD.json, and perhaps OUT.png and a number; see its docstring")
    record = Path(argv[0])
    out = Path(argv[1] if len(argv) > 1 else "docs/images/leaderboard.png")
    try:
        groups = json.loads(record.read_text(encoding="utf-8"))["groups"]
        group = groups[int(argv[2]) - 1 if len(argv) > 2 else 0]
        results = pd.DataFrame(group["results"]).astype({"value": float, "low": float, "high": float})
        label = str(group["protocol"])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{record}: not a leaderboard with such a group ({error!r}); compare runs first") from None
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(png_bytes(draw_ranking(results, across=True), label))


if __name__ == "__main__":
    exit_on_user_error(main, sys.argv[1:])
