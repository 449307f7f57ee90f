"""Scenes of sky and water. Each painter returns a canvas and the y where its ground begins."""

from __future__ import annotations

from math import cos, sin

import numpy as np

from mgs.demo.canvas import SIDE, Canvas
from mgs.demo.scene_parts import (
    Sheet,
    add_clouds,
    cut_field,
    enlarge,
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


def paint_beach(rng: np.random.Generator) -> Painted:
    """Sun, sea with a headland, surf and sand."""
    sea_line, horizon = rng.uniform(185, 220), rng.uniform(290, 325)
    canvas = paint_sky(rng, sea_line, (126, 184, 214), (226, 236, 230), rng.uniform(0.15, 0.4))
    sun = rng.uniform(50, 460), rng.uniform(40, 110)
    glow(canvas, sun, 80, (255, 246, 200), 0.8)
    sheet = Sheet(canvas)
    sheet.ellipse(*sun, 26, 26, (255, 246, 204))
    side = rng.choice((-1, 1))
    cape = [
        (SIDE * (side > 0) - side * x, sea_line + 3 - y) for x, y in ((0, 0), (0, 46), (60, 38), (120, 18), (190, 0))
    ]
    sheet.polygon(cape, (150, 168, 164))
    water = vary((92, 158, 172), rng, 8)
    for step in np.linspace(0, 1, 24):
        y = sea_line + (horizon + 24 - sea_line) * step
        sheet.box(0, y, SIDE, y + 8, mix(mix(water, (86, 138, 166), 1 - step), (190, 216, 206), max(0, step - 0.6)))
    for x, y, near in scatter(rng, 70, sea_line + 2):
        if y < horizon - 12:
            sheet.ellipse(x, y, 8 + 60 * near, 0.6 + 2.5 * near, mix(water, (222, 236, 232), 0.35 + 0.3 * near))
    phase = rng.uniform(0, 6.3)
    shore = [(x, horizon + 9 * sin(x / 70 + phase) + 4 * sin(x / 23 + 2 * phase)) for x in range(0, SIDE + 8, 8)]
    corners = [(SIDE, SIDE), (0, SIDE)]
    sand = vary((218, 196, 154), rng, 6)
    for lift, tint in (
        (8, (238, 242, 236)),
        (-3, mix(sand, (150, 140, 120), 0.55)),
        (-12, mix(sand, (170, 156, 126), 0.3)),
    ):
        sheet.polygon([*((x, y - lift) for x, y in shore), *corners], tint)
    sheet.polygon([*((x, y + 24 + 3 * sin(x / 31)) for x, y in shore), *corners], sand)
    for x, y, near in scatter(rng, 40, horizon + 40):
        sheet.ellipse(x, y, 0.8 + 3 * near, 0.5 + 1.8 * near, mix(sand, (120, 104, 84), rng.uniform(0.2, 0.7)))
    canvas = sheet.canvas()
    ground = canvas[int(horizon) + 20 :]
    grain(ground, lay_down(field(1.2), rng, len(ground), 0.4), 0.06)
    grain(ground, lay_down(field(0.6), rng, len(ground), 0.3), 0.025)
    return canvas, horizon + 26


def paint_night(rng: np.random.Generator) -> Painted:
    """The milky way and stars above moonlit hills."""
    horizon = rng.uniform(300, 345)
    canvas = gradient((0, vary((42, 52, 104), rng, 6)), (horizon, vary((104, 98, 150), rng, 6)))
    axis = np.linspace(0, SIDE, 128, dtype=np.float32)
    x, y = axis[None], axis[:, None]
    slope, start = rng.choice((-1, 1)) * rng.uniform(0.4, 0.9), rng.uniform(80, 200)
    dust = cut_field(field(2.0), rng)[::4, ::4]
    band = np.exp(-(((y - start - slope * (x - 256)) / 62) ** 2)) * (0.32 + 0.13 * dust)
    tone(canvas, enlarge(band.clip(0, 0.7), SIDE), (176, 166, 204))
    sheet = Sheet(canvas)
    for size in np.sort(rng.exponential(0.75, 170)).clip(0.5, 3.4):
        at = rng.uniform(0, SIDE), rng.uniform(0, horizon)
        sheet.ellipse(*at, size, size, mix((168, 172, 214), (255, 250, 226), min(1, size / 2)))
    for at in rng.uniform(20, (SIDE - 20, horizon - 90), (5, 2)):
        arm = rng.uniform(6, 10)
        for turn in (0, 1.571, 3.142, 4.712):
            tip = (at[0] + arm * cos(turn), at[1] + arm * sin(turn))
            side = (1.5 * sin(turn), -1.5 * cos(turn))
            sheet.polygon(
                [(at[0] + side[0], at[1] + side[1]), tip, (at[0] - side[0], at[1] - side[1])], (255, 250, 226)
            )
    land = vary((104, 116, 146), rng, 6)
    for share, rise, height in ((0.6, 16, 60), (0.35, 2, 44), (0.0, -22, 26)):
        sheet.polygon(
            ridge(rng, horizon - rise + 12, height, 1.2), mix(mix(land, (44, 50, 86), 0.55), (112, 108, 158), share)
        )
    sheet.polygon(ridge(rng, horizon + 46, 24), land)
    canvas = sheet.canvas()
    ground = canvas[int(horizon) :]
    tone(ground, 0.45 * np.linspace(0, 1, len(ground), dtype=np.float32)[:, None], (72, 84, 116))
    grain(ground, lay_down(field(1.2), rng, len(ground), 0.5), 0.07)
    return canvas, horizon + 30


def paint_sunset(rng: np.random.Generator) -> Painted:
    """A low sun over water, streaks of cloud, and a dusky shore."""
    sea_line, horizon = rng.uniform(235, 265), rng.uniform(325, 355)
    low = vary((244, 184, 122), rng, 8)
    canvas = gradient(
        (0, vary((112, 92, 140), rng, 7)),
        (sea_line * 0.55, (202, 130, 138)),
        (sea_line, low),
        (sea_line, low),
        (SIDE, (124, 92, 128)),
    )
    sun = rng.uniform(120, 390), sea_line - rng.uniform(4, 30)
    sky = canvas[: int(sea_line)]
    streaks = lay_down(field(1.7, 0.12), rng, len(sky), 0.3, 0.25, centre=sun[0])[::-1]  # they stream from the sun
    tone(sky, (0.6 * streaks - 0.1).clip(0, 0.55), (142, 92, 124))
    tone(sky, (-0.5 * streaks - 0.1).clip(0, 0.4), (250, 196, 150))
    glow(canvas, sun, 120, (255, 214, 140), 0.75)
    sheet = Sheet(canvas)
    sheet.ellipse(*sun, 38, 38, (255, 232, 164))
    sheet.polygon([*ridge(rng, sea_line + 2, 24, 1.3)[:-2], (SIDE, sea_line), (0, sea_line)], (146, 100, 128))
    for step in np.linspace(0, 1, 16):
        sheet.box(
            0, sea_line + 130 * step, SIDE, sea_line + 130 * step + 10, mix((214, 154, 132), (132, 98, 132), step)
        )
    for x, y, near in scatter(rng, 60, sea_line + 1):
        sheet.ellipse(x, y, 8 + 50 * near, 0.6 + 2 * near, mix((232, 170, 138), (120, 88, 128), rng.random()))
    for y in np.arange(sea_line + 2, horizon + 10, 5):
        wide = rng.uniform(8, 34) + 0.2 * (y - sea_line)
        sheet.ellipse(sun[0] + rng.normal(0, 7), y, wide, 1.7, (255, 222, 158))
    shore = vary((138, 114, 124), rng, 5)
    sheet.polygon(ridge(rng, horizon + 8, 16), mix(shore, (80, 62, 88), 0.45))
    sheet.polygon(ridge(rng, horizon + 30, 14), shore)
    canvas = sheet.canvas()
    ground = canvas[int(horizon) :]
    grain(ground, lay_down(field(1.2), rng, len(ground), 0.5), 0.08)
    glow(canvas, (sun[0], SIDE), 150, (214, 160, 130), 0.3)
    return canvas, horizon + 16


def paint_cloudy(rng: np.random.Generator) -> Painted:
    """Heaped clouds over a low, pale plain."""
    horizon = rng.uniform(375, 400)
    canvas = gradient((0, vary((116, 146, 178), rng, 8)), (horizon, (208, 218, 224)))
    sky = canvas[: int(horizon)]
    add_clouds(sky, rng, rng.uniform(0.7, 0.85), (244, 244, 244), (150, 160, 176))
    add_clouds(sky, rng, rng.uniform(0.45, 0.6), (236, 238, 242), (132, 144, 164))
    sheet = Sheet(canvas)
    land = vary((152, 158, 132), rng, 6)
    for share, rise in ((0.7, 4), (0.4, -4), (0.0, -14)):
        sheet.polygon(ridge(rng, horizon - rise, 12), mix(land, (188, 200, 206), share))
    canvas = sheet.canvas()
    ground = canvas[int(horizon) + 8 :]
    tone(ground, 0.4 * np.linspace(0, 1, len(ground), dtype=np.float32)[:, None], (112, 122, 96))
    grain(ground, lay_down(field(1.2), rng, len(ground), 0.5), 0.08)
    return canvas, horizon + 8


def paint_water(rng: np.random.Generator) -> Painted:
    """Under water: rays from the surface, rocks in the blue, weeds, bubbles and a bed of sand."""
    horizon = rng.uniform(340, 380)
    deep = vary((62, 122, 152), rng, 8)
    canvas = gradient(
        (0, mix(deep, (196, 232, 226), 0.75)),
        (170, deep),
        (horizon, mix(deep, (40, 84, 122), 0.5)),
        (SIDE, mix(deep, (40, 84, 122), 0.5)),
    )
    axis = np.linspace(0, SIDE, 128, dtype=np.float32)
    turn = np.arctan2(axis[None] - rng.uniform(100, 400), axis[:, None] + 160)
    phase = rng.uniform(0, 6.3, 3)
    rays = np.sin(turn * 23 + phase[0]) + np.sin(turn * 41 + phase[1]) + 0.6 * np.sin(turn * 67 + phase[2])
    tone(canvas, enlarge((0.2 * rays).clip(0, 0.5) * (1 - axis[:, None] / 430).clip(0, 1), SIDE), (214, 240, 226))
    sheet = Sheet(canvas)
    for share, fall, height in ((0.7, 0, 110), (0.45, 8, 64)):
        sheet.polygon(ridge(rng, horizon + fall, height, 1.6), mix((52, 82, 104), deep, share))
    sand = mix(vary((184, 180, 146), rng, 5), deep, 0.25)
    sheet.polygon(ridge(rng, horizon + 16, 16), mix(sand, deep, 0.45))
    sheet.polygon(ridge(rng, horizon + 52, 30), sand)
    for root in (*rng.uniform(-5, 70, 4), *rng.uniform(440, 515, 4)):
        tall, sway, foot = rng.uniform(60, 150), rng.uniform(0, 6), rng.uniform(430, 505)
        steps = np.linspace(0, 1, 12)
        stem = [(root + 9 * t * sin(sway + 5 * t), foot - tall * t) for t in steps]
        outline = [(a - 5 * (1 - t), b) for (a, b), t in zip(stem, steps, strict=True)] + [
            (a + 5 * (1 - t), b) for (a, b), t in zip(stem[::-1], steps[::-1], strict=True)
        ]
        sheet.polygon(outline, mix(vary((74, 122, 92), rng, 8), deep, 0.25))
    for group in rng.uniform((30, 120), (480, 330), (5, 2)):
        for _ in range(5):
            bx, by, size = group[0] + rng.normal(0, 9), group[1] + rng.normal(0, 34), rng.uniform(2, 7)
            sheet.ellipse(bx, by, size, size, (190, 222, 226))
            sheet.ellipse(bx, by, size - 1.3, size - 1.3, (118, 170, 188))
            sheet.ellipse(bx - size * 0.3, by - size * 0.3, size * 0.25, size * 0.25, (236, 248, 246))
    canvas = sheet.canvas()
    bed = canvas[int(horizon) + 16 :]
    ripple = np.abs(lay_down(field(2.0), rng, len(bed), 0.5))
    tone(bed, (0.4 - 1.3 * ripple).clip(0, 0.4), (232, 238, 206))
    return canvas, horizon + 30
