"""Where the prompts of images come from to which the user gives none: the files, their names, or files beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from mgs.errors import UserError
from mgs.files import Fence
from mgs.images.generator_syntax import clean_generator_syntax
from mgs.images.metadata import MAX_PROMPT, as_text, read_metadata, split_parameters
from mgs.images.text_fields import open_regular
from mgs.sources.item import Item, Origin
from mgs.sources.places import NoFile, is_remote, read_image_file

Finder: TypeAlias = "Callable[[Item, bytes | None], tuple[str, Origin] | None]"  # from an item and its file's content
MAX_BYTES = 1 << 20  # of a file beside an image
PROMPT_KEYS = ("prompt", "caption")
# What programs put at a file name's ends: counters, seeds, identifiers. Few digits may be words: "3 cats", "apollo 11".
NUMBER = r"(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?=[a-f]*\d)[0-9a-f]{8,}|0\d+|\d{5,})"
EDGES = re.compile(
    rf"\A(?:[\s_-]*{NUMBER}(?=[\s_-]|\Z))*[\s_-]*|(?:[\s_-]+{NUMBER}|[_-]\d+|\s*[(\[]\d+[)\]])*[\s_-]*\Z",
    re.IGNORECASE,
)


def choose_prompts(source: str | None, *, wanted: bool, needed: bool) -> str | None:
    """Where the prompts of images are looked for to which none is given, a key of `FINDERS`; None for nowhere.

    `source` is a key of `FINDERS`; None is metadata, or nothing if the model reads no prompts, that is, if they are not
    `needed`. Raises `UserError` for an unknown source, and for one where no prompt is `wanted`, all being given.
    """
    if source is not None and source not in FINDERS:
        raise UserError(f"--prompt-from {source}: no such place; choose from {', '.join(FINDERS)}")
    if source not in (None, "none") and not wanted:
        raise UserError(f"--prompt-from {source}: all images have prompts already; leave it out, or those")
    chosen = source or ("metadata" if needed else "none")
    return chosen if wanted and FINDERS[chosen] else None


def fill_prompt(item: Item, find: Finder | None, content: bytes | None) -> Item:
    """An item with the prompt that is found, if it has none and that says something; `content` is its file's."""
    found = find(item, content) if find and item.prompt is None else None
    return replace(item, prompt=found[0], origin=found[1]) if found and found[0].strip() else item


def from_metadata(item: Item, content: bytes | None) -> tuple[str, Origin] | None:
    """The prompt inside an image file; generators' commands in it are not read."""
    found = read_metadata(content) if content else None
    return (found.prompt, Origin(f"the file ({found.tool})", clean_generator_syntax(found.prompt))) if found else None


def from_name(item: Item, content: bytes | None) -> tuple[str, Origin] | None:
    """An image's name, read as words without the numbers at its ends; None for a name of numbers."""
    stem = PurePosixPath(item.image).stem
    name = EDGES.sub("", stem)
    text = as_text(" ".join(re.sub(r"[_\s]" if re.search(r"[_\s]", name) else "-", " ", name).split()))
    return (as_text(stem), Origin("the file's name", text)) if text else None


def from_sidecar(item: Item, content: bytes | None) -> tuple[str, Origin] | None:
    """The prompt in image.txt or image.json beside the image, unchanged unless it has AUTOMATIC1111's form."""
    for suffix, read in {".txt": read_text, ".json": read_json}.items():
        if text := read(decode_text(read_beside(item.place, suffix))):
            prompt, _, known = split_parameters(text)
            prompt = as_text(prompt)
            return prompt, Origin(f"{suffix} beside the file", clean_generator_syntax(prompt) if known else prompt)
    return None


def read_beside(place: str, suffix: str) -> bytes:
    """The content of the file that has an image's name with another suffix; nothing for what is none.

    Raises `BadImage` where a store does not answer.
    """
    if not place:
        return b""
    try:
        if is_remote(place):
            folder, slash, name = place.rpartition("/")
            return read_image_file(f"{folder}{slash}{PurePosixPath(name).stem}{suffix}")
        beside = Path(place).with_suffix(suffix)
        if not Fence(beside.parent).holds(beside):
            return b""
        with open_regular(beside) as stream:
            return stream.read(MAX_BYTES + 1)
    except (OSError, ValueError, NoFile):
        return b""


def decode_text(data: bytes) -> str:
    """A small text file's content; "" for what is none."""
    try:
        return data.decode("utf-8-sig") if len(data) <= MAX_BYTES else ""
    except ValueError:
        return ""


def read_text(text: str) -> str:
    """A text as a prompt; "" for one that is too long."""
    text = as_text(text)
    return text if len(text) <= MAX_PROMPT else ""


def read_json(text: str) -> str:
    """The prompt that a JSON object names."""
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    texts = [read_text(content.get(key, "")) for key in PROMPT_KEYS] if isinstance(content, dict) else []
    return next(filter(None, texts), "")


FINDERS: dict[str, Finder | None] = {
    "none": None,
    "metadata": from_metadata,
    "filename": from_name,
    "sidecar": from_sidecar,
}
