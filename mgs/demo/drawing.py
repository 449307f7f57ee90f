"""Draw a picture: a scene, things in it from far to near, light, the medium, and a generator's faults."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mgs.demo.canvas import SIDE, Canvas, grid
from mgs.demo.faults import Damage, deform, degrade, disfigure_picture
from mgs.demo.generators import Drawn
from mgs.demo.layout import Figure, lay_out
from mgs.demo.light import paint_light
from mgs.demo.media import apply_medium
from mgs.demo.scenes import paint_scene
from mgs.demo.things.painting import COLOURS, fill_thing, shade
from mgs.demo.things.table import THINGS


@dataclass(frozen=True)
class Picture:
    """A picture and what is where in it."""

    pixels: NDArray[np.uint8]  # (512, 512, 3), RGB
    figures: list[Figure]  # farther ones first
    owner: NDArray[np.int8]  # (512, 512), the number of the figure that a pixel shows, -1 for none

    def mask(self, group: int) -> NDArray[np.bool_]:
        """The pixels that show a group, (512, 512)."""
        numbers = [i for i, figure in enumerate(self.figures) if figure.group == group]
        return np.isin(self.owner, numbers)


def draw(drawn: Drawn, damage: Damage, rng: np.random.Generator) -> Picture:
    """Draw and damage a picture. Equal arguments and generator state give an equal picture."""
    figures = lay_out(drawn, rng)
    canvas, horizon = paint_scene(drawn.scene, rng)
    owner = np.full((SIDE, SIDE), -1, dtype=np.int8)
    for number, figure in enumerate(figures):
        paint_figure(canvas, owner, (number, figure), damage.deform, rng)
    canvas = paint_light(canvas, drawn.light, rng, horizon)
    canvas = apply_medium(canvas, drawn.medium, rng)
    canvas, owner = disfigure_picture(canvas, owner, damage, rng)
    return Picture(degrade(canvas, damage, rng), figures, owner)


def paint_figure(
    canvas: Canvas, owner: NDArray[np.int8], numbered: tuple[int, Figure], deformed: float, rng: np.random.Generator
) -> None:
    """Paint a figure and its shadow, and note which pixels it covers."""
    number, figure = numbered
    thing, size = deform(THINGS[figure.thing], deformed, rng), int(figure.side)
    tile, alpha = fill_thing(thing, COLOURS[figure.colour], size, figure.tilt)
    tile = shade(tile, alpha)
    left, top = int(figure.x - size / 2), int(figure.y - size / 2)
    if not thing.flies:
        cast_shadow(canvas, figure)
    rows, columns = slice(max(0, top), min(SIDE, top + size)), slice(max(0, left), min(SIDE, left + size))
    inner = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    region = canvas[rows, columns]
    region += (tile[inner] - region) * alpha[inner]
    owner[rows, columns][alpha[inner][..., 0] > 0.5] = number


def cast_shadow(canvas: Canvas, figure: Figure) -> None:
    """Darken the ground where a thing stands."""
    x, y = grid()
    top = max(0, int(figure.y + figure.side * 0.3))
    across = (x - figure.x - figure.side * 0.06) / (figure.side * 0.5)
    down = (y[top:] - figure.y - figure.side * 0.46) / (figure.side * 0.09)
    canvas[top:] *= 1 - np.float32(0.45) * np.exp(-((across**2 + down**2) ** 2))
