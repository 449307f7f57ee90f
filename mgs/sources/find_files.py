"""Which files of a folder are images, and which of them can be read."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from PIL import Image

from mgs.images.decode import FORMATS
from mgs.images.plugins import PLUGINS
from mgs.sources.places import is_remote

UNKNOWN = {".svg", ".xcf", ".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf"}  # images, unknown to Pillow
NO_IMAGES = {".pdf", ".mpg", ".mpeg", ".h5", ".hdf", ".grib", ".bufr"}  # of what Pillow knows


@functools.cache
def image_suffixes() -> dict[str, bool]:
    """The suffixes of image files, and whether Pillow alone reads them."""
    registered = {suffix.lower(): kind for suffix, kind in Image.registered_extensions().items()}
    known = (registered.keys() - NO_IMAGES) | PLUGINS.keys() | UNKNOWN
    return {suffix: registered.get(suffix) in (*FORMATS, "MPO") for suffix in known}  # MPO: several JPEGs in one


def suffix_of(name: str) -> str:
    """A name's suffix in lower case, with its dot; "" where it has none."""
    return PurePosixPath(name).suffix.lower()


def is_image(name: str) -> bool:
    """Whether a file is an image by its suffix, also one that cannot be read here."""
    return suffix_of(name) in image_suffixes()


def is_hidden(name: str, named: str = "") -> bool:
    """Whether a path has a hidden part, or macOS's folder of an unpacked archive, that `named` does not have."""
    if is_remote(name):
        name = name.partition("://")[2]
    parts = PurePosixPath(name).parts
    there = PurePosixPath(named).parts
    return any((part.startswith(".") or part == "__MACOSX") and part not in (*there, "..") for part in parts)


def choose_images(files: Iterable[str]) -> tuple[list[str], str]:
    """The images among files, by suffix, in order; and a count of the unreadable ones by format, with the remedy."""
    images = [file for file in files if is_image(file)]
    counts = Counter(map(suffix_of, images))
    readable = {
        suffix for suffix in counts if image_suffixes()[suffix] or (suffix in PLUGINS and PLUGINS[suffix].ready())
    }
    others = [
        f"{count} {suffix} ({PLUGINS[suffix].remedy if suffix in PLUGINS else 'convert to PNG or JPEG'})"
        for suffix, count in sorted(counts.items())
        if suffix not in readable
    ]
    return sorted(file for file in images if suffix_of(file) in readable), ", ".join(others)
