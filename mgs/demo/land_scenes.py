"""Scenes on land, under an open sky. Each painter returns a canvas and the y where its ground begins."""

from __future__ import annotations

from math import sin

import numpy as np

from mgs.demo.canvas import SIDE, Canvas
from mgs.demo.scene_parts import (
    Colour,
    Sheet,
    field,
    glow,
    gradient,
    grain,
    lay_down,
    mix,
    paint_sky,
    ridge,
    scatter,
    tone,
    vary,
)

Painted = tuple[Canvas, float]


def _grow(sheet: Sheet, rng: np.random.Generator, horizon: float, count: int, tints: list[Colour], size: float) -> None:
    """Tufts of grass, larger and darker towards the viewer."""
    for x, y, near in scatter(rng, count, horizon):
        height = size * (0.12 + near) * rng.uniform(0.7, 1.3)
        tint = tints[int(rng.integers(len(tints)))]
        blades = ((-0.15, 0), (-0.45, 0.9), (-0.04, 0.3), (0.05, 1.05), (0.06, 0.3), (0.5, 0.95), (0.15, 0))
        sheet.polygon([(x + across * height, y - up * height) for across, up in blades], tint)


def paint_meadow(rng: np.random.Generator) -> Painted:
    """Hills behind a field of grass."""
    horizon = rng.uniform(275, 325)
    haze: Colour = (214, 226, 218)
    grass = vary((150, 168, 108), rng, 7)
    canvas = paint_sky(rng, horizon, (146, 186, 216), (228, 234, 224), rng.uniform(0.35, 0.55))
    glow(canvas, (rng.uniform(40, 470), rng.uniform(30, 110)), 90, (255, 248, 216), 0.7)
    edge = int(horizon) + 14
    ground = canvas[edge:]
    ground[:] = mix(grass, haze, 0.1)
    near = np.linspace(0, 1, len(ground), dtype=np.float32)[:, None]
    tone(ground, 0.75 * near, mix(grass, (76, 98, 58), 0.6))
    grain(ground, lay_down(field(1.2), rng, len(ground), 0.5), 0.09)
    sheet = Sheet(canvas)
    for share, rise, height in ((0.75, 26, 62), (0.5, 14, 44), (0.25, 4, 30)):
        tint = mix(mix(grass, (84, 128, 104), share), haze, share)
        sheet.polygon(ridge(rng, horizon - rise + 14, height, bottom=edge), tint)
    sheet.polygon(ridge(rng, horizon + 14, 16, bottom=edge), mix(grass, haze, 0.1))
    for x in rng.uniform(0, SIDE, 26):  # a far hedge
        sheet.ellipse(x, horizon + 4, rng.uniform(5, 13), rng.uniform(3, 7), mix((92, 124, 84), haze, 0.3))
    _grow(sheet, rng, horizon + 16, 150, [mix(grass, (60, 92, 44), share) for share in (0.2, 0.55, 0.9)], 26)
    for x, y, close in scatter(rng, 45, horizon + 20):
        sheet.ellipse(x, y, 0.6 + 2.4 * close, 0.5 + 1.8 * close, (232, 228, 196))
    return sheet.canvas(), horizon + 10


def paint_mountains(rng: np.random.Generator) -> Painted:
    """Three ranges with lit and shaded snow, and a field of snow."""
    horizon = rng.uniform(300, 340)
    haze: Colour = (206, 216, 230)
    canvas = paint_sky(rng, horizon, (120, 156, 194), haze, rng.uniform(0.2, 0.5))
    sheet = Sheet(canvas)
    light = rng.choice((-1.0, 1.0))
    for share, base, count, low, high in ((0.62, -16, 6, 80, 150), (0.2, 8, 4, 150, 235)):
        for x in rng.permutation(np.linspace(0, SIDE, count)) + rng.uniform(-45, 45, count):
            _paint_peak(sheet, rng, float(x), horizon + base, rng.uniform(low, high), share, light)
    for share, rise, height in ((0.55, 16, 30), (0.35, 4, 22)):  # foothills
        sheet.polygon(ridge(rng, horizon - rise + 12, height, 1.6), mix((96, 110, 126), haze, share))
    snow = vary((206, 214, 228), rng, 4)
    for share, rise, height in ((0.5, 10, 34), (0.25, -12, 30), (0.0, -44, 34)):
        sheet.polygon(ridge(rng, horizon - rise + 10, height), mix(snow, (168, 184, 212), share))
    canvas = sheet.canvas()
    ground = canvas[int(horizon) :]
    tone(ground, 0.3 * np.linspace(0, 1, len(ground), dtype=np.float32)[:, None], (168, 180, 208))
    grain(ground, lay_down(field(2.0), rng, len(ground), 0.3), 0.045)
    return canvas, horizon + 4


def _paint_peak(
    sheet: Sheet, rng: np.random.Generator, x: float, base: float, height: float, haze: float, light: float
) -> None:
    """One mountain: a lit and a shaded flank, each with a ragged cap of snow."""
    width, top = height * rng.uniform(0.8, 1.1), base - height
    air: Colour = (196, 208, 226)
    for flank, rock, snow in ((-1, (122, 128, 142), (240, 243, 247)), (1, (84, 92, 114), (184, 196, 220))):
        out = width * flank * light
        sheet.polygon(
            [(x, top), (x + out, base), (x, base), (x - 0.1 * out, base - 0.4 * height)], mix(rock, air, haze)
        )
        falls = np.where(np.arange(7) % 2, rng.uniform(0.3, 0.42, 7), rng.uniform(0.45, 0.62, 7))
        reaches = np.linspace(falls[0], 0.04, 7) + rng.normal(0, 0.012, 7)
        ragged = [(x + out * reach, top + height * fall) for reach, fall in zip(reaches, falls, strict=True)]
        sheet.polygon([(x, top), *ragged, (x - 0.06 * out, top + height * 0.45)], mix(snow, air, haze * 0.7))


def paint_desert(rng: np.random.Generator) -> Painted:
    """Table mountains far off, and dunes with a lit and a shaded side."""
    horizon = rng.uniform(265, 310)
    canvas = gradient((0, vary((146, 180, 190), rng)), (horizon, (240, 220, 186)))
    sun = rng.uniform(60, 450), rng.uniform(60, 150)
    glow(canvas, sun, 110, (255, 240, 204), 0.85)
    sheet = Sheet(canvas)
    sheet.ellipse(*sun, 20, 20, (255, 244, 216))
    haze: Colour = (232, 208, 180)
    for share, count, tall in ((0.62, 4, 50), (0.4, 2, 84)):
        for x in rng.uniform(0, SIDE, count):
            wide, high = rng.uniform(30, 80), tall * rng.uniform(0.6, 1.1)
            rock = mix((166, 106, 84), haze, share)
            sheet.polygon(
                [
                    (x - wide - 26, horizon + 6),
                    (x - wide, horizon - high * 0.5),
                    (x - wide + 6, horizon - high),
                    (x + wide - 4, horizon - high),
                    (x + wide + 2, horizon - high * 0.5),
                    (x + wide + 26, horizon + 6),
                ],
                rock,
            )
            sheet.polygon(
                [
                    (x + wide * 0.3, horizon - high),
                    (x + wide - 4, horizon - high),
                    (x + wide + 2, horizon - high * 0.5),
                    (x + wide + 26, horizon + 6),
                    (x + wide * 0.4, horizon + 6),
                ],
                mix(rock, (96, 70, 84), 0.25),
            )
    sand = vary((206, 168, 122), rng, 6)
    side = rng.choice((-1, 1))
    for share, fall, tall in ((0.5, 8, 24), (0.3, 34, 40), (0.14, 84, 58), (0.0, 150, 74)):
        _paint_dune(sheet, rng, horizon + fall, tall, side, mix(sand, haze, share))
    canvas = sheet.canvas()
    ground = canvas[int(horizon) + 4 :]
    grain(ground, lay_down(field(1.2), rng, len(ground), 0.6), 0.045)
    return canvas, horizon + 24


def _paint_dune(sheet: Sheet, rng: np.random.Generator, base: float, tall: float, side: int, lit: Colour) -> None:
    """A dune from edge to edge: a rounded back in light, and behind a winding crest the slope in shade."""
    top, wide = rng.uniform(90, 420), rng.uniform(110, 190)
    x = np.linspace(0, SIDE, 65)
    back = base - tall * np.exp(-(((x - top) / wide) ** 2)) - 5 * np.sin(x / 70 + rng.uniform(0, 6.3))
    sheet.polygon([*zip(x.tolist(), back.tolist(), strict=True), (SIDE, SIDE), (0, SIDE)], lit)
    crest = float(np.interp(top, x, back))
    shaded = (x - top) * side >= 0
    slope = list(zip(x[shaded].tolist(), back[shaded].tolist(), strict=True))[::side]
    down = np.linspace(1, 0, 20)
    foot = [(top + side * wide * (0.75 * t + 0.22 * sin(5 * t)), crest + (base + 90 - crest) * t) for t in down]
    sheet.polygon([(top, crest), *slope, (slope[-1][0], base + 90), *foot], mix(lit, (138, 96, 84), 0.34))


def paint_forest(rng: np.random.Generator) -> Painted:
    """Trunks in mist, pale and thin far off, dark and thick nearby, under a roof of leaves."""
    horizon = rng.uniform(290, 330)
    mist = vary((196, 210, 186), rng, 7)
    floor = vary((124, 116, 82), rng, 6)
    canvas = gradient(
        (0, mix(mist, (104, 136, 96), 0.6)),
        (horizon - 60, mist),
        (horizon, mix(mist, floor, 0.35)),
        (SIDE, mix(floor, (70, 66, 46), 0.45)),
    )
    glow(canvas, (rng.uniform(120, 390), horizon - 110), 110, (244, 244, 214), 0.7)
    ground = canvas[int(horizon) + 6 :]
    near = np.linspace(0, 1, len(ground), dtype=np.float32)[:, None]
    middle = rng.uniform(190, 320) + rng.uniform(-90, 90) * np.sin(2.4 * near)  # a winding path
    beside = 8 + 125 * near - np.abs(np.arange(SIDE, dtype=np.float32) - middle)
    tone(ground, 0.4 * (0.5 + beside / (2 + 8 * near)).clip(0, 1), (198, 182, 142))
    grain(ground, lay_down(field(1.2), rng, len(ground), 0.5), 0.11)
    sheet = Sheet(canvas)
    for share, count, wide, fall in ((0.78, 22, 5, 0), (0.55, 12, 10, 10), (0.28, 6, 19, 26), (0.0, 2, 38, 74)):
        bark = mix((78, 66, 54), mist, share)
        spots = rng.uniform(0, SIDE, count) if share else np.array([rng.uniform(-8, 60), rng.uniform(452, 520)])
        for x in spots:
            foot, lean, thick = horizon + fall + rng.uniform(0, 8), rng.normal(0, 7), wide * rng.uniform(0.7, 1.2)
            right = [(x + lean + thick / 2, 0), (x + thick * 0.55, foot - thick), (x + thick, foot)]
            left = [(x - thick, foot), (x - thick * 0.55, foot - thick), (x + lean - thick / 2, 0)]
            sheet.polygon([*right, *left], bark)
            if share < 0.7:
                shade = mix(bark, (40, 36, 40), 0.3 * (1 - share))
                sheet.polygon([(x + lean + thick * 0.15, 0), *right, (x + thick * 0.2, foot)], shade)
        leaf = mix((82, 112, 72), mist, share)
        for x in rng.uniform(-20, SIDE + 20, 40):
            size, y = rng.uniform(14, 32) * (1.2 - share * 0.5), rng.uniform(-22, 28) + 66 * share
            light = (206, 214, 150) if y < 30 * share + 20 and rng.random() < 0.4 else (56, 80, 58)
            sheet.ellipse(x, y, size * 1.3, size * 0.8, mix(leaf, light, rng.uniform(0, 0.3) * (1 - share)))
    _grow(sheet, rng, horizon + 22, 60, [(92, 116, 66), (112, 128, 74), (74, 92, 56)], 20)
    return sheet.canvas(), horizon + 12
