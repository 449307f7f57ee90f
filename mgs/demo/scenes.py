"""The places where the demo's things stand: landscapes, rooms and walls, with depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mgs.demo.canvas import Canvas
from mgs.demo.land_scenes import paint_desert, paint_forest, paint_meadow, paint_mountains
from mgs.demo.room_scenes import paint_kitchen, paint_living_room, paint_studio, paint_wallpaper
from mgs.demo.town_scenes import paint_brick_wall, paint_street
from mgs.demo.water_scenes import paint_beach, paint_cloudy, paint_night, paint_sunset, paint_water


@dataclass(frozen=True)
class Scene:
    """A place: the preposition before it in a sentence, whether it takes `a`, and its painter.

    The painter returns a new canvas and the y in pixels where the ground begins: things stand below it.
    """

    preposition: str
    article: bool
    paint: Callable[[np.random.Generator], tuple[Canvas, float]]


SCENES = {
    "grassy meadow": Scene("in", True, paint_meadow),
    "sunny beach": Scene("on", True, paint_beach),
    "snowy mountains": Scene("against", False, paint_mountains),
    "desert": Scene("in", True, paint_desert),
    "forest": Scene("in", True, paint_forest),
    "city street": Scene("on", True, paint_street),
    "starry night": Scene("on", True, paint_night),
    "sunset": Scene("at", False, paint_sunset),
    "living room": Scene("in", True, paint_living_room),
    "kitchen": Scene("in", True, paint_kitchen),
    "brick wall": Scene("against", True, paint_brick_wall),
    "striped wallpaper": Scene("against", False, paint_wallpaper),
    "deep water": Scene("in", False, paint_water),
    "cloudy sky": Scene("under", True, paint_cloudy),
}


def paint_scene(name: str | None, rng: np.random.Generator) -> tuple[Canvas, float]:
    """A new canvas (0-255) with a scene of `SCENES`, and the y in pixels where its ground begins.

    `None` is a plain backdrop with a soft floor. Equal generator states give equal pixels.
    """
    canvas, horizon = (SCENES[name].paint if name else paint_studio)(rng)
    return canvas.clip(0, 255), float(horizon)
