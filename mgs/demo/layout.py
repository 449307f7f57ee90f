"""Where things stand in a picture: groups, depth, and one thing behind another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mgs.demo.canvas import SIDE
from mgs.demo.generators import Drawn
from mgs.demo.prompts import Group
from mgs.demo.things.table import THINGS

LEFT, MIDDLE, RIGHT = 138.0, SIDE / 2, 374.0  # pixels
HIGH, GROUND, LOW = 150.0, 330.0, 376.0
SIZES = {1: 270.0, 2: 208.0, 3: 172.0}  # of a lone thing, by the number of groups
SHRUNK = (1.0, 1.0, 0.68, 0.56, 0.5, 0.47)  # a thing's size where there are so many in its group
ROWS: dict[int, list[tuple[float, float]]] = {  # of a group by its number: (across, up), in things' sizes
    1: [(0, 0)],
    2: [(-0.52, 0), (0.52, 0.06)],
    3: [(-0.56, 0), (0.56, 0.04), (0, 0.86)],
    4: [(-0.54, 0), (0.54, 0.04), (-0.5, 0.92), (0.56, 0.96)],
    5: [(-0.62, 0), (0.62, 0.03), (-0.6, 1.1), (0.64, 1.06), (0.02, 0.56)],
}


@dataclass(frozen=True)
class Figure:
    """One thing in a picture: its centre, side and tilt, and the number of its group."""

    colour: str
    thing: str
    x: float  # pixels, as y and side
    y: float
    side: float
    tilt: float  # radians
    group: int


def lay_out(drawn: Drawn, rng: np.random.Generator) -> list[Figure]:
    """The figures of a picture, farther ones first. Groups that are left out leave their places free."""
    asked, behind = len(drawn.groups), drawn.relation == "behind"
    figures = []
    for number, (group, (x, y)) in enumerate(zip(drawn.groups, place_groups(drawn, rng), strict=True)):
        if group is None:
            continue
        side = SIZES[asked] * SHRUNK[group.count] * rng.uniform(0.9, 1.08)
        if behind and number == 1:
            side *= 0.86  # what is behind it stays visible
        if THINGS[group.thing].flies and drawn.relation not in ("above", "below", "behind"):
            y -= 90 if asked > 1 else 40
        figures += stand(group, number, (x, y, side), rng)
    return figures


def place_groups(drawn: Drawn, rng: np.random.Generator) -> list[tuple[float, float]]:
    """The centre of each group, whether it is drawn or left out."""
    asked, relation = len(drawn.groups), drawn.relation
    x = MIDDLE + rng.uniform(-24, 24)
    if asked == 1:
        return [(x, MIDDLE + rng.uniform(0, 50))]
    turn = rng.random() < 0.5
    if relation in ("above", "below"):
        pair = [(x, HIGH), (MIDDLE + rng.uniform(-24, 24), LOW)]
        return pair if relation == "above" else pair[::-1]
    if relation == "behind":
        aside = rng.uniform(84, 108) * (1 if turn else -1)
        return [(x + aside / 2, GROUND - 62), (x - aside / 2, GROUND + 24)]
    pair = [(LEFT + rng.uniform(-14, 14), GROUND - 20), (RIGHT + rng.uniform(-14, 14), GROUND - 20)]
    if relation == "right of" or (relation is None and turn):
        pair.reverse()
    if asked == 3:
        pair = [(px, py - 64) for px, py in pair]
        pair.append((x, LOW + 22))
    return pair


def stand(group: Group, number: int, where: tuple[float, float, float], rng: np.random.Generator) -> list[Figure]:
    """A group's figures about a centre, within the picture."""
    x, y, side = where
    rows = ROWS[group.count]
    depth = max(up for _, up in rows) / 2
    figures = []
    for across, up in rows:
        size = side * rng.uniform(0.93, 1.05)
        margin = size * 0.52
        spot = np.array([x + across * side, y + (depth - up) * side]) + rng.uniform(-0.05, 0.05, 2) * side
        px, py = spot.clip(margin, SIDE - margin)
        tilt = float(rng.normal(0, 0.07))
        figures.append(Figure(group.colour, group.thing, float(px), float(py), size, tilt, number))
    return figures[::-1]  # upper ones are farther
