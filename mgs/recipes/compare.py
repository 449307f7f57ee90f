"""Compare tested runs: python test.py --compare RUN RUN [RUN ...], each with the first on its dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from mgs.errors import UserError
from mgs.evaluation.leaderboard import write_leaderboard
from mgs.evaluation.tested_runs import read_tested_run

COMPARISON = "comparison"  # the folder beside the runs


def compare(folders: Sequence[Path]) -> None:
    """Print the leaderboard's tables, and leave them beside the runs."""
    folders = [folder for folder in folders if folder.resolve().name != COMPARISON]  # runs/* names it too
    names = [folder.resolve().name for folder in folders]
    if repeated := [folder for folder, name in zip(folders, names, strict=True) if names.count(name) > 1]:
        problem = "is named twice, or has another's name"
        raise UserError(f"--compare: {repeated[0]} {problem}; name each run once, and rename one of two that are alike")
    place = folders[0].absolute().parent / COMPARISON
    tqdm.write(write_leaderboard([read_tested_run(folder) for folder in folders], place))
    tqdm.write(f"tables, plots and page: {place}")
