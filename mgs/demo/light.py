"""Light over a whole picture: golden rays, soft lighting, fog."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mgs.demo.canvas import SIDE, Canvas
from mgs.demo.scene_parts import cut_field, enlarge, field, tone

SMALL = SIDE // 4  # light is smooth: it is worked out at a quarter of the size


def _grid() -> tuple[Canvas, Canvas]:
    """Pixel coordinates of the small grid, in pixels of the canvas: x as (1, SMALL), y as (SMALL, 1)."""
    axis = np.linspace(0, SIDE - 1, SMALL, dtype=np.float32)
    return axis[None], axis[:, None]


def _shine_gold(canvas: Canvas, rng: np.random.Generator, horizon: float) -> None:
    x, y = _grid()
    x = x if rng.random() < 0.5 else SIDE - 1 - x
    turn = np.arctan2(y + 60, x + 60)
    phase = rng.uniform(0, 6.3, 2)
    rays = 0.62 + 0.26 * np.sin(19 * turn + phase[0]) + 0.16 * np.sin(37 * turn + phase[1])
    reach = (1.12 - np.hypot(x, y) / 640).clip(0, 1)
    for channel, level in enumerate((1.03, 0.95, 0.78)):
        canvas[..., channel] *= np.float32(level)
    tone(canvas, enlarge((0.85 * rays * reach).clip(0, 0.8), SIDE), (255, 214, 110))


def _soften(canvas: Canvas, rng: np.random.Generator, horizon: float) -> None:
    x, y = _grid()
    middle = SIDE / 2 + rng.uniform(-30, 30), SIDE / 2 + rng.uniform(-30, 30)
    far = ((x - middle[0]) ** 2 + (y - middle[1]) ** 2) / (SIDE / 2) ** 2
    pool = np.exp(-1.6 * far)
    tone(canvas, enlarge((0.05 + 0.3 * far).clip(0, 0.55), SIDE), (34, 32, 44))
    tone(canvas, enlarge(0.24 * pool, SIDE), (255, 246, 230))


def _fill_fog(canvas: Canvas, rng: np.random.Generator, horizon: float) -> None:
    _, y = _grid()
    below = ((y - horizon) / (SIDE - horizon)).clip(0, 1)
    above = ((horizon - y) / max(horizon, 1)).clip(0, 1)
    drift = 0.08 * cut_field(field(2.0), rng, SMALL, SMALL)
    thick = 0.82 - 0.54 * below**0.7 - 0.28 * above + drift
    tone(canvas, enlarge(thick.clip(0.2, 0.9), SIDE), (214, 219, 222))


@dataclass(frozen=True)
class Light:
    """A kind of light: its words in a sentence, and what it does to a canvas in place, given the horizon's y."""

    phrase: str
    shine: Callable[[Canvas, np.random.Generator, float], None]


LIGHTS = {
    "golden light": Light("in golden light", _shine_gold),
    "soft lighting": Light("with soft lighting", _soften),
    "fog": Light("in fog", _fill_fog),
}


def paint_light(canvas: Canvas, name: str | None, rng: np.random.Generator, horizon: float) -> Canvas:
    """The canvas in a light of `LIGHTS`, as a new canvas (0-255); `None` leaves it as it is.

    `horizon` is the y in pixels where the ground begins: fog is thickest there.
    """
    if name is None:
        return canvas
    lit = canvas.copy()
    LIGHTS[name].shine(lit, rng, horizon)
    return lit.clip(0, 255)
