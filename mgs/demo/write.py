"""The drawn dataset: pictures by pretend generators, with prompts and MOS that follow from what was drawn and damaged.

For a first run without data, and for tests. Its numbers are about drawings, never about real images.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mgs.demo.drawing import draw
from mgs.demo.generators import GENERATORS, make_mistakes, sample_damage, true_correspondence
from mgs.demo.prompts import STYLES, Content, sample_content, write_prompt
from mgs.demo.recognise import PROTOCOL, RECORD
from mgs.dimensions import MOS_MAX
from mgs.errors import UserError
from mgs.files import file_sha256, write_json
from mgs.progress_bar import progress

SIZES = {"train": 600, "val": 60, "test": 200}  # pictures
GENERATORS_PER_PROMPT = 3
RATERS, RATER_SPREAD = 12, 0.7  # a MOS is the mean of so many ratings, each with an error of this standard deviation
JPEG_QUALITY = 92


def rate(true_share: float, rng: np.random.Generator) -> float:
    """A MOS, 0-5: the mean rating of a panel that sees `true_share` (0-1) of what a perfect picture would have."""
    marks = 0.3 + 4.4 * true_share + rng.normal(0, RATER_SPREAD, RATERS)
    return round(float(marks.clip(0, MOS_MAX).mean()), 3)


@dataclass(frozen=True)
class _Job:
    """One picture to be drawn."""

    image: str
    content: Content
    style: str
    generator: str
    seed: tuple[int, ...]


def _plan(part: str, count: int, seed: int) -> Iterator[_Job]:
    """`count` pictures of a part; each prompt goes to several generators, each style comes up equally often."""
    key = int.from_bytes(hashlib.blake2b(part.encode(), digest_size=4).digest(), "big")
    rng = np.random.default_rng((seed, key))
    seen: set[tuple[str, ...]] = set()
    number = 0
    while number < count:
        content = sample_content(rng, part)
        if content.key in seen:
            continue
        seen.add(content.key)
        style = STYLES[len(seen) % len(STYLES)]
        for generator in rng.permutation(list(GENERATORS))[: min(GENERATORS_PER_PROMPT, count - number)].tolist():
            yield _Job(f"images/{generator}_{part}_{number:04d}.jpg", content, style, generator, (seed, key, number))
            number += 1


def write_demo(root: Path, *, seed: int = 7, sizes: Mapping[str, int] | None = None, workers: int = 2) -> None:
    """Draw the dataset into `root`, wholly or not at all: 860 pictures in about a minute on two cores.

    Writes `images/*.jpg`, and under `splits/prompt-disjoint/` the `protocol.json` and `1/{train,val,test}.csv` with the
    columns image (relative to `root`), prompt, prompt_style, quality, authenticity, correspondence (MOS, 0-5) and
    generator. `sizes` gives the number of pictures per part (default `SIZES`). Raises `UserError` if `root`
    is a file or a folder that is not empty: an older dataset is never overwritten.
    """
    root = Path(root)
    is_there = root.exists()
    if is_there and not root.is_dir():
        raise UserError(f"{root}: is a file; name a new folder for the demo")
    if is_there and any(root.iterdir()):
        raise UserError(f"{root}: has something in it already; remove it, or name a new folder for the demo")
    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".demo.", dir=root if is_there else root.parent))
    try:
        _write_parts(unfinished, seed, SIZES if sizes is None else sizes, workers)
        unfinished.chmod(0o755)  # mkdtemp lets only its owner read it
        if is_there:  # it stays, since it may be where the user is
            for folder in sorted(unfinished.iterdir()):  # the tables last
                folder.rename(root / folder.name)
        else:
            unfinished.rename(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_parts(folder: Path, seed: int, sizes: Mapping[str, int], workers: int) -> None:
    """Pictures, tables and protocol."""
    (folder / "images").mkdir()
    splits = folder / "splits" / PROTOCOL
    (splits / "1").mkdir(parents=True)
    jobs = [job for part, count in sizes.items() for job in _plan(part, count, seed)]
    with ThreadPoolExecutor(workers) as pool:
        drawing = pool.map(lambda job: _draw_job(job, folder), jobs)
        rows = list(progress(drawing, total=len(jobs), desc="drawing the demo", unit="picture"))
    table, start = pd.DataFrame(rows), 0
    content = hashlib.sha256()
    for part, count in sizes.items():
        path = splits / "1" / f"{part}.csv"
        table[start : start + count].to_csv(path, index=False)
        content.update(file_sha256(path).encode())
        start += count
    protocol = {"dataset": "demo", "protocol": PROTOCOL, "seed": seed, "sha256": content.hexdigest()}
    write_json(folder / RECORD, protocol)


def _draw_job(job: _Job, folder: Path) -> dict[str, str | float]:
    """Draw and save one picture; its row of the table."""
    rng = np.random.default_rng(job.seed)
    generator = GENERATORS[job.generator]
    drawn = make_mistakes(job.content, float(rng.beta(*generator.mistakes_law)), rng)
    damage = sample_damage(generator, rng)
    Image.fromarray(draw(drawn, damage, rng).pixels).save(folder / job.image, quality=JPEG_QUALITY)
    return {
        "image": job.image,
        "prompt": write_prompt(job.content, job.style),
        "prompt_style": job.style,
        "quality": rate(damage.quality, rng),
        "authenticity": rate(damage.authenticity, rng),
        "correspondence": rate(true_correspondence(job.content, drawn), rng),
        "generator": job.generator,
    }
