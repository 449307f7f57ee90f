"""What captions may truthfully say of a drawn picture or of a window on it: the texts that the demo CLIP learns from.

Captions speak of what is really there, as alt texts do, in the three prompt styles and in fragments of them; some say
how the picture looks. Every caption comes with the set of facts that it claims and every view with all that are true of
it, so that training knows exactly which captions fit which pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from mgs.demo.drawing import SIDE
from mgs.demo.generators import Damage
from mgs.demo.prompts import (
    BACKGROUNDS,
    COLOURS,
    LIGHTS,
    OBJECTS,
    STYLES,
    Content,
    part_of,
    sample_content,
    with_article,
    write_prompt,
)  # fmt: skip
from mgs.images.cuts import Cuts
from mgs.methods.templates import AUTHENTICITY_WORDS, QUALITY_WORDS, sentences

PART = "pretraining"  # of the drawn world
LOOKS = {
    "blur": "blurry", "noise": "grainy", "blocks": "pixelated", "fade": "faded",
    "flat": "flat cartoon", "warp": "distorted", "fringe": "colour-fringed", "glitch": "glitchy",
}  # fmt: skip
GOOD_LOOKS = {"quality": "sharp", "authenticity": "lifelike"}
FACTS = (
    *(f"{colour} {shape}" for colour in COLOURS for shape in OBJECTS), *BACKGROUNDS, *LIGHTS,
    *(f"quality {word}" for word in QUALITY_WORDS), *(f"authenticity {word}" for word in AUTHENTICITY_WORDS),
    *LOOKS.values(), *GOOD_LOOKS.values(),
)  # fmt: skip
FACT_NUMBER = {fact: number for number, fact in enumerate(FACTS)}
# Each with its claims: sentences on both levels (quality changing slowest), on quality, on authenticity
LEVEL_SENTENCES: tuple[list[tuple[str, frozenset[str]]], ...] = (
    [
        (text, frozenset((f"quality {q}", f"authenticity {r}")))
        for text, (q, r) in zip(sentences("joint"), product(QUALITY_WORDS, AUTHENTICITY_WORDS), strict=True)
    ],
    [(text, frozenset([f"quality {q}"])) for text, q in zip(sentences("separate"), QUALITY_WORDS, strict=False)],
    [
        (text, frozenset([f"authenticity {r}"]))
        for text, r in zip(sentences("separate")[len(QUALITY_WORDS) :], AUTHENTICITY_WORDS, strict=True)
    ],
)
SEEN = 0.6  # share of a thing's box that a window must show before a caption names it


@dataclass(frozen=True)
class View:
    """What a caption may say of a view (`shown`, `looks`, levels), and all that is true of it (`facts`)."""

    shown: Content
    looks: tuple[str, ...]
    levels: tuple[int, int]  # quality, authenticity: places in the two lists of words
    facts: frozenset[str]


def level(share: float) -> int:
    """0-1 to the nearest of the five words."""
    return round(share * (len(QUALITY_WORDS) - 1))


def describe(
    content: Content, damage: Damage, spots: list[tuple[float, float, float, float]], corner: tuple[int, int] | None
) -> View:
    """What can be seen in the window at that (top, left) corner; `None` is the whole picture."""
    top, left, side = (0, 0, SIDE) if corner is None else (*corner, Cuts().side)
    share = [overlap(x, size, left, side) * overlap(y, size, top, side) for x, y, size, _ in spots]
    things = tuple(thing for thing, part in zip(content.things, share, strict=True) if part >= SEEN)
    hidden = {" ".join(thing) for thing, part in zip(content.things, share, strict=True) if part < 0.1}
    light = content.light if corner is None else None  # a window may miss the frame or the rays
    looks = [word for name, word in LOOKS.items() if getattr(damage, name) > 0.3]
    looks += [word for name, word in GOOD_LOOKS.items() if getattr(damage, name) > 0.85]
    q, r = level(damage.quality), level(damage.authenticity)
    truths = {*content.elements, *looks, f"quality {QUALITY_WORDS[q]}", f"authenticity {AUTHENTICITY_WORDS[r]}"}
    shown = Content(things, content.background, light, content.stacked and len(things) == 2)
    return View(shown, tuple(looks), (q, r), frozenset(truths - hidden))


def overlap(centre: float, size: float, start: float, length: float) -> float:
    """Share of an interval about `centre` that lies in the one from `start`."""
    return max(0.0, min(centre + size / 2, start + length) - max(centre - size / 2, start)) / size


def caption(view: View, rng: np.random.Generator) -> tuple[str, frozenset[str]]:
    """A caption that is true of the view, and the facts that it claims.

    Some say how the picture looks, the others what it shows, all of it or a part. If such a caption would name a
    content of another part of the world, or has nothing to say, a level sentence takes its place.
    """
    if view.looks and rng.random() < 0.15:
        looks = [str(look) for look in rng.permutation(view.looks)[:2]]
        return f"{with_article(looks[0])}{''.join(f', {look}' for look in looks[1:])} picture", frozenset(looks)
    for _ in range(4):
        content = view.shown if rng.random() < 0.45 else take_some(view.shown, rng)
        if content.things and part_of(content.elements) == PART:
            break
    else:
        return LEVEL_SENTENCES[0][view.levels[0] * len(AUTHENTICITY_WORDS) + view.levels[1]]
    if rng.random() < 0.12 and part_of([" ".join(content.things[0])]) == PART:
        lead = rng.choice(("above", "near", "next to", "with", "of"))
        return f"{lead} {with_article(content.things[0])}", frozenset([" ".join(content.things[0])])
    text = write_prompt(content, str(rng.choice(STYLES)))
    claims = frozenset(content.elements)
    if view.looks and rng.random() < 0.25:
        look = str(rng.choice(view.looks))
        return f"{with_article(look)} picture of {text[0].lower()}{text[1:]}", claims | {look}
    return text, claims


def take_some(content: Content, rng: np.random.Generator) -> Content:
    """A caption need not name everything: keep some things, perhaps the background, perhaps the light."""
    kept = rng.random(len(content.things)) < rng.uniform(0.2, 1)
    things = tuple(thing for thing, keep in zip(content.things, kept, strict=True) if keep) or content.things[:1]
    return Content(
        things,
        content.background if rng.random() < 0.5 else None,
        content.light if rng.random() < 0.5 else None,
        content.stacked and len(things) == 2,
    )


def contradict(view: View, rng: np.random.Generator) -> tuple[str, frozenset[str]]:
    """A caption with one element changed: a close negative, which teaches that every word counts."""
    while True:
        content = sample_content(rng, PART)
        if view.shown.things and rng.random() < 0.9:
            things = list(view.shown.things)
            place = int(rng.integers(len(things)))
            colour, shape = things[place]
            swap_colour = rng.random() < 0.5
            things[place] = (str(rng.choice(COLOURS)), shape) if swap_colour else (colour, str(rng.choice(OBJECTS)))
            content = replace(view.shown, things=tuple(things))
            if content.background and rng.random() < 0.3:
                content = replace(view.shown, background=str(rng.choice(list(BACKGROUNDS))))
        if part_of(content.elements) == PART:
            return write_prompt(content, str(rng.choice(STYLES))), frozenset(content.elements)
