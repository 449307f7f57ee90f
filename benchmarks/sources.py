"""What a source costs: python -m benchmarks.sources --root PATH_OF_AGIQA-3K [--clip NAME] [--images N] [--repeat N]

The same images and prompts as files, as a tar and as Parquet with the files' bytes, scored in turns in one process, and
with all files' content in memory already, which is the model's own rate. Prints images per second and processor time an
image (the medians of the turns), each beside the model's own, and how far the scores are apart. Processor time is what
a busy machine changes least.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mgs.dimensions import DIMENSIONS
from mgs.errors import exit_on_user_error
from mgs.machine import device_name
from mgs.scoring.scorer import Scorer
from mgs.scoring.shards import ScoreOptions, score_items
from mgs.sources.find import find_sources
from mgs.sources.item import Item
from mgs.sources.tables import TableOptions

ROW_GROUP = 100  # as Hugging Face writes images


def write_sources(items: Sequence[Item], folder: Path) -> dict[str, Callable[[], Iterable[Item]]]:
    """The items as files, a tar and Parquet; door -> what reads them."""
    with tarfile.open(folder / "images.tar", "w") as tar:
        for number, item in enumerate(items):
            contents = {Path(item.image).suffix: item.read(), ".txt": (item.prompt or "").encode()}
            for suffix, data in contents.items():
                member = tarfile.TarInfo(f"{number:06}{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    rows = {
        "image": [{"bytes": item.read(), "path": item.image} for item in items],
        "prompt": [item.prompt for item in items],
    }
    pq.write_table(pa.table(rows), folder / "images.parquet", row_group_size=ROW_GROUP)
    memory = [replace(item, data=item.read()) for item in items]
    archive = find_sources([str(folder / "images.tar")], TableOptions())
    parquet = find_sources([str(folder / "images.parquet")], TableOptions())
    return {"in memory": lambda: memory, "files": lambda: items, "tar": archive.items, "Parquet": parquet.items}


def measure(scorer: Scorer, items: Iterable[Item], options: ScoreOptions) -> tuple[float, float, np.ndarray]:
    """Images per second, processor seconds per image, and the scores, (images, dimensions)."""
    start, used = time.perf_counter(), time.process_time()
    scores = [score for _, score in score_items(scorer, items, options)]
    rate, cost = len(scores) / (time.perf_counter() - start), (time.process_time() - used) / len(scores)
    return (
        rate,
        cost,
        np.array([[getattr(s, d) for d in DIMENSIONS if d in scorer.scored] for s in scores], dtype=float),
    )


def main(argv: Sequence[str]) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="AGIQA-3K's folder: data.csv and images/")
    parser.add_argument("--clip", default="demo")
    parser.add_argument("--images", type=int, default=2982)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args(argv)
    table = find_sources([str(args.root / "data.csv")], TableOptions(images=str(args.root / "images")))
    items = list(table.items())[: args.images]
    scorer = Scorer.zero_shot(args.clip)
    options = ScoreOptions(None, scorer.prompt_style, None, str(scorer.engine.machine.dtype))
    rates: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    found: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        doors = write_sources(items, Path(folder))
        measure(scorer, items[:64], options)  # warm
        for _ in range(args.repeat):
            for door, read in doors.items():
                rate, cost, found[door] = measure(scorer, read(), options)
                rates.setdefault(door, []).append(rate)
                costs.setdefault(door, []).append(cost)
    own_rate, own_cost = (statistics.median(of["in memory"]) for of in (rates, costs))
    print(f"{len(items)} images, {scorer.name}, {device_name(scorer.engine.machine.device)}, {args.repeat} turns")
    for door, turns in rates.items():
        rate, cost = statistics.median(turns), statistics.median(costs[door])
        apart = np.abs(found[door] - found["files"]).max()
        print(
            f"{door:<10} {rate:7.1f} images/s, {rate / own_rate:6.1%}; {1000 * cost:6.2f} ms of processor an image, "
            f"{cost / own_cost - 1:+.1%}; scores apart {apart:.1e}"
        )


if __name__ == "__main__":
    exit_on_user_error(main, sys.argv[1:])
