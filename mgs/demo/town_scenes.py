"""Scenes in a town. Each painter returns a canvas and the y where its ground begins."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mgs.demo.canvas import SIDE, Canvas
from mgs.demo.scene_parts import (
    Colour,
    Sheet,
    add_clouds,
    cut_field,
    field,
    floor_lines,
    glow,
    gradient,
    grain,
    lay_down,
    light_room,
    mix,
    vary,
)

Painted = tuple[Canvas, float]


def paint_brick_wall(rng: np.random.Generator) -> Painted:
    """Bricks of many tints above a pavement."""
    horizon = rng.uniform(345, 375)
    brick = vary((162, 112, 96), rng, 9)
    mortar = mix(brick, (206, 198, 186), 0.72)
    sheet = Sheet(gradient((0, mortar), (SIDE, mortar)))
    high = rng.uniform(25, 30)
    wide = high * 2.35
    for row, y in enumerate(np.arange(horizon - 20 - high, -high, -high)):
        for x in np.arange(-wide + (row % 2) * wide / 2 - 8, SIDE, wide):
            tint = vary(mix(brick, (108, 74, 72) if rng.random() < 0.16 else brick, 0.5), rng, 9)
            sheet.box(x, y, x + wide - 4, y + high - 4, mix(tint, (70, 50, 50), 0.28))
            sheet.box(x, y, x + wide - 5, y + high - 5.5, tint)
    sheet.box(0, horizon - 21, SIDE, horizon, mix(brick, (150, 148, 146), 0.8))
    sheet.box(0, horizon - 21, SIDE, horizon - 18, (188, 184, 178))
    stone = vary((164, 162, 158), rng, 6)
    sheet.box(0, horizon, SIDE, SIDE, stone)
    floor_lines(sheet, horizon, (rng.uniform(180, 330), horizon - 130), 92, (0.26, 0.62), mix(stone, (84, 82, 84), 0.6))
    canvas = sheet.canvas()
    floor = canvas[int(horizon) :]
    grain(floor, lay_down(field(0.6), rng, len(floor), 0.6, 0.3), 0.055)
    grain(canvas[: int(horizon)], cut_field(field(1.2), rng, int(horizon)), 0.06)
    light_room(canvas, rng, horizon)
    return canvas, horizon + 6


def paint_street(rng: np.random.Generator) -> Painted:
    """Two rows of buildings that run to a vanishing point, a pale skyline, pavements and a road."""
    horizon = rng.uniform(255, 280)
    x = rng.uniform(215, 297)
    canvas = gradient((0, vary((160, 184, 206), rng, 8)), (horizon, (232, 228, 218)))
    add_clouds(canvas[: int(horizon)], rng, 0.4, (246, 244, 240), (190, 196, 206))
    sheet = Sheet(canvas)
    haze: Colour = (222, 222, 218)
    for at in np.sort(rng.uniform(-70, 70, 12)):
        tall = rng.uniform(30, 110) * (1 - abs(at) / 140)
        sheet.box(x + at - 11, horizon - tall, x + at + 11, horizon + 2, mix(vary((140, 146, 160), rng, 8), haze, 0.6))
    road = vary((128, 130, 136), rng, 5)
    sheet.box(0, horizon, SIDE, SIDE, mix(road, (176, 172, 166), 0.7))
    sheet.polygon([(x - 5, horizon), (x + 5, horizon), (x + 330, SIDE), (x - 330, SIDE)], road)
    for side in (-1, 1):
        sheet.polygon(
            [(x + side * 5, horizon), (x + side * 5.4, horizon), (x + side * 344, SIDE), (x + side * 326, SIDE)],
            (196, 192, 184),
        )
        _paint_row(sheet, rng, (x, horizon), side, haze)
    for near in (0.05, 0.1, 0.18, 0.3, 0.48, 0.74):
        y, low = (horizon + (SIDE - horizon) * part for part in (near, near * 1.3))
        sheet.polygon([(x - 7 * near, y), (x + 7 * near, y), (x + 9 * near, low), (x - 9 * near, low)], (222, 218, 204))
    canvas = sheet.canvas()
    ground = canvas[int(horizon) :]
    grain(ground, lay_down(field(0.6), rng, len(ground), 0.6), 0.05)
    glow(canvas, (x, horizon), 110, (240, 236, 222), 0.35)
    return canvas, horizon + 60


def _paint_row(sheet: Sheet, rng: np.random.Generator, vanish: tuple[float, float], side: int, haze: Colour) -> None:
    """The buildings of one side of a street, the far ones first; `side` is -1 for the left."""
    x, y = vanish
    edges = np.array([0.06, 0.11, 0.19, 0.33, 0.56, 1.0]) * 400
    for far, near in pairwise(edges.tolist()):
        share = 0.65 * (1 - far / 230)
        front = mix(
            vary(((176, 150, 132), (158, 160, 166), (186, 176, 156), (150, 138, 140))[int(rng.integers(4))], rng, 8),
            haze,
            max(share, 0),
        )
        tall, count = rng.uniform(0.85, 1.6), 3
        sheet.polygon(
            [
                (x + side * reach, y + rise * reach)
                for reach, rise in ((far, 0.42), (far, -tall), (near, -tall), (near, 0.42))
            ],
            front,
        )
        sheet.polygon(
            [
                (x + side * far, y - tall * far),
                (x + side * far * 0.9, y - tall * far),
                (x + side * far * 0.9, y + 0.42 * far),
                (x + side * far, y + 0.42 * far),
            ],
            mix(front, (110, 108, 120), 0.25),
        )
        glass = mix(mix(front, (92, 104, 124), 0.7), haze, max(share, 0) * 0.5)
        for floor in np.arange(0.02, tall - 0.2, 0.24):
            for column in range(count):
                a, b = (far + (near - far) * (column + part) / count for part in (0.2, 0.75))
                lit = mix(glass, (238, 222, 176), 0.6) if rng.random() < 0.14 else glass
                sheet.polygon(
                    [
                        (x + side * r, y - h * r)
                        for r, h in ((a, floor), (a, floor + 0.15), (b, floor + 0.15), (b, floor))
                    ],
                    lit,
                )
        sheet.polygon(
            [(x + side * r, y + h * r) for r, h in ((far, 0.42), (far, 0.14), (near, 0.14), (near, 0.42))],
            mix(front, (84, 82, 92), 0.4),
        )
