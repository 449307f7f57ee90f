"""The things that the demo draws: each is whole, shows its colour, and differs from all others."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from mgs.demo.things import animals, buildings, food, objects, plants, vehicles
from mgs.demo.things.painting import COLOURS, FIXED_TINTS, fill_thing, shade, tints
from mgs.demo.things.parts import Part, Thing, box, limb, points, smooth, stroke
from mgs.demo.things.table import THINGS

TABLES = (animals.ANIMALS, vehicles.VEHICLES, plants.PLANTS, buildings.BUILDINGS, food.FOOD, objects.OBJECTS)
MAGENTA = (255, 0, 255)  # no fixed tint is near it, nor near its darker and lighter kinds
every_thing = pytest.mark.parametrize("name", THINGS)


def share_of_body(thing: Thing) -> float:
    """The share of the thing's pixels that show its colour, darker or lighter."""
    tile, alpha = fill_thing(thing, MAGENTA, 160, 0)
    red, green, blue = tile[alpha[..., 0] == 1].T
    return float(np.mean((abs(red - blue) < 9) & (red - green > 60)))


@every_thing
def test_a_thing_is_whole(name: str) -> None:
    thing = THINGS[name]
    outlines = np.concatenate([part.outline for part in thing.parts])
    assert outlines.min() >= 0
    assert outlines.max() <= 1
    assert {part.tint for part in thing.parts} <= {"body", "dark", "light", "hole", *FIXED_TINTS}
    assert len(thing.limbs()) >= 2
    if not thing.flies:
        assert outlines[:, 1].max() == pytest.approx(0.97, abs=0.012)


@every_thing
def test_a_thing_shows_its_colour(name: str) -> None:
    assert share_of_body(THINGS[name]) >= 0.5


@every_thing
def test_every_limb_is_seen(name: str) -> None:
    thing = THINGS[name]
    whole = np.concatenate(fill_thing(thing, MAGENTA, 96, 0), axis=2)
    for places in thing.limbs():
        rest = tuple(part for place, part in enumerate(thing.parts) if place not in places)
        without = np.concatenate(fill_thing(Thing(thing.kind, rest), MAGENTA, 96, 0), axis=2)
        assert np.any(abs(whole - without) > 20, axis=2).sum() >= 12


def test_no_two_things_have_one_silhouette() -> None:
    masks = {name: fill_thing(thing, (0, 0, 0), 40, 0)[1] > 0.5 for name, thing in THINGS.items()}
    for (one, a), (other, b) in combinations(masks.items(), 2):
        assert (a & b).sum() / (a | b).sum() < 0.9, f"{one} looks like {other}"


def test_words_are_unique() -> None:
    assert len(THINGS) == sum(map(len, TABLES)) >= 36
    plurals = [thing.plural or f"{name}s" for name, thing in THINGS.items()]
    assert len(set(plurals)) == len(plurals)
    assert {name for name in THINGS if THINGS[name].plural == name} == {"fish"}
    for table in TABLES:
        assert len({thing.kind for thing in table.values()}) == 1


@pytest.mark.parametrize("colour", COLOURS)
def test_dark_and_light_parts_differ_from_the_body(colour: str) -> None:
    dark, body, light = (sum(tints(COLOURS[colour])[tint]) / 3 for tint in ("dark", "body", "light"))
    assert dark + 18 < body < light - 18


@pytest.mark.parametrize("tilt", [0, 0.3, -0.8])
@pytest.mark.parametrize("name", ["bus", "bicycle", "key"])
def test_the_tile_never_cuts_a_thing(name: str, tilt: float) -> None:
    thing = THINGS[name]
    tall = Thing(thing.kind, (*thing.parts, *limb("body", box(0.4, -0.6, 0.5, 0.4))))  # a fault may leave the square
    for each in (thing, tall):
        tile, alpha = fill_thing(each, COLOURS["red"], 101, tilt)
        assert (tile.shape, alpha.shape) == ((101, 101, 3), (101, 101, 1))
        assert tile.dtype == alpha.dtype == np.float32
        assert max(edge.max() for edge in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1])) == 0


def test_light_comes_from_the_upper_left_and_strength_0_is_flat() -> None:
    tile, alpha = fill_thing(THINGS["ball"], (120, 120, 120), 160, 0)
    flat, lit = shade(tile, alpha, strength=0), shade(tile, alpha)
    np.testing.assert_allclose(flat, tile)
    assert lit.dtype == np.float32
    assert 0 <= lit.min() <= lit.max() <= 255
    inside = alpha[..., 0] == 1
    gain = np.where(inside, (lit - flat).mean(axis=2), 0)
    y, x = np.mgrid[:160, :160]
    assert gain[inside & (x + y < 130)].mean() > 10 > -10 > gain[inside & (x + y > 190)].mean()


def test_a_limb_takes_its_details_along() -> None:
    wheel = limb("ink", box(0, 0, 1, 1), ("steel", box(0.2, 0.2, 0.8, 0.8)))
    thing = Thing("vehicle", (*wheel, Part("body", box(0, 0, 1, 1)), *wheel, *limb("dark", box(0, 0, 1, 1))))
    assert thing.limbs() == [range(0, 2), range(3, 5), range(5, 6)]


def test_outlines_pass_through_their_points() -> None:
    corners = points("10,10 90,20 50,90")
    assert corners == [(0.1, 0.1), (0.9, 0.2), (0.5, 0.9)]
    assert all(np.hypot(*(np.array(smooth(corners)) - corner).T).min() < 1e-9 for corner in corners)
    bar = np.array(stroke(points("20,50 80,50"), 0.1, 0.1))
    np.testing.assert_allclose([bar.min(axis=0), bar.max(axis=0)], [[0.15, 0.45], [0.85, 0.55]], atol=1e-3)
