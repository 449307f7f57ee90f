"""Pretend generators of the drawn dataset: what each gets wrong, and what its pictures are worth."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from mgs.demo.faults import AUTHENTICITY_DAMAGES, QUALITY_DAMAGES, Damage
from mgs.demo.prompts import COLOURS, RELATIONS, Content, Group
from mgs.demo.scenes import SCENES
from mgs.demo.things.table import THINGS


@dataclass(frozen=True)
class Generator:
    """A pretend generator: its usual damages (weights in the order of the tuples above), and Beta laws for how much."""

    quality_damages: tuple[float, float, float, float]
    quality_law: tuple[float, float]
    authenticity_damages: tuple[float, float, float, float]
    authenticity_law: tuple[float, float]
    mistakes_law: tuple[float, float]  # share of the prompt's elements that it gets wrong


GENERATORS = {
    "glimmer": Generator((4, 1, 1, 2), (0.9, 1.8), (1, 1, 4, 1), (0.8, 1.8), (0.8, 1.8)),
    "murkwell": Generator((4, 1, 1, 4), (1.8, 1.2), (2, 2, 1, 1), (0.9, 1.4), (1.0, 1.2)),
    "grainspire": Generator((1, 6, 1, 1), (1.4, 1.1), (1, 1, 1, 4), (1.2, 1.2), (1.0, 1.3)),
    "quiltbox": Generator((1, 1, 6, 1), (1.5, 1.1), (1, 2, 3, 1), (0.9, 1.2), (1.0, 1.1)),
    "wobblet": Generator((2, 2, 1, 1), (0.9, 1.4), (1, 6, 1, 1), (1.8, 1.1), (1.0, 1.0)),
    "plainsong": Generator((1, 1, 1, 2), (0.8, 1.6), (6, 1, 1, 1), (1.8, 1.1), (1.0, 1.1)),
    "scatterling": Generator((2, 1, 2, 1), (1.0, 1.2), (1, 1, 2, 4), (1.0, 1.2), (1.6, 0.8)),
}


@dataclass(frozen=True)
class Drawn:
    """What really is in a picture: a group or nothing in every place asked for, and how and where they are shown."""

    groups: tuple[Group | None, ...]
    relation: str | None = None
    scene: str | None = None
    medium: str | None = None
    light: str | None = None


def as_asked(content: Content) -> Drawn:
    """A picture without mistakes."""
    return Drawn(content.groups, content.relation, content.scene, content.medium, content.light)


def sample_damage(generator: Generator, rng: np.random.Generator) -> Damage:
    """Typical damage of that generator: one main kind and a little of another, for quality and for authenticity."""
    levels: dict[str, float] = {}
    for names, weights, law in (
        (QUALITY_DAMAGES, generator.quality_damages, generator.quality_law),
        (AUTHENTICITY_DAMAGES, generator.authenticity_damages, generator.authenticity_law),
    ):
        main, other = rng.choice(names, size=2, replace=False, p=np.divide(weights, sum(weights)))
        levels[str(main)] = float(rng.beta(*law))
        levels[str(other)] = float(levels[str(main)] * rng.uniform(0, 0.3))
    return Damage(**levels)


def make_mistakes(content: Content, share: float, rng: np.random.Generator) -> Drawn:
    """Draw each element wrongly with probability `share`. At least one group is always drawn.

    A group is left out, miscounted, miscoloured or replaced; two groups may swap their colours, or their places.
    """
    wrong = rng.random(len(content.groups) + 4) < share
    groups = [mistake(group, rng) if bad else group for group, bad in zip(content.groups, wrong, strict=False)]
    first, *others = content.groups
    if others and wrong[0] and rng.random() < 0.3:  # the colours of two groups leak into each other
        second = others[0]
        groups[:2] = [replace(first, colour=second.colour), replace(second, colour=first.colour)]
    if not any(groups):
        groups[0] = Group(another(COLOURS, first.colour, rng), another(tuple(THINGS), first.thing, rng))
    relation, scene = content.relation, content.scene
    if relation and wrong[-4]:
        relation = RELATIONS[relation] or another(tuple(RELATIONS), relation, rng)
    if scene and wrong[-3]:
        scene = another((*SCENES, ""), scene, rng) or None
    medium, light = (
        None if bad else asked for bad, asked in zip(wrong[-2:], (content.medium, content.light), strict=True)
    )
    return Drawn(tuple(groups), relation, scene, medium, light)


def mistake(group: Group, rng: np.random.Generator) -> Group | None:
    """What becomes of a group that is drawn wrongly."""
    kind = rng.random()
    if kind < 0.3:
        return None
    if kind < 0.55:
        return replace(group, colour=another(COLOURS, group.colour, rng))
    if kind < 0.8:
        return replace(group, count=int(rng.choice([n for n in range(1, 6) if n != group.count])))
    return replace(group, thing=another(tuple(THINGS), group.thing, rng), colour=another(COLOURS, group.colour, rng))


def another(options: tuple[str, ...], but: str, rng: np.random.Generator) -> str:
    """One of the options, but not that one."""
    return str(rng.choice([option for option in options if option != but]))


def true_correspondence(content: Content, drawn: Drawn) -> float:
    """Share of the prompt that the picture shows, 0-1.

    A group counts 1, less in a wrong colour or number; a relation 0.7, if both its groups are there; a scene 1; a
    medium 0.7; a light 0.4.
    """
    marks = [(credit(asked, shown), 1.0) for asked, shown in zip(content.groups, drawn.groups, strict=True)]
    if content.relation:
        both = all(share >= 0.4 for share, _ in marks[:2])
        marks.append((float(both and content.relation == drawn.relation), 0.7))
    for asked, shown, weight in (
        (content.scene, drawn.scene, 1.0),
        (content.medium, drawn.medium, 0.7),
        (content.light, drawn.light, 0.4),
    ):
        if asked:
            marks.append((float(asked == shown), weight))
    return math.fsum(share * weight for share, weight in marks) / math.fsum(weight for _, weight in marks)


def credit(asked: Group, shown: Group | None) -> float:
    """How far a group is what was asked for, 0-1."""
    if shown is None or shown.thing != asked.thing:
        return 0.0
    return (1.0 if shown.colour == asked.colour else 0.4) * (1.0 if shown.count == asked.count else 0.5)
