"""Which columns of a table hold images, their names and their prompts: by their names, or as the user says."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mgs.datasets.tables import name_columns
from mgs.errors import UserError
from mgs.safe_text import printable

ROLES = ("image", "prompt", "name")
IMAGES = (  # the first of these that a table has
    *("image", "file_name", "image_path", "img_path", "path", "filename", "img", "jpg", "jpeg", "png", "webp"),
    *("image_bytes", "bytes", "image_name", "name"),
)
PROMPTS = ("prompt", "caption", "text", "txt", "positive_prompt", "p", "conditioning")
NAMES = ("key", "__key__", "uid", "id", "image_id")  # of images that are bytes; a file's name is its place


@dataclass(frozen=True)
class Columns:
    """The columns of images, one or several to a row; of their names, as many or none; and of the row's prompt."""

    images: tuple[str, ...]
    prompt: str | None = None
    names: tuple[str, ...] = ()
    folder: str | None = None  # the column of DiffusionDB's numbered folders

    def all(self) -> list[str]:
        """Their names, each once."""
        return list(dict.fromkeys([*self.images, *self.names, *filter(None, (self.prompt, self.folder))]))


LAYOUTS = (  # tables that are known by their columns
    Columns(("jpg_0", "jpg_1"), "caption", ("image_0_uid", "image_1_uid")),  # Pick-a-Pic
    Columns(("path1", "path2"), "prompt"),  # HPDv3
    Columns(("image_name",), "prompt", folder="part_id"),  # DiffusionDB's metadata
)


def parse_columns(text: str | None) -> dict[str, str]:
    """`image=file_name,prompt=caption` as a dict. Raises `UserError`."""
    if not text:
        return {}
    asked = {}
    for word in text.split(","):
        role, equals, column = (part.strip() for part in word.partition("="))
        if role not in ROLES or not equals or not column or role in asked:
            raise UserError(f"--columns {text}: {word!r} is wrong; write image=COLUMN,prompt=COLUMN,name=COLUMN")
        asked[role] = column
    return asked


def choose_columns(found: Sequence[str], asked: Mapping[str, str], where: str) -> Columns:
    """The columns that are asked for, those of a known layout, or those with the likeliest names.

    Upper and lower case are alike. What is not called image or prompt is said on stderr. Raises `UserError`.
    """
    by_name: dict[str, list[str]] = {}
    for name in found:
        by_name.setdefault(name.strip().casefold(), []).append(name)

    def one(name: str) -> str:
        names = by_name.get(name.casefold(), [])
        if len(names) != 1:
            problem, remedy = (f"{len(names)} columns", "; rename one") if names else ("no column", "")
            raise UserError(f"{where}: {problem} {name!r}; found columns {name_columns(found)}{remedy}")
        return names[0]

    def first(names: Sequence[str]) -> str | None:
        return next((one(name) for name in names if name in by_name), None)

    if not asked:
        for layout in LAYOUTS:
            if set(layout.all()) <= by_name.keys() and "image" not in by_name:
                names = tuple(map(one, layout.names))
                folder = layout.folder and one(layout.folder)
                return Columns(tuple(map(one, layout.images)), one(str(layout.prompt)), names, folder)
    image = one(asked["image"]) if "image" in asked else first(IMAGES)
    if image is None:
        remedy = "one must be image, or name it with --columns image=COLUMN"
        raise UserError(f"{where}: found columns {name_columns(found)}; {remedy}")
    prompt = one(asked["prompt"]) if "prompt" in asked else first([name for name in PROMPTS if name != image])
    key = one(asked["name"]) if "name" in asked else first([name for name in NAMES if name != image])
    guesses = [(role, c) for role, c in (("image", image), ("prompt", prompt)) if c and role not in asked]
    if told := [f"{role} from {column!r}" for role, column in guesses if column.casefold() != role]:
        print(printable(f"{where}: {', '.join(told)}; --columns says otherwise"), file=sys.stderr)
    if prompt is None and (alike := [column for name in by_name if "prompt" in name for column in by_name[name]]):
        print(printable(f"{where}: no prompts read; --columns prompt={alike[0]} reads them"), file=sys.stderr)
    return Columns((image,), prompt, (key,) if key else ())
