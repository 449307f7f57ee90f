"""Scenes within walls. Each painter returns a canvas and the y where its floor begins."""

from __future__ import annotations

import numpy as np

from mgs.demo.canvas import SIDE, Canvas
from mgs.demo.scene_parts import (
    Colour,
    Sheet,
    cut_field,
    field,
    floor_lines,
    glow,
    gradient,
    grain,
    lay_down,
    light_room,
    mix,
    scatter,
    tone,
    vary,
)

Painted = tuple[Canvas, float]
WALLS: tuple[Colour, ...] = (
    (206, 196, 178), (168, 184, 188), (190, 178, 196), (176, 192, 170), (204, 184, 176), (150, 160, 176),
)  # fmt: skip


CLOTHS: tuple[Colour, ...] = (
    (146, 112, 114), (106, 130, 118), (112, 122, 150), (152, 128, 98), (128, 110, 138), (98, 126, 138),
)  # fmt: skip


def _wall_colour(rng: np.random.Generator) -> Colour:
    return vary(WALLS[int(rng.integers(len(WALLS)))], rng, 7)


def _lay_planks(sheet: Sheet, rng: np.random.Generator, horizon: float, wood: Colour, vanish: float) -> None:
    """A floor of boards that run away from the viewer."""
    top, pitch = horizon - 150, rng.uniform(52, 66)
    scale = (horizon - top) / (SIDE - top)
    for end in np.arange(vanish - 14 * pitch, vanish + 14 * pitch, pitch):
        start, stop = vanish + (end - vanish) * scale, vanish + (end + pitch - vanish) * scale
        sheet.polygon([(start, horizon), (stop, horizon), (end + pitch, SIDE), (end, SIDE)], vary(wood, rng, 5))
    floor_lines(sheet, horizon, (vanish, top), pitch, (), mix(wood, (60, 44, 36), 0.45))


def _cloth_colour(rng: np.random.Generator) -> Colour:
    return vary(CLOTHS[int(rng.integers(len(CLOTHS)))], rng, 8)


def paint_studio(rng: np.random.Generator) -> Painted:
    """A plain backdrop that bends into a soft floor."""
    horizon = rng.uniform(320, 350)
    colour = _wall_colour(rng)
    canvas = gradient(
        (0, mix(colour, (70, 72, 84), 0.16)),
        (horizon - 60, colour),
        (horizon + 10, mix(colour, (70, 72, 84), 0.2)),
        (horizon + 60, mix(colour, (240, 240, 236), 0.12)),
        (SIDE, mix(colour, (70, 72, 84), 0.12)),
    )
    glow(canvas, (rng.uniform(160, 350), rng.uniform(120, 230)), 190, mix(colour, (250, 248, 240), 0.6), 0.6)
    grain(canvas, cut_field(field(0.6), rng), 0.012)
    return canvas, horizon


def paint_living_room(rng: np.random.Generator) -> Painted:
    """A wall with a window, curtains, pictures and a sofa, above boards and a rug."""
    horizon = rng.uniform(305, 335)
    wall = _wall_colour(rng)
    wood = vary((164, 128, 96), rng, 9)
    sheet = Sheet(gradient((0, wall), (SIDE, wall)))
    window = float(rng.choice((rng.uniform(96, 130), rng.uniform(380, 416))))
    other = SIDE - window
    _paint_window(sheet, rng, window, wall)
    for x, wide, high in ((other - 44, 26, 34), (other + 40, 32, 24)):
        y = rng.uniform(92, 118)
        sheet.box(x - wide - 5, y - high - 5, x + wide + 5, y + high + 5, mix(wood, (50, 40, 36), 0.5))
        sheet.box(x - wide, y - high, x + wide, y + high, (226, 220, 206))
        sheet.polygon(
            [
                (x - wide, y + high),
                (x - wide, y),
                (x - wide * 0.3, y - high * 0.4),
                (x + wide * 0.4, y + high * 0.4),
                (x + wide, y),
                (x + wide, y + high),
            ],
            vary((150, 158, 156), rng, 14),
        )
    _lay_planks(sheet, rng, horizon, wood, rng.uniform(200, 312))
    sheet.box(0, horizon - 13, SIDE, horizon, mix(wall, (250, 248, 242), 0.6))
    sofa = _cloth_colour(rng)
    left, right = other - 105, other + 105
    sheet.box(left + 8, horizon + 16, right - 8, horizon + 26, mix(wood, (50, 40, 36), 0.6))
    for x0, y0, x1, y1, share in (
        (left, -92, right, 10, 0.0),
        (left + 16, -34, right - 16, 18, -0.14),
        (left - 16, -58, left + 20, 20, 0.12),
        (right - 20, -58, right + 16, 20, 0.12),
    ):
        sheet.box(
            x0,
            horizon + y0 + 8,
            x1,
            horizon + y1,
            mix(sofa, (44, 44, 56) if share > 0 else (226, 224, 220), abs(share)),
        )
        sheet.ellipse(
            (x0 + x1) / 2,
            horizon + y0 + 8,
            (x1 - x0) / 2,
            8,
            mix(sofa, (44, 44, 56) if share > 0 else (226, 224, 220), abs(share)),
        )
    sheet.line([(other, horizon - 84), (other, horizon + 16)], mix(sofa, (44, 44, 56), 0.3), 1.5)
    rug = mix(_cloth_colour(rng), (226, 214, 198), 0.4)
    for shrink, tint in (
        (1.0, mix(rug, (80, 66, 72), 0.35)),
        (0.92, rug),
        (0.72, mix(rug, (226, 216, 200), 0.4)),
        (0.66, rug),
    ):
        sheet.ellipse(256 + (window - 256) * 0.2, 428, 205 * shrink, 62 * shrink, tint)
    canvas = sheet.canvas()
    light_room(canvas, rng, horizon)
    return canvas, horizon + 26


def _paint_window(sheet: Sheet, rng: np.random.Generator, x: float, wall: Colour) -> None:
    """A window with sky and hills in it, between curtains."""
    frame: Colour = (236, 232, 222)
    sheet.box(x - 82, 34, x + 82, 226, frame)
    for pane in (-1, 1):
        for top, low in ((42, 126), (134, 218)):
            a, b = sorted((x + pane * 4, x + pane * 74))
            sheet.box(a, top, b, low, (172, 204, 222) if top < 100 else (204, 222, 226))
            if top > 100:
                sheet.polygon([(a, low), (a, 196), ((a + b) / 2, 184 + 6 * pane), (b, 194), (b, low)], (150, 172, 136))
    cloth = mix(wall, _cloth_colour(rng), 0.6)
    for side in (-1, 1):
        for fold in range(4):
            inner = x + side * (60 + 12 * fold)
            sheet.polygon(
                [(inner, 26), (inner + side * 13, 26), (inner + side * 16, 268), (inner + side * 2, 268)],
                mix(cloth, (60, 48, 56) if fold % 2 else (240, 230, 222), 0.18),
            )
    sheet.box(x - 116, 22, x + 116, 29, (112, 92, 78))
    sheet.box(x - 92, 226, x + 92, 236, frame)


def paint_kitchen(rng: np.random.Generator) -> Painted:
    """Tiles, cupboards and a shelf of jars behind a counter."""
    horizon = rng.uniform(300, 335)
    tile = vary((196, 208, 206), rng, 8)
    accent = vary((150, 176, 180), rng, 14)
    sheet = Sheet(gradient((0, mix(tile, (110, 118, 122), 0.35)), (SIDE, mix(tile, (110, 118, 122), 0.35))))
    pitch = rng.uniform(36, 42)
    for row, y in enumerate(np.arange(horizon - pitch, 60, -pitch)):
        for column in range(-1, 15):
            x = column * pitch + 6
            tint = accent if row == 2 and column % 2 else vary(tile, rng, 3)
            sheet.box(x, y, x + pitch - 2.5, y + pitch - 2.5, tint)
    wood = vary((176, 150, 122), rng, 9)
    gap = int(rng.integers(0, 3))
    for number in range(4):
        x = number * 128
        if number == gap:
            continue
        sheet.box(x, 0, x + 128, 104, mix(wood, (70, 56, 48), 0.4))
        sheet.box(x + 3, 0, x + 125, 100, wood)
        sheet.box(x + 15, 0, x + 113, 86, mix(wood, (90, 72, 58), 0.25))
        sheet.box(x + 18, 0, x + 113, 86, mix(wood, (236, 222, 204), 0.12))
        sheet.box(x + (112 if number % 2 else 8), 66, x + (118 if number % 2 else 14), 92, (92, 92, 96))
    shelf = gap * 128
    sheet.box(shelf + 4, 92, shelf + 124, 102, mix(wood, (70, 56, 48), 0.3))
    for x in range(shelf + 22, shelf + 120, 28):
        high, tint = rng.uniform(24, 46), vary((188, 176, 160), rng, 18)
        sheet.box(x - 10, 92 - high, x + 10, 92, tint)
        sheet.box(x - 8, 92 - high - 6, x + 8, 92 - high, mix(tint, (70, 60, 56), 0.5))
        sheet.box(x - 7, 92 - high + 3, x - 4, 88, mix(tint, (250, 250, 246), 0.5))
    rail = rng.uniform(110, 330) if gap else rng.uniform(150, 330)
    sheet.box(rail - 60, 128, rail + 60, 132, (120, 120, 124))
    for number, x in enumerate(np.linspace(rail - 46, rail + 46, 4)):
        low, steel = 132 + rng.uniform(46, 60), vary((134, 136, 140), rng, 8)
        sheet.box(x - 1.5, 130, x + 1.5, low, steel)
        if number % 2:
            sheet.ellipse(x, low + 6, 10, 9, steel)
        else:
            sheet.box(x - 8, low - 4, x + 8, low + 20, mix(steel, wood, 0.5))
    counter = vary((192, 182, 170), rng, 8)
    sheet.box(0, horizon, SIDE, SIDE, counter)
    for x, y, near in scatter(rng, 260, horizon):  # chips in the stone
        size = 0.7 + 2.6 * near
        sheet.ellipse(
            x, y, size, size * 0.6, mix(counter, ((112, 106, 104), (236, 232, 224))[int(rng.integers(2))], 0.5)
        )
    sheet.box(0, horizon - 9, SIDE, horizon, mix(counter, (110, 104, 100), 0.35))
    canvas = sheet.canvas()
    shine = np.exp(-(((np.arange(SIDE, dtype=np.float32) - rng.uniform(100, 400)) / 130) ** 2))[None]
    top = canvas[int(horizon) :]
    tone(top, 0.3 * shine * np.linspace(1, 0, len(top), dtype=np.float32)[:, None], (244, 242, 236))
    light_room(canvas, rng, horizon)
    tone(canvas[498:], np.full((SIDE - 498, SIDE), 0.4, np.float32), (96, 84, 76))
    return canvas, horizon + 8


def paint_wallpaper(rng: np.random.Generator) -> Painted:
    """Wide stripes of two muted tones above a skirting board and a carpet."""
    horizon = rng.uniform(345, 375)
    light = mix(_wall_colour(rng), (226, 220, 208), 0.45)
    dark = mix(_cloth_colour(rng), light, 0.15)
    sheet = Sheet(gradient((0, light), (SIDE, light)))
    pitch = rng.uniform(56, 78)
    for x in np.arange(-rng.uniform(0, pitch), SIDE, pitch):
        sheet.box(x, 0, x + pitch * 0.5, horizon, dark)
        for edge in (-0.1, 0.57):
            sheet.box(x + pitch * edge, 0, x + pitch * (edge + 0.035), horizon, mix(dark, light, 0.3))
    sheet.box(0, horizon - 30, SIDE, horizon, (226, 222, 212))
    sheet.box(0, horizon - 25, SIDE, horizon - 23, (180, 176, 168))
    carpet = vary((150, 136, 130), rng, 12)
    sheet.box(0, horizon, SIDE, SIDE, carpet)
    canvas = sheet.canvas()
    floor = canvas[int(horizon) :]
    grain(floor, lay_down(field(0.6), rng, len(floor), 0.5, 0.3), 0.07)
    light_room(canvas, rng, horizon)
    return canvas, horizon + 6
