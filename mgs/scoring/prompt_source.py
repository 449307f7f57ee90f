"""Where the prompts of images come from to which the user gives none: the files, their names, or files beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mgs.errors import UserError
from mgs.files import Fence
from mgs.images.generator_syntax import clean_generator_syntax
from mgs.images.metadata import MAX_PROMPT, as_text, split_parameters
from mgs.images.metadata import read_metadata as metadata_of
from mgs.images.text_fields import open_regular
from mgs.progress_bar import progress
from mgs.scoring.items import Item, Origin

MAX_BYTES = 1 << 20  # of a file beside an image
PROMPT_KEYS = ("prompt", "caption")
# What programs put at a file name's ends: counters, seeds, identifiers. Few digits may be words: "3 cats", "apollo 11".
NUMBER = r"(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?=[a-f]*\d)[0-9a-f]{8,}|0\d+|\d{5,})"
EDGES = re.compile(
    rf"\A(?:[\s_-]*{NUMBER}(?=[\s_-]|\Z))*[\s_-]*|(?:[\s_-]+{NUMBER}|[_-]\d+|\s*[(\[]\d+[)\]])*[\s_-]*\Z",
    re.IGNORECASE,
)


def fill_prompts(items: Sequence[Item], source: str | None, *, needed: bool = True) -> list[Item]:
    """The items, those without a prompt with the one that the source has for them; a prompt that is given stays.

    `source` is a key of `SOURCES`; None is metadata, or nothing if the model reads no prompts, that is, if they are not
    `needed`. Raises `UserError` for an unknown source, and for one that no item wants.
    """
    if source is not None and source not in SOURCES:
        raise UserError(f"--prompt-from {source}: no such place; choose from {', '.join(SOURCES)}")
    wanting = [item for item in items if item.prompt is None]
    if source not in (None, "none") and not wanting:
        raise UserError(f"--prompt-from {source}: all images have prompts already; leave it out, or those")
    read = SOURCES[source or ("metadata" if needed else "none")]
    if not wanting or read is None:
        return list(items)
    bar = progress(items, desc="looking for prompts", unit="image", delay=2, leave=False)
    return [fill(item, read) if item.prompt is None else item for item in bar]


def fill(item: Item, read: Callable[[Path], tuple[str, Origin] | None]) -> Item:
    """An item with what the reader finds, if that says something."""
    found = read(item.path)
    return replace(item, prompt=found[0], origin=found[1]) if found and found[0].strip() else item


def from_metadata(path: Path) -> tuple[str, Origin] | None:
    """The prompt inside an image file; generators' commands in it are not read."""
    found = metadata_of(path)
    return (found.prompt, Origin(f"the file ({found.tool})", clean_generator_syntax(found.prompt))) if found else None


def from_name(path: Path) -> tuple[str, Origin] | None:
    """An image's name, read as words without the numbers at its ends; None for a name of numbers."""
    name = EDGES.sub("", path.stem)
    text = as_text(" ".join(re.sub(r"[_\s]" if re.search(r"[_\s]", name) else "-", " ", name).split()))
    return (as_text(path.stem), Origin("the file's name", text)) if text else None


def from_sidecar(path: Path) -> tuple[str, Origin] | None:
    """The prompt in image.txt or image.json beside the image, unchanged unless it has AUTOMATIC1111's form."""
    fence = Fence(path.parent)
    for suffix, read in {".txt": read_text, ".json": read_json}.items():
        beside = path.with_suffix(suffix)
        if fence.holds(beside) and (text := read(small_text(beside))):
            prompt, _, known = split_parameters(text)
            prompt = as_text(prompt)
            return prompt, Origin(f"{suffix} beside the file", clean_generator_syntax(prompt) if known else prompt)
    return None


def small_text(path: Path) -> str:
    """A small text file's content; "" for what is none."""
    try:
        with open_regular(path) as stream:
            data = stream.read(MAX_BYTES + 1)
        return data.decode("utf-8-sig") if len(data) <= MAX_BYTES else ""
    except (OSError, ValueError):
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


SOURCES: dict[str, Callable[[Path], tuple[str, Origin] | None] | None] = {
    "none": None,
    "metadata": from_metadata,
    "filename": from_name,
    "sidecar": from_sidecar,
}
