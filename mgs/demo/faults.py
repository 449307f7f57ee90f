"""How pretend generators damage a picture: what lowers its quality, and what makes it look unreal.

Lengths are in pixels of 512; the model's views keep every fourth or fifth, so faults are coarse enough to outlive that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from mgs.demo.canvas import SIDE, Canvas
from mgs.demo.things.parts import Part, Thing


@dataclass(frozen=True)
class Damage:
    """How badly a picture is damaged in each way, 0 (not at all) to 1."""

    blur: float = 0.0
    noise: float = 0.0
    blocks: float = 0.0
    fade: float = 0.0
    waxy: float = 0.0
    melt: float = 0.0
    deform: float = 0.0
    scribble: float = 0.0

    @property
    def quality(self) -> float:
        """What blur, noise, blocks and fading leave of the quality, 0-1."""
        return float(np.prod([1 - 0.95 * getattr(self, name) for name in QUALITY_DAMAGES]))

    @property
    def authenticity(self) -> float:
        """What waxy skin, melting, deformed things and scribbles leave of the authenticity, 0-1."""
        return float(np.prod([1 - 0.95 * getattr(self, name) for name in AUTHENTICITY_DAMAGES]))


QUALITY_DAMAGES = ("blur", "noise", "blocks", "fade")
AUTHENTICITY_DAMAGES = ("waxy", "melt", "deform", "scribble")
GREY = np.float32(150)
GRAIN = 5  # pixels


def deform(thing: Thing, level: float, rng: np.random.Generator) -> Thing:
    """A crooked thing whose limbs are left out, doubled, swollen or bent, the more so the higher the level."""
    limbs = thing.limbs()
    if level <= 0 or not limbs:
        return thing
    wrong = {limbs[i].start: limbs[i] for i in rng.permutation(len(limbs))[: max(1, round(level * len(limbs)))]}
    parts: list[Part] = []
    place = 0
    while place < len(thing.parts):
        limb = wrong.get(place)
        parts += disfigure([thing.parts[i] for i in limb], level, rng) if limb else [thing.parts[place]]
        place = limb.stop if limb else place + 1
    waves = [rng.uniform(0, 6, 2), rng.uniform(5, 9, 2)]  # the same for all parts, so that they stay together
    return replace(thing, parts=tuple(bent(part, 0.22 * level, *waves) for part in parts))


def bent(part: Part, reach: float, phase: NDArray[np.float64], pace: NDArray[np.float64]) -> Part:
    """A part with its points pushed aside in waves, across by height and down by width."""
    points = np.array(part.outline)
    points = (points + reach * np.sin(points[:, ::-1] * pace + phase)).clip(0, 1)
    return replace(part, outline=[(float(x), float(y)) for x, y in points])


def disfigure(limb: list[Part], level: float, rng: np.random.Generator) -> list[Part]:
    """What a bad generator makes of a limb: nothing, two or three of it, or a monstrous one."""
    kind, reach = rng.random(), 0.12 + 0.3 * level
    if kind < 0.2:
        return []
    if kind < 0.6:
        shifts = [np.zeros(2), *(rng.uniform(-reach, reach, 2) for _ in range(1 + (level > 0.5)))]
        return [moved(part, np.eye(2), shift) for shift in shifts for part in limb]
    turn, swell = rng.normal(0, 1.2 * level), 1 + level * rng.uniform(0.4, 1.1)
    matrix = swell * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centre = np.mean(limb[0].outline, axis=0)
    return [moved(part, matrix, centre - centre @ matrix) for part in limb]


def moved(part: Part, matrix: NDArray[np.float64], shift: NDArray[np.float64]) -> Part:
    """A part moved within the unit square."""
    points = (np.array(part.outline) @ matrix + shift).clip(0, 1)
    return replace(part, outline=[(float(x), float(y)) for x, y in points])


def disfigure_picture(
    canvas: Canvas, owner: NDArray[np.int8], damage: Damage, rng: np.random.Generator
) -> tuple[Canvas, NDArray[np.int8]]:
    """Waxy surfaces, melting, scribbles; melting also moves which figure a pixel shows, (512, 512)."""
    if damage.waxy > 0:
        canvas = wax(canvas, damage.waxy)
    if damage.melt > 0:
        sources = melt(damage.melt, rng)
        canvas, owner = canvas[sources], owner[sources]
    if damage.scribble > 0:
        canvas = scribble(canvas, damage.scribble, rng)
    return canvas, owner


def wax(canvas: Canvas, level: float) -> Canvas:
    """Surfaces as of wax or plastic: texture is gone, and gleams follow the light where nothing shines."""
    small = as_picture(canvas).reduce(4).filter(ImageFilter.MedianFilter(5)).filter(ImageFilter.GaussianBlur(1))
    smooth = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32)
    light = smooth.mean(2, keepdims=True)
    gleam = np.sin(light * np.float32(0.075)) ** 6
    waxed = smooth + (255 - smooth) * gleam * np.float32(0.75)
    return canvas + np.float32(min(1, 0.08 + level)) * (waxed - canvas)


def melt(level: float, rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Edges that run down like candles, each column its own way: the row and column that each pixel shows."""
    across = np.arange(SIDE)
    waves = sum(
        np.sin(across / length + phase) for length, phase in zip((9, 17, 31), rng.uniform(0, 6, 3), strict=True)
    )
    drop = (waves / 3).clip(0) * (6 + 130 * level)  # pixels at the bottom
    sway = 22 * level * np.sin(across / 26 + rng.uniform(0, 6))
    rows = across[:, None] - drop[None] * np.sin(across[:, None] / SIDE * np.pi) ** 2
    columns = across[None] + sway[:, None]
    return rows.round().astype(np.intp).clip(0, SIDE - 1), columns.round().astype(np.intp).clip(0, SIDE - 1)


def scribble(canvas: Canvas, level: float, rng: np.random.Generator) -> Canvas:
    """Lines of letters that are none, as generators write."""
    picture = as_picture(canvas)
    pen = ImageDraw.Draw(picture)
    for line in range(round(1 + 9 * level)):
        height = rng.uniform(26, 46)
        x, y = rng.uniform(10, 160), rng.uniform(20, SIDE - 60) if line else rng.uniform(SIDE * 0.6, SIDE - 70)
        ink = (250, 250, 250) if rng.random() < 0.5 else (20, 20, 24)
        end = x + rng.uniform(140, 330)
        while x < min(end, SIDE - 20):
            width = height * rng.uniform(0.35, 0.7)
            strokes = rng.integers(2, 4)
            for _ in range(strokes):
                points = [(x + rng.random() * width, y + rng.random() * height) for _ in range(rng.integers(2, 5))]
                pen.line(points, fill=ink, width=int(height / 6), joint="curve")
            x += width * 1.25 + (height * 0.6 if rng.random() < 0.2 else 0)
    return np.asarray(picture, dtype=np.float32)


def degrade(canvas: Canvas, damage: Damage, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur, blocks, fading and grain."""
    picture = as_picture(canvas)
    if damage.blur > 0:
        half = picture.reduce(2).filter(ImageFilter.GaussianBlur(1 + 5.5 * damage.blur))
        picture = half.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    if damage.blocks > 0:
        side = round(6 + 22 * damage.blocks)
        picture = picture.reduce(side).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    pixels = np.asarray(picture, dtype=np.float32)
    if damage.fade > 0:
        pixels = GREY + (pixels - GREY) * np.float32(0.95 - 0.7 * damage.fade)
    if damage.noise > 0:
        count = -(-SIDE // GRAIN)
        grain = rng.normal(0, 7 + 42 * damage.noise, (count, count, 3)).astype(np.float32)
        pixels = pixels + grain.repeat(GRAIN, 0).repeat(GRAIN, 1)[:SIDE, :SIDE]
    return pixels.clip(0, 255).astype(np.uint8)


def as_picture(canvas: Canvas) -> Image.Image:
    """A canvas as a Pillow image."""
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
