"""Files by path or by URL, opened, listed and joined alike; URLs such as s3://bucket/file are fsspec's."""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mgs.errors import UserError
from mgs.files import Fence
from mgs.images.decode import BadImage, read_bytes

SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # of one letter it is a drive of Windows
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
PAUSES = (0.5, 2.0)  # seconds before an image of a store is asked for again
MOST_NAMES = 1_000_000  # that one pattern with braces may stand for


class NoFile(BadImage):
    """There is no such file."""


def is_remote(place: str) -> bool:
    """Whether a place is a URL rather than a path."""
    return bool(SCHEME.match(place))


def remote_files(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the URL's path there. Raises `UserError`, also for a missing package."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:  # its text names the package
        raise UserError(f"{url}: {error}; run pip install for that package") from None
    except ValueError as error:
        raise UserError(f"{url}: no address that can be opened ({error}); check its beginning") from None
    return system, path


def open_place(place: str) -> BinaryIO:
    """A file, opened for reading bytes; it can be sought in. Raises `UserError`."""
    try:
        if not is_remote(place):
            return Path(place).open("rb")
        system, path = remote_files(place)
        stream: BinaryIO = system.open(path, "rb")
        return stream
    except FileNotFoundError:
        raise no_such_file(place) from None
    except UserError:
        raise
    except Exception as error:  # of stores' own packages, which have no common base
        raise UserError(f"{place}: {reason_of(error)}; check the file and your access") from None


def read_image_file(place: str) -> bytes:
    """An image file's content. Raises `BadImage`."""
    if not is_remote(place):
        return read_bytes(Path(place))
    for pause in (*PAUSES, None):
        try:
            system, path = remote_files(place)
            data: bytes = system.cat_file(path)
            return data
        except FileNotFoundError:
            raise NoFile(f"{place}: no such file") from None
        except UserError as error:
            raise BadImage(str(error)) from None
        except Exception as error:  # the network's, mostly
            if pause is None or isinstance(error, PermissionError):
                raise BadImage(f"{place}: {reason_of(error)}") from None
            time.sleep(pause)
    raise AssertionError


def no_such_file(place: str) -> UserError:
    """The error for a file that is not there; fsspec says so also of a server that does not answer."""
    return UserError(f"{place}: no such file{', or not reached' * is_remote(place)}; check its name")


def reason_of(error: Exception) -> str:
    """Why something could not be read."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"cannot be read ({text})"


def stamp(place: str) -> str:
    """A text that changes with a file's content: size and time, or what the store says. Raises `UserError`."""
    try:
        if is_remote(place):
            system, path = remote_files(place)
            return str(system.ukey(path))
        status = os.stat(place)
        return f"{status.st_size} {status.st_mtime_ns}"
    except FileNotFoundError:
        raise no_such_file(place) from None
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{place}: {reason_of(error)}; check the file and your access") from None


def is_folder(place: str) -> bool:
    """Whether a place is a folder; a URL is one that ends in a slash, and none that has a suffix."""
    if not is_remote(place):
        return os.path.isdir(place)
    if place.endswith("/") or "." in place.rpartition("/")[2]:  # so that a store need not be asked
        return place.endswith("/")
    system, path = remote_files(place)
    try:
        return bool(system.isdir(path))
    except Exception:  # a store that lists nothing still gives files
        return False


def files_below(folder: str) -> Iterator[str]:
    """All files below a folder, in no order; those of a store as URLs."""
    if not is_remote(folder):
        yield from (str(path) for path in Path(folder).rglob("*") if not path.is_dir())
        return
    system, path = remote_files(folder)
    try:
        yield from map(system.unstrip_protocol, system.find(path))
    except Exception as error:
        raise UserError(f"{folder}: {reason_of(error)}; check the address and your access") from None


def expand(word: str) -> list[str]:
    """The places that a word stands for: `{000..999}` counts, and `*`, `?`, `[...]`, `**` match what is there.

    A word without these stands for itself. A pattern that nothing fits gives no places.
    """
    if not is_remote(word) and os.path.exists(word):
        return [word]
    names = [word]
    while any(BRACES.search(name) for name in names):
        names = [counted for name in names for counted in count_out(name)]
        if len(names) > MOST_NAMES:
            raise UserError(f"{word}: stands for more than {MOST_NAMES:,} names; name a folder, or fewer")
    return [place for name in names for place in (match(name) if is_pattern(name) else [name])]


def count_out(name: str) -> list[str]:
    """The names that the first braces of a name stand for, with zeros in front as in the first number."""
    braces = BRACES.search(name)
    if not braces:
        return [name]
    first, last = int(braces[1]), int(braces[2])
    if last < first:
        raise UserError(f"{name}: counts down; write the smaller number first")
    if last - first >= MOST_NAMES:
        raise UserError(f"{name}: stands for more than {MOST_NAMES:,} names; name a folder, or fewer")
    width = len(braces[1])
    return [f"{name[: braces.start()]}{n:0{width}}{name[braces.end() :]}" for n in range(first, last + 1)]


def is_pattern(name: str) -> bool:
    """Whether a name is a pattern, and no file or address of such a name; a URL may have a `?` of its own."""
    if is_remote(name):
        return not name.startswith("http") and glob.has_magic(name)
    return glob.has_magic(name) and not os.path.exists(name)


def match(pattern: str) -> list[str]:
    """The places that fit a pattern, in order."""
    if not is_remote(pattern):
        return sorted(glob.glob(pattern, recursive=True))
    system, path = remote_files(pattern)
    try:
        return sorted(map(system.unstrip_protocol, system.glob(path)))
    except Exception as error:
        raise UserError(f"{pattern}: {reason_of(error)}; check the address and your access") from None


def parent_of(place: str) -> str:
    """The folder that a file is in."""
    return place.rpartition("/")[0] if is_remote(place) else (os.path.dirname(place) or ".")


def name_of(place: str) -> str:
    """A file's name without its folder."""
    return place.rpartition("/")[2] if is_remote(place) else os.path.basename(place)


def join(folder: str, name: str) -> str:
    """A file of a folder, as listings name it."""
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else str(Path(folder) / name)


class Root:
    """The folder that a table's image paths begin at, and that they must not lead out of."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.fence = None if is_remote(folder) else Fence(Path(folder))

    def place(self, name: str, where: str) -> str:
        """Where an image lies, by its name in a table; `UserError`, beginning with `where`, if that is outside."""
        if self.fence:
            place = os.path.join(self.folder, name.removeprefix("./")).removeprefix("./")
            inside = not is_remote(name) and self.fence.holds(place)
        else:
            place = f"{self.folder.rstrip('/')}/{name}"
            inside = not is_remote(name) and not name.startswith("/") and ".." not in name.split("/")
        if not inside:
            remedy = "put the files there, or name a folder that holds them all with --images"
            raise UserError(f"{where}: {name} leads out of {self.folder}; {remedy}")
        return place
