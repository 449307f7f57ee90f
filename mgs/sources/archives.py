"""Images in tars and zips, as WebDataset, img2dataset and DiffusionDB pack them: `000.jpg`, `000.txt`, `000.json`."""

from __future__ import annotations

import errno
import json
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Self

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
# RuntimeError: of an encrypted zip, or one packed in a way that Python lacks
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


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
        key, sample = None, list[Member]()
        given: dict[str, str] = {}  # DiffusionDB's prompts by the images' names
        try:
            for name, read in read_members(self.file):
                folder, _, base = name.rpartition("/")
                stem = f"{folder}/{base.partition('.')[0]}"
                if key is not None and stem != key:
                    yield from self.items_of(sample, given)
                    sample = []
                key = stem
                sample.append((name, read()))
            yield from self.items_of(sample, given)
        except OSError as error:
            raise UserError(f"{self.file}: {reason_of(error)}; --resume continues when it can be read") from None
        except DAMAGE as error:
            if self.prompt is not None or any(suffix_of(name) in TEXTS for name, _ in sample):  # or a text may be lost
                yield from self.items_of(sample, given)
            yield Item(self.file, problem=f"damaged ({error}) behind the images listed before this row")

    def items_of(self, sample: list[Member], given: dict[str, str]) -> Iterator[Item]:
        """The images of the members that share a name up to its first dot."""
        texts = {suffix_of(name): data for name, data in sample}
        prompt = self.prompt
        if prompt is None:
            found = (read(decode_text(texts[kind])) for kind, read in TEXTS.items() if kind in texts)
            prompt = next(filter(None, found), None)
        if "json" in texts and prompt is None:
            given.update(read_part(texts["json"]))
        for name, data in sample:
            if is_image(name):
                base = name.rpartition("/")[2]
                yield Item(f"{self.file}/{name}", "", given.get(base) if prompt is None else prompt, data)


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
        yield from read_zip(stream) if file.lower().endswith(".zip") else read_tar(stream)


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


def read_packed(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """A member's content. Raises `BadZipFile`, also where the list of members points to no place in the file."""
    try:
        return archive.read(member)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise zipfile.BadZipFile(f"{member.filename}: {error}") from None


def read_zip(stream: BinaryIO) -> Iterator[Unread]:
    """A zip's members; a lone JSON first, since DiffusionDB's has the prompts of all the others."""
    with zipfile.ZipFile(stream) as archive:
        members = [one for one in archive.infolist() if is_wanted(one.filename, one.file_size)]
        texts = [one for one in members if suffix_of(one.filename) == "json"]
        if len(texts) == 1:
            members = [*texts, *(one for one in members if one is not texts[0])]
        for member in members:
            yield member.filename, partial(read_packed, archive, member)
