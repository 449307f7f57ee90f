"""What tars and zips hold, member by member; damage is one error, whatever Python's readers make of it."""

from __future__ import annotations

import errno
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, NamedTuple, Self, TypeVar

from mgs.images.decode import MAX_BYTES
from mgs.sources.find_files import is_hidden, is_image
from mgs.sources.places import open_place

T = TypeVar("T")
TEXTS = ("txt", "json")  # kinds of members in which a prompt may be, in this order
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
END: Any = tarfile.EOFHeaderError  # type: ignore[attr-defined]  # how Python's tar says that the end mark is reached


class Damaged(Exception):
    """An archive that cannot be read any further."""


class Member(NamedTuple):
    """An image or a text of an archive."""

    name: str
    read: Callable[[], bytes]  # to be called before the next member is taken; raises `Damaged` or `OSError`
    problem: str = ""  # why there is nothing to read


def kind_of(name: str) -> str:
    """What follows a name's last dot, in lower case."""
    return name.rpartition(".")[2].lower()


def read_members(file: str) -> Iterator[Member]:
    """The images and texts of an archive, in its order; hidden ones and other files are passed over.

    Raises `UserError`, `Damaged` where the archive is, and `OSError` where it cannot be reached any more.
    """
    with open_place(file) as stream:
        members = read_zip(stream) if file.lower().endswith(".zip") else read_tar(stream)
        while member := or_damaged(partial(next, members, None)):
            if (kind_of(member.name) in TEXTS or is_image(member.name)) and not is_hidden(member.name):
                yield member._replace(read=partial(or_damaged, member.read))


def or_damaged(read: Callable[[], T]) -> T:
    """What `read` returns. Raises `Damaged`, or an `OSError` where the file cannot be reached.

    On damage, tarfile and zipfile raise what they like: also TypeError, or an `OSError` for a place before the file.
    """
    try:
        return read()
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise Damaged(" ".join(str(error).split()) or type(error).__name__) from None


class CheckedHeader(tarfile.TarInfo):
    """A member's header; a damaged one is an error, where Python's tar would end as if it were the last."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        """The next header. Raises `ReadError`; tar's end mark is no damage."""
        try:
            return super().fromtarfile(tar)
        except END:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def read_tar(stream: BinaryIO) -> Iterator[Member]:
    """A tar's files and links, as they come; it may be compressed."""
    with tarfile.open(fileobj=stream, mode="r|*", tarinfo=CheckedHeader) as tar:
        for entry in tar:
            link = "a link within the tar, which is read from front to back; pack the file itself"
            problem = link if entry.islnk() or entry.issym() else too_large(entry.size)
            if entry.isfile() or problem:
                yield Member(entry.name, partial(read_entry, tar, entry), problem)
            tar.members.clear()  # type: ignore[attr-defined]  # they would hold all headers


def read_entry(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    """A file's content. Raises `ReadError` where the tar ends in it."""
    content = tar.extractfile(entry)
    assert content is not None  # it is a file
    data = content.read()
    if len(data) < entry.size:
        raise tarfile.ReadError(f"{entry.name} ends early")
    return data


def too_large(size: int) -> str:
    """Why a file of this size is not read; "" for one that is."""
    return f"{size / 1e9:.1f} GB, more than any picture that can be read" if size > MAX_BYTES else ""


def read_zip(stream: BinaryIO) -> Iterator[Member]:
    """A zip's files, folder by folder and sample by sample; in each folder a lone JSON first.

    That is DiffusionDB's, which has the prompts of all images there.
    """
    with zipfile.ZipFile(stream) as archive:
        folders: dict[str, dict[str, list[zipfile.ZipInfo]]] = {}
        for entry in archive.infolist():
            if not entry.is_dir():
                samples = folders.setdefault(entry.filename.rpartition("/")[0], {})
                samples.setdefault(key_of(entry.filename), []).append(entry)
        for samples in folders.values():
            entries = [entry for sample in samples.values() for entry in sample]
            tables = [entry for entry in entries if kind_of(entry.filename) == "json"]
            if len(tables) == 1:
                entries.sort(key=lambda entry: entry is not tables[0])
            for entry in entries:
                yield Member(entry.filename, partial(archive.read, entry), too_large(entry.file_size))


def key_of(name: str) -> str:
    """What the members of a sample have in common: their name up to the first dot behind the last slash."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}"
