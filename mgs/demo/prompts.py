"""What the drawn dataset's prompts ask for, how they are worded, and which part of the drawn world each belongs to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from mgs.demo.light import LIGHTS
from mgs.demo.media import MEDIA
from mgs.demo.scenes import SCENES
from mgs.demo.things.painting import COLOURS as PAINTS
from mgs.demo.things.table import THINGS

STYLES = ("keywords", "hybrid", "sentence")
COLOURS = tuple(PAINTS)
NUMBERS = ("no", "one", "two", "three", "four", "five")
RELATIONS = {"above": "below", "below": "above", "left of": "right of", "right of": "left of", "behind": None}
PARTS = {"pretraining": 64, "train": 20, "val": 4, "test": 12}  # shares of all contents, in percent


@dataclass(frozen=True)
class Group:
    """Things of one kind and colour, one to five of them."""

    colour: str
    thing: str
    count: int = 1

    @property
    def words(self) -> str:
        """`red car`, `three red cars`."""
        if self.count == 1:
            return f"{self.colour} {self.thing}"
        return f"{NUMBERS[self.count]} {self.colour} {self.plural}"

    @property
    def plural(self) -> str:
        """`cars`, `fish`."""
        return THINGS[self.thing].plural or f"{self.thing}s"

    @property
    def phrase(self) -> str:
        """`a red car`, `three red cars`."""
        return with_article(self.words) if self.count == 1 else self.words


@dataclass(frozen=True)
class Content:
    """What a prompt asks for: one to three groups of things, and perhaps how and where they are shown.

    `relation` is where the first group is, as seen from the second.
    """

    groups: tuple[Group, ...]
    relation: str | None = None
    scene: str | None = None
    medium: str | None = None
    light: str | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """What is asked for, the same however it is worded: `x below y` is `y above x`."""
        pair = tuple(group.words for group in self.groups[:2])
        turned = self.relation in ("below", "right of")
        relation = RELATIONS[str(self.relation)] if turned else self.relation
        related = f" {relation} ".join(reversed(pair) if turned else pair) if relation else None
        return tuple(sorted((*(group.words for group in self.groups), *filter(None, (related, *self.setting)))))

    @property
    def setting(self) -> tuple[str | None, str | None, str | None]:
        """Scene, medium and light."""
        return self.scene, self.medium, self.light


def part_of(content: Content) -> str:
    """The part of the world (a key of `PARTS`) that a content belongs to.

    A pure function of its key, so that no prompt of one part is ever a paraphrase of a prompt of another.
    """
    key = "|".join(content.key).encode()
    place = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") % 100
    for part, share in PARTS.items():
        if place < share:
            return part
        place -= share
    raise AssertionError("the shares of PARTS do not add up to 100")


def sample_content(rng: np.random.Generator, part: str) -> Content:
    """A content of that part; the groups of one picture differ in kind and in colour."""
    while True:
        content = sample_any(rng)
        if part_of(content) == part:
            return content


def sample_any(rng: np.random.Generator) -> Content:
    """A content of any part."""
    groups = int(rng.choice(3, p=(0.3, 0.5, 0.2))) + 1
    things = rng.permutation(list(THINGS))[:groups].tolist()
    colours = rng.permutation(COLOURS)[:groups].tolist()
    counts = [sample_count(rng, groups) for _ in things]
    return Content(
        groups=tuple(map(Group, colours, things, counts)),
        relation=str(rng.choice(list(RELATIONS))) if groups == 2 and rng.random() < 0.7 else None,
        scene=str(rng.choice(list(SCENES))) if rng.random() < 0.7 else None,
        medium=str(rng.choice(list(MEDIA))) if rng.random() < 0.2 else None,
        light=str(rng.choice(list(LIGHTS))) if rng.random() < 0.2 else None,
    )


def sample_count(rng: np.random.Generator, groups: int) -> int:
    """How many things a group has; fewer where there are more groups."""
    most = {1: 5, 2: 3, 3: 2}[groups]
    return 1 if rng.random() < 0.6 else int(rng.integers(2, most + 1))


def with_article(noun: str) -> str:
    """`a red car`, `an orange cup`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def write_prompt(content: Content, style: str) -> str:
    """Word a content in one of the three prompt styles."""
    if style == "keywords":
        things = [group.words for group in content.groups]
        return ", ".join(filter(None, (*relate(things, content, ""), *content.setting)))
    things = [group.phrase for group in content.groups]
    if style == "hybrid":
        first, *others = relate(things, content, "")
        if content.scene:
            first += f" {place(content.scene)}"
        return ", ".join(filter(None, (first, *others, content.medium, content.light)))
    text = " and ".join(relate(things, content, "are " if content.groups[0].count > 1 else "is "))
    text += f" {place(content.scene)}" if content.scene else ""
    text += f", {MEDIA[content.medium].phrase}" if content.medium else ""
    text += f", {LIGHTS[content.light].phrase}" if content.light else ""
    return f"{text[0].upper()}{text[1:]}."


def relate(things: list[str], content: Content, verb: str) -> list[str]:
    """The words for groups, the first two in one text where the content says how they are placed."""
    if content.relation is None:
        return things
    return [f"{things[0]} {verb}{content.relation} {things[1]}", *things[2:]]


def place(scene: str) -> str:
    """`on a sunny beach`, `in deep water`."""
    it = SCENES[scene]
    return f"{it.preposition} {with_article(scene) if it.article else scene}"
