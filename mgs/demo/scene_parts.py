"""Tools that paint scenes: gradients, clouds, ridges, grounds in perspective, and sheets with smooth edges."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mgs.demo.canvas import SIDE, Canvas

Colour = tuple[float, float, float]
Field = NDArray[np.floating]  # (rows, columns) of one value per pixel

FIELD_SIDE = 1024  # pixels; fields repeat beyond
OVERSAMPLING = 2


def mix(colour: Colour, other: Colour, share: float) -> Colour:
    """`share` (0-1) of the way from a colour to another."""
    red, green, blue = (a + (b - a) * share for a, b in zip(colour, other, strict=True))
    return red, green, blue


def vary(colour: Colour, rng: np.random.Generator, spread: float = 9) -> Colour:
    """A colour near this one; `spread` is the standard deviation in levels of 255."""
    red, green, blue = np.array(colour) + rng.normal(0, 0.8 * spread) + rng.normal(0, 0.45 * spread, 3)
    return float(red), float(green), float(blue)


@lru_cache(maxsize=16)
def field(roughness: float, stretch: float = 1) -> Field:
    """Smooth noise of mean 0 and standard deviation 1, the same at every call; it repeats every `FIELD_SIDE` pixels.

    `roughness` is the power by which fine detail fades: 1 is sand, 2 is clouds. `stretch` draws it out sideways.
    """
    down = np.fft.fftfreq(FIELD_SIDE)[:, None]
    across = np.fft.rfftfreq(FIELD_SIDE)[None] * stretch
    fading = np.maximum(np.hypot(down, across), 3 / FIELD_SIDE) ** -roughness
    fading[0, 0] = 0
    white = np.random.default_rng(20).standard_normal((FIELD_SIDE, FIELD_SIDE))
    noise = np.fft.irfft2(np.fft.rfft2(white) * fading, s=(FIELD_SIDE, FIELD_SIDE))
    noise = (noise / noise.std()).clip(-2.5, 2.5).astype(np.float32)
    noise.flags.writeable = False  # callers share it
    return noise


def cut_field(noise: Field, rng: np.random.Generator, rows: int = SIDE, columns: int = SIDE) -> Field:
    """A window of a field from a random place."""
    top, left = rng.integers(FIELD_SIDE - rows + 1), rng.integers(FIELD_SIDE - columns + 1)
    return noise[top : top + rows, left : left + columns]


def lay_down(
    noise: Field,
    rng: np.random.Generator,
    rows: int,
    scale: float = 1,
    flattest: float = 0.1,
    wide: float = 1,
    columns: int = SIDE,
    centre: float = SIDE / 2,
) -> Field:
    """A field as a plain seen from above it: (rows, columns), small at the horizon (row 0), large at the bottom.

    The smaller `flattest` (0-1), the smaller the far part; `wide` draws the field out sideways; lines meet above
    x = `centre`.
    """
    depth = 1 / (np.linspace(0, 1, rows, dtype=np.float32)[:, None] + np.float32(flattest))
    across = np.linspace(-centre, SIDE - centre, columns, dtype=np.float32)[None] * depth * np.float32(scale / wide)
    away = (380 * scale * depth).astype(np.int32) + int(rng.integers(FIELD_SIDE))
    side = across.astype(np.int32) + int(rng.integers(FIELD_SIDE))
    return noise[away % FIELD_SIDE, side % FIELD_SIDE]


def gradient(*stops: tuple[float, Colour]) -> Canvas:
    """A canvas of colours that change from top to bottom; `stops` are (y, colour), y rising."""
    heights = [height for height, _ in stops]
    rows = np.arange(SIDE)
    column = np.stack([np.interp(rows, heights, [colour[c] for _, colour in stops]) for c in range(3)], axis=-1)
    return np.repeat(column[:, None].astype(np.float32), SIDE, axis=1)


def tone(canvas: Canvas, share: Field, colour: Colour) -> None:
    """Cover a canvas (or rows of it) with a colour, in place; `share` (0-1) says how thickly at every pixel."""
    for channel, level in enumerate(colour):  # one by one: numpy is slow over a last axis of three
        plane = canvas[..., channel]
        plane += (np.float32(level) - plane) * share


def grain(canvas: Canvas, noise: Field, strength: float) -> None:
    """Darken and lighten a canvas (or rows of it) by a field, in place."""
    factor = 1 + np.float32(strength) * noise
    for channel in range(3):
        canvas[..., channel] *= factor


def enlarge(small: Field, rows: int) -> Field:
    """A small field stretched over (rows, SIDE)."""
    return np.array(Image.fromarray(small.astype(np.float32)).resize((SIDE, rows), Image.Resampling.BILINEAR))


def glow(canvas: Canvas, place: tuple[float, float], radius: float, colour: Colour, strength: float) -> None:
    """Light about a point, in place; it fades to nothing at about two radii."""
    x, y = place
    window = tuple(slice(max(int(at - 2 * radius), 0), int(at + 2 * radius)) for at in (y, x))
    axis = np.arange(SIDE, dtype=np.float32)
    down, across = ((np.exp(-(((axis - at) / radius) ** 2)) - 0.018).clip(0) for at in (y, x))
    tone(canvas[window], np.float32(strength) * down[window[0], None] * across[None, window[1]], colour)


def add_clouds(sky: Canvas, rng: np.random.Generator, cover: float, light: Colour, shade: Colour) -> None:
    """Cover part (0-1) of a sky, in place: clouds small at the horizon (its last row), large above, lit from above."""
    rows = len(sky)
    noise = lay_down(field(2.0), rng, rows // 2, 1.5, 0.8, wide=2.2, columns=SIDE // 2)[::-1]
    over = np.linspace(1, 0.6, rows // 2, dtype=np.float32)[:, None]
    thick = ((noise + np.float32(2.4 * cover - 1.3)) * 1.7).clip(0, 1) * over
    higher = np.concatenate([noise[:1].repeat(7, 0), noise[:-7]])
    lit = (0.62 + 0.9 * (noise - higher)).clip(0, 1)
    tone(sky, enlarge(thick * (1 - lit), rows), shade)
    tone(sky, enlarge(thick * lit, rows), light)


def paint_sky(rng: np.random.Generator, horizon: float, top: Colour, low: Colour, cover: float) -> Canvas:
    """A new canvas with a day's sky, part (0-1) of it clouded; below the horizon it is of one colour."""
    canvas = gradient((0, vary(top, rng)), (horizon, low))
    add_clouds(canvas[: int(horizon)], rng, cover, (246, 246, 242), mix(top, (176, 182, 194), 0.7))
    return canvas


def ridge(
    rng: np.random.Generator, base: float, height: float, sharpness: float = 1, bottom: float = SIDE
) -> list[tuple[float, float]]:
    """The outline of hills, from left to right and back along `bottom`. A `sharpness` of 2 makes rock."""
    x = np.linspace(0, 1, 65)
    waves = np.arange(1, 12)
    sizes = rng.uniform(0.3, 1, len(waves)) * waves ** (-2.4 / sharpness)
    y = (sizes * np.sin(np.outer(x * 6.3 * 0.8, waves) + rng.uniform(0, 6.3, len(waves)))).sum(-1)
    y = (y - y.min()) / np.ptp(y)
    outline = [(float(a * SIDE), float(base - height * b)) for a, b in zip(x, y, strict=True)]
    return [*outline, (SIDE, bottom), (0, bottom)]


class Sheet:
    """A canvas to draw shapes on, in pixels of 512; inside it is twice as large, so that edges come out smooth."""

    def __init__(self, canvas: Canvas) -> None:
        """Start from a canvas, which stays as it is."""
        picture = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
        self._picture = picture.resize((SIDE * OVERSAMPLING,) * 2, Image.Resampling.NEAREST)
        self._pen = ImageDraw.Draw(self._picture)

    @staticmethod
    def _ink(colour: Colour) -> Any:
        return tuple([int(min(max(part, 0), 255)) for part in colour])

    def polygon(self, points: Sequence[tuple[float, float]], colour: Colour) -> None:
        """Fill an outline."""
        self._pen.polygon([(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points], fill=self._ink(colour))

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """Fill a rectangle."""
        x, y, right, bottom = [round(part * OVERSAMPLING) for part in (left, top, right, bottom)]
        self._pen.rectangle((x, y, max(x, right - 1), max(y, bottom - 1)), fill=self._ink(colour))

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """Fill an ellipse about (x, y)."""
        corners = [part * OVERSAMPLING for part in (x - rx, y - ry, x + rx, y + ry)]
        self._pen.ellipse(corners, fill=self._ink(colour))

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, width: float) -> None:
        """Draw a line through points."""
        scaled = [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points]
        self._pen.line(scaled, fill=self._ink(colour), width=max(1, round(width * OVERSAMPLING)), joint="curve")

    def canvas(self) -> Canvas:
        """What has been drawn, as a new canvas."""
        return np.array(self._picture.reduce(OVERSAMPLING), dtype=np.float32)


def scatter(rng: np.random.Generator, count: int, horizon: float) -> list[tuple[float, float, float]]:
    """Random places on the ground as (x, y, nearness 0-1), the far ones first, evenly spread as seen from above."""
    nearness = np.sort(rng.random(count) ** 1.3)
    return [
        (float(x), float(horizon + (SIDE - horizon) * n), float(n))
        for x, n in zip(rng.uniform(0, SIDE, count), nearness, strict=True)
    ]


def floor_lines(
    sheet: Sheet, horizon: float, vanish: tuple[float, float], pitch: float, rows: Sequence[float], colour: Colour
) -> None:
    """Draw the joints of a floor that begins at `horizon`: lines from a vanishing point above, and lines across.

    The first are `pitch` pixels apart at the bottom; the others lie at `rows` (nearness, 0-1).
    """
    x, y = vanish
    for end in np.arange(x - 40 * pitch, x + 40 * pitch, pitch):
        start = x + (end - x) * (horizon - y) / (SIDE - y)
        if max(start, end) > 0 and min(start, end) < SIDE:
            sheet.polygon([(start - 0.3, horizon), (start + 0.3, horizon), (end + 1, SIDE), (end - 1, SIDE)], colour)
    for row in rows:
        sheet.box(0, horizon + (SIDE - horizon) * row, SIDE, horizon + (SIDE - horizon) * row + 0.5 + 1.5 * row, colour)


def light_room(canvas: Canvas, rng: np.random.Generator, horizon: float) -> None:
    """Brighten one side, darken the far corner and the line where the wall meets the floor, in place."""
    axis = np.arange(SIDE, dtype=np.float32)
    slope = rng.choice((-1, 1)) * rng.uniform(0.1, 0.2)
    across = slope * (axis / SIDE - 0.5)
    down = 1.06 - 0.14 * axis / SIDE - 0.16 * np.exp(-np.abs(axis - horizon) / 26)
    light = (across[None] + down[:, None]).astype(np.float32)
    grain(canvas, light - 1 + np.float32(0.012) * cut_field(field(1.2), rng), 1)
