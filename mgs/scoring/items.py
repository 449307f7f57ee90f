"""The images to score, from files, folders, patterns and tables, with the prompts that the user gives."""

from __future__ import annotations

import glob
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mgs.datasets.cells import to_record
from mgs.datasets.tables import decode_csv, name_columns, read_header, read_rows, without_blank
from mgs.errors import UserError
from mgs.files import Fence
from mgs.images.decode import FORMATS, is_url
from mgs.images.plugins import PLUGINS
from mgs.safe_text import printable

UNKNOWN = {".svg", ".xcf", ".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf"}  # images, unknown to Pillow
NO_IMAGES = {".pdf", ".mpg", ".mpeg", ".h5", ".hdf", ".grib", ".bufr"}  # of what Pillow knows


@dataclass(frozen=True)
class Origin:
    """Where a prompt is from that the user did not give, and what the model reads of it."""

    place: str
    read: str


@dataclass(frozen=True)
class Item:
    """One image to score, as the output names it, and where it lies."""

    image: str
    path: Path
    prompt: str | None
    origin: Origin | None = None  # None for the user's prompt, which is read as it is

    @property
    def text(self) -> str | None:
        """What the model reads."""
        return self.origin.read if self.origin else self.prompt


def collect_images(words: Sequence[str], prompt: str | None) -> list[Item]:
    """Files, folders (all images below, by suffix) and patterns, in order, all with one prompt.

    Hidden files and folders are passed over, unless they are named. Images in a folder whose format cannot be read
    are counted on stderr.
    """
    items = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            found, left_out = find_images(path)
            if not found:
                problem = f"no image that can be read ({left_out})" if left_out else "no image"
                raise UserError(f"{path}: {problem} in this folder; name another, or the files themselves")
            if left_out:
                print(f"{printable(word)}: left out {left_out}", file=sys.stderr)
        elif glob.has_magic(word) and not path.exists() and not is_url(word):
            matches = map(Path, glob.glob(word, recursive=True))
            found = sorted(p for p in matches if not p.is_dir() and not is_litter(p, path))
            if not found:
                raise UserError(f"{word}: no file fits this pattern; quote it if the shell changes it")
        else:
            items.append(Item(word, path, prompt))  # as it is written, also if it is a URL
            continue
        items += [Item(str(p), p, prompt) for p in found]
    return items


def find_images(folder: Path) -> tuple[list[Path], str]:
    """The images below a folder, by suffix, in order; and a count of the unreadable ones by format, with the remedy."""
    registered = {suffix.lower(): kind for suffix, kind in Image.registered_extensions().items()}
    readable = {suffix for suffix, kind in registered.items() if kind in (*FORMATS, "MPO")}  # several JPEGs in one
    known = (registered.keys() - NO_IMAGES) | PLUGINS.keys() | UNKNOWN
    files = [p for p in folder.rglob("*") if p.suffix.lower() in known and not p.is_dir() and not is_litter(p, folder)]
    counts = Counter(p.suffix.lower() for p in files)
    readable |= {suffix for suffix in counts if suffix in PLUGINS and PLUGINS[suffix].ready()}
    others = [
        f"{count} {suffix} ({PLUGINS[suffix].remedy if suffix in PLUGINS else 'convert to PNG or JPEG'})"
        for suffix, count in sorted(counts.items())
        if suffix not in readable
    ]
    return sorted(p for p in files if p.suffix.lower() in readable), ", ".join(others)


def is_litter(path: Path, named: Path) -> bool:
    """Whether a path has a hidden part, or macOS's folder of an unpacked archive, that `named` does not have."""
    return any((p.startswith(".") or p == "__MACOSX") and p not in named.parts for p in path.parts)


def read_items(table: str, folder: Path | None, prompt: str | None) -> list[Item]:
    """The rows of a CSV or .xlsx table with a column image and perhaps one prompt; "-" reads a CSV from stdin.

    Image paths begin at `folder`, by default at the table's own. `prompt` is for rows of a table without that column.
    """
    rows = without_blank(decode_csv(sys.stdin.buffer.read(), Path("stdin"))) if table == "-" else read_rows(Path(table))
    root = folder or (Path() if table == "-" else Path(table).parent)
    if not rows:
        raise UserError(f"{table}: empty; it must hold a header with a column image, and rows")
    header = read_header(rows[0])
    if header.count("image") != 1 or header.count("prompt") > 1:
        raise UserError(f"{table}: found columns {name_columns(header)}; one must be image, and one may be prompt")
    if prompt is not None and "prompt" in header:
        raise UserError(f"{table}: has a column prompt, so --prompt is not used; leave one of them out")
    items, fence = [], Fence(root)
    for line, cells in rows[1:]:
        record = to_record(header, cells, f"{table}:{line}")
        name = record["image"].strip().replace("\\", "/")  # as in tables to train on
        items.append(Item(name, root / name, record.get("prompt", prompt)))
        if not fence.holds(items[-1].path):
            remedy = "put the files there, or name a folder that holds them all with --images"
            raise UserError(f"{table}:{line}: {record['image']} leads out of {root}; {remedy}")
    return items
