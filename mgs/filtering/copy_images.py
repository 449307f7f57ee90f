"""Copy the images that a table names into one folder, under names that tell them apart."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mgs.errors import UserError
from mgs.files import whole_file
from mgs.images.decode import BadImage, is_url, open_image, read_bytes
from mgs.images.plugins import needed_plugin
from mgs.progress_bar import progress
from mgs.safe_text import printable

INSIDE = re.compile(r"\.(tar(\.\w+)?|tgz|zip|parquet|arrow)[^\w.]", re.IGNORECASE)  # in an image's name
NAMED = 3  # of many images


@dataclass(frozen=True)
class Copies:
    """What is to be copied where, and what cannot be."""

    targets: dict[Path, Path]  # by source
    missing: list[str]
    elsewhere: list[str]  # inside archives and tables, or at URLs


def plan_copies(names: Iterable[str], images: Path, folder: Path) -> Copies:
    """Where the images of a table go in `folder`; relative names begin at `images`. Changes nothing.

    An image that is named twice is copied once. Raises `UserError` if a file with other content is in the way.
    """
    sources: dict[Path, None] = {}  # an ordered set
    missing: list[str] = []
    elsewhere: list[str] = []
    for name in progress(dict.fromkeys(names), desc="looking for images", unit="image", delay=2, leave=False):
        path = Path(os.path.abspath(images / name))
        if path.is_file():
            sources[path] = None
        else:
            (elsewhere if INSIDE.search(name) or is_url(name) else missing).append(name)
    targets = {path: folder / end for path, end in shortest_ends(list(sources)).items()}
    taken = set(targets.values())
    bar = progress(targets.items(), desc="comparing", unit="image", delay=2, leave=False)
    in_the_way = [
        target
        for path, target in bar
        if not taken.isdisjoint(target.parents) or (target.exists() and not filecmp.cmp(path, target, shallow=False))
    ]
    if in_the_way:
        first = in_the_way[0].relative_to(folder)
        what = f"other content is there under {len(in_the_way):,} of the images' names, such as {first}"
        raise UserError(f"--copy {folder}: {what}; name another folder")
    return Copies(targets, missing, elsewhere)


def shortest_ends(paths: Sequence[Path]) -> dict[Path, Path]:
    """Each path's name, with as many of its folders as tell it from the others; some disks tell none by case."""
    ends: dict[Path, Path] = {}
    waiting, length, longest = list(paths), 1, max((len(path.parts) for path in paths), default=0)
    while waiting:
        groups = defaultdict(list)
        for path in waiting:
            drive = path.drive.rstrip(":")
            end = Path(*[part for part in (drive, *path.parts[1:]) if part][-length:])
            groups[str(end).casefold()].append((path, end))
        unique = {path: end for group in groups.values() for path, end in group if len(group) == 1 or length > longest}
        ends |= unique
        waiting = [path for path in waiting if path not in unique]
        length += 1
    return {path: ends[path] for path in paths}


def copy_images(copies: Copies) -> tuple[int, list[str]]:
    """Copy as planned, each file wholly or not at all; returns how many are there now, and the files not copied.

    What is no image is not copied: a table from a stranger may name any file.
    """
    refused = []
    for path, target in progress(copies.targets.items(), desc="copying", unit="image", delay=2, leave=False):
        try:
            data = read_bytes(path)
        except BadImage:
            data = b""
        if not is_image(data):
            refused.append(str(path))
        elif not target.exists():
            with whole_file(target, durable=False) as temporary:
                temporary.write_bytes(data)
                shutil.copystat(path, temporary)
    return len(copies.targets) - len(refused), refused


def is_image(data: bytes) -> bool:
    """Whether bytes begin like an image that is scored."""
    try:
        return needed_plugin(data) is not None or bool(open_image(data))
    except Exception:  # decoders raise what they like
        return False


def list_problems(copies: Copies, refused: Sequence[str], folder: Path) -> list[str]:
    """A line for each reason why images were not copied."""
    reasons = (
        (copies.missing, "missing", "--images says where relative paths begin"),
        (copies.elsewhere, "inside archives or tables, or at URLs", "unpack or download them"),
        (refused, "not readable as images", "look at the files"),
    )
    return [
        f"{folder}: not copied, since {what}: {len(names):,}, such as {printable(', '.join(names[:NAMED]))}; {remedy}"
        for names, what, remedy in reasons
        if names
    ]
