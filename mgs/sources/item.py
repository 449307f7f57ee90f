"""`Item`: one image to score. `Shard`: a part of a source that is scored as one piece of work."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from mgs.images.decode import BadImage
from mgs.sources.places import is_remote, read_image_file

FEWEST, MOST = 512, 16_384  # images of a shard that is cut from files or a table
PARTS = 16  # that a source is cut into, within these limits


@dataclass(frozen=True)
class Origin:
    """Where a prompt is from that the user did not give, and what the model reads of it."""

    place: str
    read: str


@dataclass(frozen=True)
class Item:
    """One image to score: as the output names it, where its file lies or what that holds, and its prompt."""

    image: str
    place: str = ""  # a path or a URL; "" where `data` holds the file's content
    prompt: str | None = None  # None where none is given; blank where it is given that there is none
    data: bytes | None = field(default=None, repr=False)
    problem: str = ""  # why there is no image
    origin: Origin | None = None  # None for the user's prompt, which is read as it is

    @property
    def text(self) -> str | None:
        """What the model reads."""
        return self.origin.read if self.origin else self.prompt

    @property
    def label(self) -> str:
        """What messages call the image."""
        return self.place or self.image

    def read(self) -> bytes:
        """The file's content. Raises `BadImage`."""
        if self.problem:
            raise BadImage(f"{self.image}: {self.problem}")
        return read_image_file(self.place) if self.data is None else self.data


class Shard(Protocol):
    """Images that are scored as one piece of work, whose output is its receipt. Can be pickled, and read again."""

    @property
    def count(self) -> int | None:
        """How many images; None where only reading would tell."""

    @property
    def wants_prompts(self) -> bool:
        """Whether there may be images to which no prompt is given."""

    def fingerprint(self) -> str:
        """A hash that differs where images or prompts do. Raises `UserError` for a file that is not there."""

    def items(self) -> Iterator[Item]:
        """The images, the same ones in the same order each time."""


@dataclass(frozen=True)
class ListShard:
    """Images that were listed one by one."""

    listed: tuple[Item, ...]

    @property
    def count(self) -> int:
        """How many images."""
        return len(self.listed)

    @property
    def wants_prompts(self) -> bool:
        """Whether an image has no prompt."""
        return any(item.prompt is None for item in self.listed)

    def fingerprint(self) -> str:
        """A hash of names, places and prompts."""
        digest = hashlib.sha256()
        for item in self.listed:
            digest.update(json.dumps([item.image, absolute(item.place), item.prompt]).encode())
        return digest.hexdigest()

    def items(self) -> Iterator[Item]:
        """The images."""
        return iter(self.listed)


def shard_size(count: int) -> int:
    """How many images a shard has, of so many: enough that its beginning and end cost little."""
    return min(max(-(-count // PARTS), FEWEST), MOST)


def cut(parts: Iterable[Item | Shard], size: int) -> Iterator[Shard]:
    """Shards, where consecutive images are put together, `size` at a time."""
    waiting: list[Item] = []
    for part in parts:
        if isinstance(part, Item):
            waiting.append(part)
        if waiting and (len(waiting) == size or not isinstance(part, Item)):
            yield ListShard(tuple(waiting))
            waiting.clear()
        if not isinstance(part, Item):
            yield part
    if waiting:
        yield ListShard(tuple(waiting))


def hash_of(*facts: object) -> str:
    """A hash of facts, for a fingerprint."""
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


def absolute(place: str) -> str:
    """A path as a fingerprint has it; a URL as it is."""
    return place if is_remote(place) else os.path.abspath(place)
