"""Images in tars and zips, as WebDataset, img2dataset and DiffusionDB pack them: `000.jpg`, `000.txt`, `000.json`."""

from __future__ import annotations

import errno
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Self, TypeVar

from mgs.errors import UserError
from mgs.images.decode import MAX_BYTES
from mgs.sources.find_files import is_hidden, is_image
from mgs.sources.find_prompt import decode_text, read_json, read_text
from mgs.sources.item import Item, absolute, hash_of
from mgs.sources.places import open_place, reason_of

Member = tuple[str, bytes]
Unread = tuple[str, Callable[[], bytes]]  # a member whose content has not been read
TEXTS: dict[str, Callable[[str], str]] = {"txt": read_text, "json": read_json}  # where a prompt is, in this order
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
MOST_MEMBERS = 64  # of a sample in memory, before a part of it is taken for a whole one
T = TypeVar("T")


class Damaged(Exception):
    """An archive that cannot be read any further."""


@dataclass(frozen=True)
class ArchiveShard:
    """An archive."""

    file: str
    stamp: str  # of its content, when the source was found
    prompt: str | None = None  # the user's, for all images

    @property
    def count(self) -> None:
        """Not known before it is read."""
        return None

    @property
    def wants_prompts(self) -> bool:
        """Whether the user gives no prompt: an image may have no text beside it."""
        return self.prompt is None

    def fingerprint(self) -> str:
        """A hash of the file's name, size and time, and the user's prompt."""
        return hash_of(absolute(self.file), self.stamp, self.prompt)

    def items(self) -> Iterator[Item]:
        """The images in the archive's order, each with the prompt that its text or JSON has.

        Where the archive is damaged, a last item says so. Raises `UserError` where it cannot be reached.
        """
        sample = list[Member]()
        given: dict[str, str] = {}  # DiffusionDB's prompts by the images' names
        try:
            for name, read in read_members(self.file):
                if sample and is_another(name, sample):
                    yield from self.items_of(sample, given)
                    sample = []
                sample.append((name, read()))
            yield from self.items_of(sample, given)
        except OSError as error:
            raise UserError(f"{self.file}: {reason_of(error)}; --resume continues when it can be read") from None
        except Damaged as error:
            if self.prompt is not None or any(suffix_of(name) in TEXTS for name, _ in sample):  # or a text may be lost
                yield from self.items_of(sample, given)
            yield Item(self.file, problem=f"damaged ({error}) behind the images listed before this row")

    def items_of(self, sample: list[Member], given: dict[str, str]) -> Iterator[Item]:
        """The images of a sample. A text is an image's if it has its name, or that up to the first dot."""
        texts = {name.lower(): data for name, data in sample if suffix_of(name) in TEXTS}
        for name, data in sample:
            if is_image(name):
                prompt = self.prompt
                if prompt is None:
                    stems = (name.rpartition(".")[0], key_of(name))
                    names = [(f"{stem}.{kind}".lower(), read) for stem in stems for kind, read in TEXTS.items()]
                    found = (read(decode_text(texts[text])) for text, read in names if text in texts)
                    prompt = next(filter(None, found), given.get(name.rpartition("/")[2]))
                yield Item(f"{self.file}/{name}", "", prompt, data)
            elif suffix_of(name) == "json" and self.prompt is None:
                given.update(read_part(data))


def key_of(name: str) -> str:
    """What the members of a sample have in common: their name up to the first dot behind the last slash."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}"


def is_another(name: str, sample: list[Member]) -> bool:
    """Whether a member begins another sample. One of many members ends where a name up to the last dot does."""
    last = sample[-1][0]
    if key_of(name) != key_of(last):
        return True
    return len(sample) >= MOST_MEMBERS and name.rpartition(".")[0] != last.rpartition(".")[0]


def suffix_of(name: str) -> str:
    """What follows a name's last dot, in lower case."""
    return name.rpartition(".")[2].lower()


def read_part(data: bytes) -> dict[str, str]:
    """DiffusionDB's prompts of a part, by the images' names; none where the JSON is another one."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    facts = content.items() if isinstance(content, dict) else ()
    return {name: one["p"] for name, one in facts if isinstance(one, dict) and isinstance(one.get("p"), str)}


def read_members(file: str) -> Iterator[Unread]:
    """The members of an archive that are images or texts, in its order; each must be read before the next is taken."""
    with open_place(file) as stream:
        members = read_zip(stream) if file.lower().endswith(".zip") else read_tar(stream)
        while member := or_damaged(partial(next, members, None)):
            name, read = member
            yield name, partial(or_damaged, read)


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


def is_wanted(name: str, size: int) -> bool:
    """Whether a member is an image or a text, of a size that can be read."""
    kind = suffix_of(name)
    return (kind in TEXTS or is_image(name)) and size <= MAX_BYTES and not is_hidden(name)


END: Any = tarfile.EOFHeaderError  # type: ignore[attr-defined]  # how Python's tar says that the end mark is reached


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


def read_tar(stream: BinaryIO) -> Iterator[Unread]:
    """A tar's members, as they come; it may be compressed."""
    with tarfile.open(fileobj=stream, mode="r|*", tarinfo=CheckedHeader) as tar:
        for member in tar:
            if member.isfile() and is_wanted(member.name, member.size):
                yield member.name, partial(read_member, tar, member)
            tar.members.clear()  # type: ignore[attr-defined]  # they would hold all headers


def read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """A member's content. Raises `ReadError` where the tar ends in it."""
    content = tar.extractfile(member)
    assert content is not None  # it is a file
    data = content.read()
    if len(data) < member.size:
        raise tarfile.ReadError(f"{member.name} ends early")
    return data


def read_zip(stream: BinaryIO) -> Iterator[Unread]:
    """A zip's members; a lone JSON first, since DiffusionDB's has the prompts of all the others."""
    with zipfile.ZipFile(stream) as archive:
        members = [one for one in archive.infolist() if is_wanted(one.filename, one.file_size)]
        texts = [one for one in members if suffix_of(one.filename) == "json"]
        if len(texts) == 1:
            members = [*texts, *(one for one in members if one is not texts[0])]
        for member in members:
            yield member.filename, partial(archive.read, member)
