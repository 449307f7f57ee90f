"""Tools that draw the demo's pictures: shaded shapes, backgrounds and light, on a float canvas of 512x512 pixels."""

from __future__ import annotations

from functools import lru_cache
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Canvas = NDArray[np.float32]  # (512, 512, 3), RGB, 0-255
Points = list[tuple[float, float]]  # in the unit square, y downwards

SIDE = 512
OVERSAMPLING = 2  # shapes are drawn this much larger and reduced, for smooth edges

RGB = {
    "red": (214, 40, 40), "orange": (243, 134, 30), "yellow": (246, 212, 46), "green": (58, 158, 74),
    "blue": (42, 92, 214), "purple": (132, 56, 176), "pink": (245, 138, 184), "white": (244, 244, 240),
}  # fmt: skip
FIXED_TINTS = {"wood": (112, 74, 44), "pane": (252, 236, 170), "cream": (240, 226, 200), "ink": (34, 30, 40)}
MUTED = ((206, 196, 178), (168, 184, 188), (190, 178, 196), (176, 192, 170), (204, 184, 176), (150, 160, 176))


def ellipse(x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 2 * pi) -> Points:
    """Points on an arc of an ellipse about (x, y)."""
    return [(x + rx * cos(t), y + ry * sin(t)) for t in np.linspace(start, stop, 40)]


def _star() -> Points:
    radii = (0.5, 0.21) * 5
    return [(0.5 + r * sin(i * pi / 5), 0.53 - r * cos(i * pi / 5)) for i, r in enumerate(radii)]


def _heart() -> Points:
    turn = np.linspace(0, 2 * pi, 60)
    x, y = 16 * np.sin(turn) ** 3, 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
    return [(float(a), float(b)) for a, b in zip(0.5 + x / 34, 0.46 - y / 34, strict=True)]


# Each shape is a list of (tint, outline) painted in turn; `hole` erases, `body` and `dark` follow the object's colour.
SHAPES: dict[str, list[tuple[str, Points]]] = {
    "circle": [("body", ellipse(0.5, 0.5, 0.46, 0.46))],
    "square": [("body", [(0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)])],
    "triangle": [("body", [(0.5, 0.06), (0.98, 0.92), (0.02, 0.92)])],
    "star": [("body", _star())],
    "heart": [("body", _heart())],
    "moon": [("body", ellipse(0.5, 0.5, 0.46, 0.46, 1.054, 5.229) + ellipse(0.72, 0.5, 0.36, 0.4, 4.733, 1.55))],
    "house": [
        ("body", [(0.14, 0.42), (0.86, 0.42), (0.86, 0.96), (0.14, 0.96)]),
        ("dark", [(0.02, 0.44), (0.5, 0.04), (0.98, 0.44)]),
        ("wood", [(0.42, 0.64), (0.58, 0.64), (0.58, 0.96), (0.42, 0.96)]),
        ("pane", [(0.2, 0.54), (0.34, 0.54), (0.34, 0.7), (0.2, 0.7)]),
        ("pane", [(0.66, 0.54), (0.8, 0.54), (0.8, 0.7), (0.66, 0.7)]),
    ],
    "tree": [
        ("wood", [(0.42, 0.55), (0.58, 0.55), (0.62, 0.99), (0.38, 0.99)]),
        *(("body", ellipse(x, y, 0.25, 0.24)) for x, y in ((0.28, 0.46), (0.72, 0.46), (0.5, 0.26), (0.5, 0.5))),
    ],
    "fish": [
        ("body", [(0.62, 0.5), (0.98, 0.22), (0.9, 0.5), (0.98, 0.78)]),
        ("dark", [(0.3, 0.34), (0.5, 0.1), (0.6, 0.36)]),
        ("body", ellipse(0.38, 0.5, 0.37, 0.25)),
        ("pane", ellipse(0.2, 0.44, 0.06, 0.06)),
        ("ink", ellipse(0.19, 0.44, 0.03, 0.03)),
    ],
    "flower": [
        *(("body", ellipse(0.5 + 0.28 * cos(t), 0.5 + 0.28 * sin(t), 0.2, 0.2)) for t in np.arange(5) * 2 * pi / 5),
        ("ink", ellipse(0.5, 0.5, 0.17, 0.17)),
        ("pane", ellipse(0.5, 0.5, 0.14, 0.14)),
    ],
    "cup": [
        ("body", ellipse(0.76, 0.5, 0.22, 0.24)),
        ("hole", ellipse(0.76, 0.5, 0.12, 0.14)),
        ("body", [(0.06, 0.14), (0.76, 0.14), (0.68, 0.92), (0.14, 0.92)]),
        ("dark", ellipse(0.41, 0.15, 0.35, 0.08)),
    ],
    "mushroom": [
        ("cream", [(0.38, 0.5), (0.62, 0.5), (0.68, 0.96), (0.32, 0.96)]),
        ("body", ellipse(0.5, 0.55, 0.48, 0.48, pi, 2 * pi)),
        *(("cream", ellipse(x, y, r, r)) for x, y, r in ((0.3, 0.38, 0.07), (0.54, 0.24, 0.08), (0.74, 0.42, 0.06))),
    ],
}


@lru_cache(maxsize=1)
def _grid() -> tuple[Canvas, Canvas]:
    """Pixel coordinates: x as (1, 512, 1), y as (512, 1, 1)."""
    axis = np.arange(SIDE, dtype=np.float32)
    return axis[None, :, None], axis[:, None, None]


def _ink(rgb: tuple[int, ...]) -> Canvas:
    """A colour that broadcasts over a canvas."""
    return np.array(rgb, dtype=np.float32)


def _gradient(top: tuple[int, ...], bottom: tuple[int, ...], flat: float) -> Canvas:
    """Vertical gradient from one colour to another; `flat` (0-1) moves both towards their mean."""
    height = 0.5 + (_grid()[1] / (SIDE - 1) - 0.5) * (1 - flat)
    column = _ink(top) * (1 - height) + _ink(bottom) * height
    return np.broadcast_to(column, (SIDE, SIDE, 3)).astype(np.float32)


def paint_background(name: str | None, rng: np.random.Generator, flat: float) -> Canvas:
    """A new canvas; `None` is plain. `flat` (0-1) removes the gradients."""
    x, y = _grid()
    tone = _ink(MUTED[rng.integers(len(MUTED))])
    shift, scale = rng.uniform(0, SIDE), rng.uniform(0.9, 1.15)
    if name in ("starry night sky", "sunset sky", "grassy meadow", "calm sea", "snowy mountain"):
        return _paint_place(name, rng, flat)
    shade = 1 + (1 - flat) * (0.16 - 0.4 * y / SIDE)
    canvas = np.broadcast_to(tone * shade, (SIDE, SIDE, 3)).astype(np.float32)
    if name == "striped background":
        canvas *= np.where(np.sin((x + y * np.float32(0.6) + shift) * (0.1 * scale)) > 0, 1.0, 0.62).astype(np.float32)
    elif name == "dotted background":
        pitch = 62 * scale
        dots = np.hypot((x + shift) % pitch - pitch / 2, (y + shift) % pitch - pitch / 2) < 17 * scale
        canvas *= np.where(dots, 0.55, 1.0).astype(np.float32)
    elif name == "checkered background":
        canvas *= np.where(((x + shift) // (52 * scale) + (y + shift) // (52 * scale)) % 2, 0.6, 1).astype(np.float32)
    elif name == "brick wall":
        row = (y + shift) // (40 * scale)
        mortar = ((y + shift) % (40 * scale) < 8) | ((x + row % 2 * 44 + shift) % (88 * scale) < 8)
        canvas = np.where(mortar, canvas, _ink((164, 92, 72)) * shade).astype(np.float32)
    return canvas


def _paint_place(name: str, rng: np.random.Generator, flat: float) -> Canvas:
    """A sky and what lies below it."""
    x, y = _grid()
    horizon = rng.uniform(290, 350)
    wave = rng.uniform(0, 2 * pi)
    if name == "starry night sky":
        canvas = _gradient((8, 10, 40), (44, 40, 96), flat)
        for sx, sy in rng.integers(6, SIDE - 6, (70, 2)):
            canvas[sy - 3 : sy + 4, sx - 3 : sx + 4] = (250, 246, 214)
    elif name == "sunset sky":
        canvas = _gradient((92, 50, 120), (255, 150, 70), flat)
        sun = np.hypot(x - rng.uniform(120, 390), y - horizon - 40) < 84
        canvas = np.where(sun, _ink((255, 226, 130)), canvas)
        canvas = np.where(y > horizon + 70 + 10 * np.sin(x / 60 + wave), _ink((56, 34, 56)), canvas)
    elif name == "grassy meadow":
        hill = y > horizon + 22 * np.sin(x / 80 + wave)
        sky, grass = (120, 184, 236), (150, 200, 90)
        canvas = np.where(hill, _gradient(grass, (60, 124, 40), flat), _gradient(sky, (214, 234, 246), flat))
        blades = hill & ((x * 0.9 + 9 * np.sin(y / 6)) % 30 < 7) & (y % 46 < 24)
        canvas = np.where(blades, canvas * 0.72, canvas)
    elif name == "calm sea":
        water = y > horizon - 40
        sky, shallows = (176, 214, 236), (70, 160, 190)
        canvas = np.where(water, _gradient(shallows, (14, 70, 120), flat), _gradient(sky, (244, 236, 220), flat))
        crests = water & ((y + 7 * np.sin(x / 34 + wave)) % 44 < 9)
        canvas = np.where(crests, canvas * 0.6 + 100, canvas)
    else:
        canvas = _gradient((140, 170, 206), (220, 232, 242), flat)
        for peak, top in zip(rng.uniform(40, 470, 3), rng.uniform(60, 190, 3), strict=True):
            slope = top + np.abs(x - peak) * 1.1
            capped = y < slope + 70 + 16 * np.sin(x / 14)
            rock = np.where(capped, np.float32(248), _ink((104, 112, 132)))
            canvas = np.where(y > slope, rock, canvas)
        canvas = np.where(y > horizon + 60, np.float32(240), canvas)
    return canvas.astype(np.float32)


def paint_thing(canvas: Canvas, thing: tuple[str, str], place: tuple[float, float, float, float], flat: float) -> None:
    """Paint a (colour, object) at `place` = (centre x, centre y, side in pixels, tilt in radians).

    Unflattened, it is lit from the upper left and throws a soft shadow; flattened, it is one colour within an outline.
    """
    colour, name = thing
    x, y, side, tilt = place
    size = int(side)
    tile, alpha = _fill_shape(name, colour, size, tilt, flat)
    v, u = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j].astype(np.float32)[..., None]
    light = 1.32 - 1.0 * np.hypot(u - 0.3, v - 0.26)
    gleam = 110 * np.exp(-((u - 0.34) ** 2 + (v - 0.3) ** 2) / 0.012)
    tile = tile * (1 + (1 - flat) * (light - 1)) + (1 - flat) * gleam
    left, top = int(x - size / 2), int(y - size / 2)
    drop = int(side * 0.09)
    shadow = canvas[top + drop : top + drop + size, left + drop : left + drop + size]
    shadow *= 1 - 0.5 * (1 - flat) * alpha[: shadow.shape[0], : shadow.shape[1]]
    region = canvas[top : top + size, left : left + size]
    region += (tile - region) * alpha


def _fill_shape(name: str, colour: str, size: int, tilt: float, flat: float) -> tuple[Canvas, Canvas]:
    """The unshaded shape as RGB (size, size, 3) and its coverage, 0-1, (size, size, 1)."""
    body = RGB[colour]
    tints = {**FIXED_TINTS, "body": body, "dark": tuple(int(c * 0.62) for c in body), "hole": (0, 0, 0)}
    large = size * OVERSAMPLING
    picture, mask = Image.new("RGB", (large, large), body), Image.new("L", (large, large))
    paint, cover = ImageDraw.Draw(picture), ImageDraw.Draw(mask)
    line = int(large * 0.035 * flat)
    for tint, outline in SHAPES[name]:
        points = [
            (
                large * (0.5 + (px - 0.5) * cos(tilt) - (py - 0.5) * sin(tilt)),
                large * (0.5 + (px - 0.5) * sin(tilt) + (py - 0.5) * cos(tilt)),
            )
            for px, py in outline
        ]
        paint.polygon(points, fill=tints[tint])
        if line and tint != "hole":
            paint.line([*points, points[0]], fill=FIXED_TINTS["ink"], width=line)
        cover.polygon(points, fill=0 if tint == "hole" else 255)
    tile = np.asarray(picture.reduce(OVERSAMPLING), dtype=np.float32)
    coverage = np.asarray(mask.reduce(OVERSAMPLING), dtype=np.float32)[..., None] / np.float32(255)
    return tile, coverage


def paint_light(canvas: Canvas, light: str | None) -> Canvas:
    """Dark corners for soft lighting, rays from a corner for golden light, or a white frame."""
    x, y = _grid()
    if light == "soft lighting":
        distance = ((x - SIDE / 2) ** 2 + (y - SIDE / 2) ** 2) / (SIDE / 2) ** 2
        return canvas * np.clip(1.1 - 0.55 * distance, 0.08, 1)
    if light == "golden light":
        rays = 0.55 + 0.45 * np.sign(np.sin(22 * np.arctan2(y + 40, x + 40)))
        beam = rays * np.clip(1.05 - np.hypot(x, y) / 620, 0, 1)
        return canvas + beam * (_ink((255, 206, 70)) - canvas) * np.float32(0.9)
    if light == "white frame":
        width = 40
        inside = (abs(x - SIDE / 2) < SIDE / 2 - width) & (abs(y - SIDE / 2) < SIDE / 2 - width)
        return np.where(inside, canvas, np.float32(252))
    return canvas
