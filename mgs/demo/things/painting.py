"""Colours of things, and how a thing becomes pixels: filled outlines, then light."""

from __future__ import annotations

from itertools import islice
from math import cos, sin

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from mgs.demo.canvas import Canvas
from mgs.demo.things.parts import Points, Thing

Colour = tuple[int, int, int]

OVERSAMPLING = 2  # things are drawn this much larger and reduced, for smooth edges
MARGIN = 0.01  # of the tile, kept free at each side
CONTOUR = 0.011  # width of the line around each part, in the thing's width

COLOURS: dict[str, Colour] = {
    "red": (212, 44, 42), "orange": (240, 132, 34), "yellow": (244, 208, 50), "green": (62, 156, 76),
    "blue": (48, 98, 212), "purple": (132, 62, 176), "pink": (242, 140, 186), "white": (228, 229, 230),
    "brown": (134, 84, 50), "black": (62, 61, 68),
}  # fmt: skip
FIXED_TINTS: dict[str, Colour] = {
    "ink": (36, 32, 42), "white": (250, 250, 246), "cream": (240, 226, 198), "wood": (122, 82, 50),
    "waffle": (214, 160, 92), "pane": (252, 232, 160), "glass": (176, 214, 232), "steel": (168, 172, 180),
    "leaf": (82, 150, 62), "beak": (238, 156, 44), "flame": (252, 176, 60), "rose": (236, 150, 160),
    "tomato": (184, 48, 40),
}  # fmt: skip


def tints(body: Colour) -> dict[str, Colour]:
    """Every tint of a part for a thing of this colour; "dark" and "light" differ from it even in black and white."""
    red, green, blue = (
        int(0.62 * c * (c / max(1, *body)) ** 0.8) for c in body
    )  # deeper: dimmed yellow would be olive
    lift = 0.2 + 0.65 * sum(body) / 765  # a light colour needs a longer way towards white to show
    return {**FIXED_TINTS, "body": body, "dark": (red, green, blue), "light": _mixed(body, 255, lift)}


def _mixed(colour: Colour, goal: int, share: float) -> Colour:
    """The colour moved towards a grey level."""
    red, green, blue = (int(c + (goal - c) * share) for c in colour)
    return red, green, blue


def fill_thing(thing: Thing, body: Colour, size: int, tilt: float) -> tuple[Canvas, Canvas]:
    """The unshaded thing, RGB 0-255 (size, size, 3), and its coverage, 0-1 (size, size, 1).

    `tilt` turns it clockwise (radians). What would then stick out of the tile, or does so because of a fault, is moved
    and reduced until it fits: a tile never cuts a thing.
    """
    large = size * OVERSAMPLING
    inks = tints(body)
    picture, mask = Image.new("RGB", (large, large), body), Image.new("L", (large, large))
    paint, cover = ImageDraw.Draw(picture), ImageDraw.Draw(mask)
    width = max(1, round(large * CONTOUR))
    for part, outline in zip(thing.parts, _fitted(thing, large, tilt), strict=True):
        if part.tint == "hole":
            cover.polygon(outline, fill=0)
            continue
        paint.polygon(outline, fill=inks[part.tint])
        if not part.seamless:
            paint.line([*outline, outline[0]], fill=_mixed(inks[part.tint], 0, 0.45), width=width)
        cover.polygon(outline, fill=255)
    tile = np.asarray(picture.reduce(OVERSAMPLING), dtype=np.float32)
    return tile, np.asarray(mask.reduce(OVERSAMPLING), dtype=np.float32)[..., None] / np.float32(255)


def _fitted(thing: Thing, side: int, tilt: float) -> list[Points]:
    """The turned outlines in pixels, moved and reduced where they would leave the tile of this side."""
    turn = np.array([[cos(tilt), sin(tilt)], [-sin(tilt), cos(tilt)]])
    everything = (np.array([point for part in thing.parts for point in part.outline]) - 0.5) @ turn + 0.5  # (n, 2)
    low, high = everything.min(axis=0), everything.max(axis=0)
    scale = min(1.0, float((1 - 2 * MARGIN) / (high - low).max()))
    middle, half = (low + high) / 2, (high - low) / 2 * scale
    goal = np.clip(middle, MARGIN + half, 1 - MARGIN - half)
    pixels = iter(map(tuple, (((everything - middle) * scale + goal) * side).tolist()))
    return [list(islice(pixels, len(part.outline))) for part in thing.parts]


def shade(tile: Canvas, alpha: Canvas, strength: float = 1) -> Canvas:
    """The tile lit from the upper left, RGB 0-255; `strength` 0 leaves it flat.

    Heights are guessed: the whole thing swells from its rim, and each part from its contour, which is where the
    brightness changes. Slopes towards the light become brighter, the other ones darker; the rim is dim, and a soft
    gleam lies where a slope faces the light.
    """
    size = len(tile)
    step = max(1, size // 64)  # slopes are soft: a small copy is enough
    cover, brightness = (
        np.asarray(Image.fromarray(np.ascontiguousarray(field)).reduce(step))
        for field in (alpha[..., 0], tile[..., 1] + tile[..., 0] * np.float32(0.5))
    )
    cells = len(cover)
    change = np.hypot(*np.gradient(np.log(brightness + 20)))
    inside = cover * (1 - np.clip(4 * change, 0, 1))
    whole, rim, parts = (
        gaussian_filter(field, cells * sigma, mode="constant")
        for field, sigma in ((cover, 0.085), (cover, 0.02), (inside, 0.028))
    )
    height = (0.17 * whole + 0.05 * parts) * cells
    down, right = np.gradient(height)
    facing = (right + 1.3 * down) / np.sqrt(1 + right**2 + down**2)  # up to 1.64, towards the light
    fall = np.linspace(0.05, -0.09, cells)[:, None]  # more light arrives above than below
    light = 0.3 * np.tanh(facing) + fall - 0.22 * np.clip(0.8 - rim, 0, 1)
    gleam = 52 * np.exp(-(((facing - 0.62) / 0.16) ** 2)) * np.clip(parts, 0, 1)
    light, gleam = (
        np.asarray(Image.fromarray((field * strength).astype(np.float32)).resize((size, size)))[..., None]
        for field in (light, gleam)
    )
    return np.clip(tile * (1 + light) + gleam, 0, 255)
