"""What the drawn dataset's prompts ask for, how they are worded, and which part of the drawn world each belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

STYLES = ("keywords", "hybrid", "sentence")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
OBJECTS = (
    "circle", "square", "triangle", "star", "heart", "moon", "house", "tree", "fish", "flower", "cup", "mushroom",
)  # fmt: skip
BACKGROUNDS = {  # each with the preposition before it
    "striped background": "against",
    "dotted background": "against",
    "checkered background": "against",
    "brick wall": "against",
    "starry night sky": "under",
    "sunset sky": "under",
    "grassy meadow": "over",
    "calm sea": "over",
    "snowy mountain": "against",
}
LIGHTS = {"soft lighting": "soft lighting", "golden light": "golden light", "white frame": "a white frame"}
PARTS = {"pretraining": 64, "train": 20, "val": 4, "test": 12}  # shares of all contents, in percent

Thing = tuple[str, str]  # (colour, object)


@dataclass(frozen=True)
class Content:
    """What a prompt asks for: one to four things in reading order, perhaps a background and a kind of light."""

    things: tuple[Thing, ...]
    background: str | None = None
    light: str | None = None
    stacked: bool = False  # two things: one above the other, not side by side

    @property
    def elements(self) -> tuple[str, ...]:
        """Everything asked for, one text each: `red circle`, `striped background`, `soft lighting`."""
        return (*(" ".join(thing) for thing in self.things), *filter(None, (self.background, self.light)))


def part_of(elements: Iterable[str]) -> str:
    """The part of the world (a key of `PARTS`) that these elements belong to, in any order and wording.

    A pure function of the elements, so that no prompt of one part is ever a paraphrase of a prompt of another.
    """
    key = "|".join(sorted(elements)).encode()
    place = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") % 100
    for part, share in PARTS.items():
        if place < share:
            return part
        place -= share
    raise AssertionError("the shares of PARTS do not add up to 100")


def sample_content(rng: np.random.Generator, part: str) -> Content:
    """A content of that part; things of one picture differ in shape."""
    while True:
        count = int(rng.choice(4, p=(0.3, 0.34, 0.2, 0.16))) + 1
        shapes = rng.permutation(OBJECTS)[:count].tolist()
        content = Content(
            things=tuple((str(rng.choice(COLOURS)), shape) for shape in shapes),
            background=str(rng.choice(list(BACKGROUNDS))) if rng.random() < 0.75 else None,
            light=str(rng.choice(list(LIGHTS))) if rng.random() < 0.35 else None,
            stacked=bool(rng.random() < 0.5),
        )
        if part_of(content.elements) == part:
            return content


def with_article(thing: Thing | str) -> str:
    """`a red circle`, `an orange cup`."""
    noun = thing if isinstance(thing, str) else " ".join(thing)
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def write_prompt(content: Content, style: str) -> str:
    """Word a content in one of the three prompt styles."""
    if style == "keywords":
        return ", ".join(content.elements)
    things = [with_article(thing) for thing in content.things]
    return _write_hybrid(content, things) if style == "hybrid" else _write_sentence(content, things)


def _write_hybrid(content: Content, things: list[str]) -> str:
    """`a red circle near a blue star, striped background, soft lighting`: commas and prepositions."""
    joint = " above " if content.stacked else " near "
    pairs = [joint.join(things[:2]), " by ".join(things[2:])]
    rest = (content.background, content.light)
    if content.background and len(things) == 1:
        pairs[0] += f" on {with_article(content.background)}"
        rest = (None, content.light)
    return ", ".join(filter(None, (*pairs, *rest)))


def _write_sentence(content: Content, things: list[str]) -> str:
    """`A red circle floats above a blue star against a striped background, with soft lighting.`"""
    if len(things) == 1:
        text = things[0]
    elif len(things) == 2:
        text = (" floats above " if content.stacked else " is next to ").join(things)
    else:
        text = f"{' and '.join(things[:2])} float above {' and '.join(things[2:])}"
    if content.background:
        text += f" {BACKGROUNDS[content.background]} {with_article(content.background)}"
    if content.light:
        text += f", with {LIGHTS[content.light]}"
    return f"{text[0].upper()}{text[1:]}."
