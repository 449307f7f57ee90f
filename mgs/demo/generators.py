"""Pretend generators of the drawn dataset: what each gets wrong, how it damages a picture, and what that is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mgs.demo.drawing import SIDE, Canvas, paint_background, paint_light, paint_thing
from mgs.demo.prompts import BACKGROUNDS, COLOURS, OBJECTS, Content, Thing


@dataclass(frozen=True)
class Damage:
    """How badly a picture is damaged in each way, 0 (not at all) to 1."""

    blur: float = 0.0
    noise: float = 0.0
    blocks: float = 0.0
    fade: float = 0.0
    flat: float = 0.0
    warp: float = 0.0
    fringe: float = 0.0
    glitch: float = 0.0

    @property
    def quality(self) -> float:
        """What blur, noise, blocks and fading leave of the quality, 0-1."""
        return float(np.prod([1 - 0.95 * part for part in (self.blur, self.noise, self.blocks, self.fade)]))

    @property
    def authenticity(self) -> float:
        """What flat shading, warping, colour fringes and torn bands leave of the authenticity, 0-1."""
        return float(np.prod([1 - 0.95 * part for part in (self.flat, self.warp, self.fringe, self.glitch)]))


POSTER_LEVELS = 3  # per colour channel, in a completely flat picture
BAND = 32  # pixels, the height of a torn band
QUALITY_DAMAGES = ("blur", "noise", "blocks", "fade")
AUTHENTICITY_DAMAGES = ("flat", "warp", "fringe", "glitch")


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
    """What really is in a picture: a thing or nothing in every place asked for, the background and the light."""

    things: tuple[Thing | None, ...]
    background: str | None
    light: str | None
    stacked: bool = False

    @property
    def content(self) -> Content:
        """The content that describes the picture without a mistake."""
        return Content(tuple(thing for thing in self.things if thing), self.background, self.light, self.stacked)


def as_asked(content: Content) -> Drawn:
    """A picture without mistakes."""
    return Drawn(content.things, content.background, content.light, content.stacked)


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
    """Draw each element wrongly with probability `share`: left out, in another colour, or replaced.

    At least one thing is always drawn: flat shading or warping could not be seen on an empty picture.
    """

    def another(options: tuple[str, ...], but: str) -> str:
        return str(rng.choice([option for option in options if option != but]))

    def redo(thing: Thing) -> Thing | None:
        kind, (colour, shape) = rng.random(), thing
        if kind < 0.4:
            return None
        if kind < 0.65:
            return another(COLOURS, colour), shape
        return another(COLOURS, colour), another(OBJECTS, shape)

    wrong = rng.random(len(content.things) + 2) < share
    things = tuple(redo(thing) if bad else thing for thing, bad in zip(content.things, wrong, strict=False))
    if not any(things):
        things = ((another(COLOURS, content.things[0][0]), another(OBJECTS, content.things[0][1])), *things[1:])
    background, light = content.background, content.light
    if background and wrong[-2]:
        background = another((*BACKGROUNDS, ""), background) or None
    return Drawn(things, background, None if wrong[-1] else light, content.stacked)


def true_correspondence(content: Content, drawn: Drawn) -> float:
    """Share of the prompt that the picture shows, 0-1; a thing in the wrong colour counts a little, light half."""
    marks = []
    for asked, shown in zip(content.things, drawn.things, strict=True):
        right_shape = shown is not None and shown[1] == asked[1]
        marks.append((1.0 if shown == asked else 0.35 if right_shape else 0.0, 1.0))
    if content.background:
        marks.append((float(content.background == drawn.background), 1.0))
    if content.light:
        marks.append((float(content.light == drawn.light), 0.5))
    credit, weight = np.array(marks).T
    return float(credit @ weight / weight.sum())


def places(drawn: Drawn, rng: np.random.Generator) -> list[tuple[float, float, float, float]]:
    """Where each thing goes: (centre x, centre y, side in pixels, tilt in radians), one per thing asked for."""
    near, far, middle = 142, 366, SIDE / 2
    layouts = {
        1: (290, [(middle, middle)]),
        2: (208, [(middle, near), (middle, far)] if drawn.stacked else [(near, middle), (far, middle)]),
        3: (188, [(near, near), (far, near), (middle, far)]),
        4: (182, [(near, near), (far, near), (near, far), (far, far)]),
    }
    side, centres = layouts[len(drawn.things)]
    return [
        (x + rng.uniform(-22, 22), y + rng.uniform(-22, 22), side * rng.uniform(0.88, 1.1), rng.normal(0, 0.12))
        for x, y in centres
    ]


def draw(drawn: Drawn, damage: Damage, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw and damage a picture: (512, 512, 3), RGB. Equal arguments and generator state give equal pixels.

    `places` is the first to use `rng`, so calling it with a generator of equal state returns where the things are.
    """
    where = places(drawn, rng)
    canvas = paint_background(drawn.background, rng, damage.flat)
    for thing, place in zip(drawn.things, where, strict=True):
        if thing:
            paint_thing(canvas, thing, place, damage.flat)
    return _degrade(_disfigure(paint_light(canvas, drawn.light), damage, rng), damage, rng)


def _disfigure(canvas: Canvas, damage: Damage, rng: np.random.Generator) -> Canvas:
    """Poster colours, warping, torn bands, colour fringes. Lengths are in pixels of 512; the views keep every fifth."""
    if damage.flat > 0:
        step = 255 / (POSTER_LEVELS - 1)
        poster = ((canvas / step).round().clip(0, POSTER_LEVELS - 1) * step).astype(np.float32, copy=False)
        canvas = canvas + np.float32(damage.flat) * (poster - canvas)
    if damage.warp > 0:
        axis = np.arange(SIDE)
        wave = 2 * np.pi * axis / rng.uniform(40, 54)
        across, down = (np.sin(wave + phase) for phase in rng.uniform(0, 6, 2))
        # Each colour bends its own way, as in bad glass: edges shimmer.
        bent = [_bend(canvas[..., c], reach * damage.warp, across, down) for c, reach in enumerate((20, 6, -20))]
        canvas = np.stack(bent, axis=-1)
    if damage.glitch > 0:
        tops = np.arange(0, SIDE, BAND)
        for top in rng.permutation(tops)[: round(1 + 0.75 * len(tops) * damage.glitch)]:
            band = np.roll(canvas[top : top + BAND], int(rng.choice((-1, 1)) * rng.integers(24, 64)), axis=1)
            canvas[top : top + BAND] = 0.5 * band + 0.5 * band[..., [1, 2, 0]]
    if damage.fringe > 0:
        shift = round(4 + 26 * damage.fringe)
        canvas = np.stack(
            [np.roll(canvas[..., 0], shift, 1), canvas[..., 1], np.roll(canvas[..., 2], -shift, 1)], axis=-1
        )
    return canvas


def _bend(channel: Canvas, reach: float, across: NDArray[np.float64], down: NDArray[np.float64]) -> Canvas:
    """Displace rows sideways by `across` and columns upwards by `down`, each -1 to 1 times `reach` pixels."""
    axis = np.arange(SIDE)
    columns = np.clip(axis[None] + (reach * across).round().astype(int)[:, None], 0, SIDE - 1)
    rows = np.clip(axis[:, None] + (reach * down).round().astype(int)[None], 0, SIDE - 1)
    return channel[rows, columns]


def _degrade(canvas: Canvas, damage: Damage, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur, blocks, fading and grain, coarse enough to be visible at the size of CLIP's input."""
    picture = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
    if damage.blur > 0:
        half = picture.reduce(2).filter(ImageFilter.GaussianBlur(1 + 5.5 * damage.blur))
        picture = half.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    if damage.blocks > 0:
        side = round(6 + 22 * damage.blocks)
        picture = picture.reduce(side).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    pixels = np.asarray(picture, dtype=np.float32)
    if damage.fade > 0:
        grey = np.float32(150)
        pixels = grey + (pixels - grey) * np.float32(0.95 - 0.7 * damage.fade)
    if damage.noise > 0:
        cell = 5
        count = -(-SIDE // cell)
        grain = rng.normal(0, 7 + 42 * damage.noise, (count, count, 3)).astype(np.float32)
        pixels = pixels + grain.repeat(cell, 0).repeat(cell, 1)[:SIDE, :SIDE]
    return pixels.clip(0, 255).astype(np.uint8)
