"""What a thing is made of, and tools that build outlines in the unit square."""

from __future__ import annotations

from dataclasses import dataclass
from math import atan2, cos, pi, sin

import numpy as np
from numpy.typing import NDArray

Points = list[tuple[float, float]]  # in the unit square, y downwards


@dataclass(frozen=True)
class Part:
    """One filled outline of a thing.

    `tint` is "body", "dark" or "light", which follow the thing's colour, a key of `FIXED_TINTS`, or "hole", which
    erases what was painted before.
    """

    tint: str
    outline: Points
    limb: bool = False  # a bad image generator may leave it out, double, enlarge or bend it: ear, wheel, finger, window
    joined: bool = False  # a detail of the limb before it (a wheel's hub), which comes and goes with it
    seamless: bool = False  # painted without a contour, to hide the seams of parts of one tint


@dataclass(frozen=True)
class Thing:
    """Something to draw: its parts in the order of painting. Things on the ground stand at y = 0.97."""

    kind: str  # animal, vehicle, plant, building, food, object
    parts: tuple[Part, ...]
    flies: bool = False  # drawn in the air or the water, not on the ground
    plural: str | None = None  # where adding "s" is wrong

    def limbs(self) -> list[range]:
        """For each limb the places in `parts` of the limb and of its details, which follow it."""
        starts = [place for place, part in enumerate(self.parts) if part.limb]
        stops = [next((i for i in range(s + 1, len(self.parts)) if not self.parts[i].joined), None) for s in starts]
        return [range(s, len(self.parts) if stop is None else stop) for s, stop in zip(starts, stops, strict=True)]


def points(percent: str) -> Points:
    """Points from "x,y x,y ...", in percent of the square: `points("0,0 50,100")`."""
    pairs = (pair.split(",") for pair in percent.split())
    return [(float(x) / 100, float(y) / 100) for x, y in pairs]


def limb(tint: str, outline: Points, *details: tuple[str, Points]) -> tuple[Part, ...]:
    """A limb and the (tint, outline) of each of its details."""
    return (Part(tint, outline, limb=True), *(Part(other, shape, joined=True) for other, shape in details))


def eye(x: float, y: float, radius: float) -> tuple[Part, ...]:
    """A white eye with a dark pupil and a glint, which also shows on a black or a white thing; no limb."""
    pupil = ellipse(x, y, radius * 0.62, radius * 0.7)
    glint = ellipse(x - radius * 0.2, y - radius * 0.25, radius * 0.2, radius * 0.2)
    return Part("white", ellipse(x, y, radius, radius)), Part("ink", pupil), Part("white", glint)


def front_eye(x: float, y: float, radius: float) -> tuple[Part, ...]:
    """One of two eyes of a face seen from the front, as a limb."""
    white, *details = eye(x, y, radius)
    return limb(white.tint, white.outline, *((part.tint, part.outline) for part in details))


def wheel(x: float, y: float, radius: float) -> tuple[Part, ...]:
    """A tyre with a rim, as one limb."""
    rim, hub = ellipse(x, y, radius * 0.58, radius * 0.58), ellipse(x, y, radius * 0.2, radius * 0.2)
    return limb("ink", ellipse(x, y, radius, radius), ("steel", rim), ("ink", hub))


def ellipse(x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 2 * pi) -> Points:
    """Points on an ellipse about (x, y), or on its arc from one angle to another; a quarter turn points downwards."""
    return [(x + rx * cos(t), y + ry * sin(t)) for t in np.linspace(start, stop, 36)]


def ring(x: float, y: float, radius: float, width: float) -> Points:
    """A circular band: its outer and its inner edge, joined by a seam."""
    return ellipse(x, y, radius, radius) + ellipse(x, y, radius - width, radius - width, 2 * pi, 0)


def box(left: float, top: float, right: float, bottom: float, corner: float = 0) -> Points:
    """A rectangle; `corner` is the radius of its corners."""
    if not corner:
        return [(left, top), (right, top), (right, bottom), (left, bottom)]
    centres = (right, bottom, 0), (left, bottom, 1), (left, top, 2), (right, top, 3)
    return [
        (x + corner * (cos(t) - (1 if quarter in (0, 3) else -1)), y + corner * (sin(t) - (1 if quarter < 2 else -1)))
        for x, y, quarter in centres
        for t in np.linspace(quarter * pi / 2, (quarter + 1) * pi / 2, 7)
    ]


def flipped(outline: Points, axis: float = 0.5) -> Points:
    """The mirror image at the vertical line x = `axis`."""
    return [(2 * axis - x, y) for x, y in outline]


def mirrored(half: Points, axis: float = 0.5) -> Points:
    """A symmetric outline from its left or right half, given from one end of the axis to the other."""
    return half + [(x, y) for x, y in flipped(half, axis)[::-1] if x != axis]


def turned(outline: Points, angle: float, x: float, y: float) -> Points:
    """The outline turned clockwise by `angle` (radians) about (x, y)."""
    c, s = cos(angle), sin(angle)
    return [(x + (px - x) * c - (py - y) * s, y + (px - x) * s + (py - y) * c) for px, py in outline]


def smooth(outline: Points) -> Points:
    """A closed curve through the points (Catmull-Rom splines)."""
    return _listed(_spline(np.array([outline[-1], *outline, *outline[:2]])))


def stroke(path: Points, start: float, stop: float) -> Points:
    """A brush stroke along a curve through the points, with round ends; its width goes from `start` to `stop`."""
    line = np.append(_spline(np.array([path[0], *path, path[-1]])), [path[-1]], axis=0)
    way = np.gradient(line, axis=0)
    side = np.stack([-way[:, 1], way[:, 0]], axis=1) / np.hypot(way[:, :1], way[:, 1:])
    half = np.linspace(start, stop, len(line))[:, None] / 2
    first, last = atan2(side[0, 1], side[0, 0]), atan2(side[-1, 1], side[-1, 0])
    end = ellipse(*path[-1], stop / 2, stop / 2, last, last - pi)
    begin = ellipse(*path[0], start / 2, start / 2, first - pi, first - 2 * pi)
    return _listed(line + side * half) + end + _listed((line - side * half)[::-1]) + begin


def _spline(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Eight points on the Catmull-Rom spline from each point to the next, but for the first and the last one."""
    a, b, c, d = (points[i : len(points) - 3 + i] for i in range(4))  # (n, 2) each
    t = np.arange(8)[:, None, None] / 8
    curve = b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))  # (8, n, 2)
    return curve.swapaxes(0, 1).reshape(-1, 2)


def _listed(points: NDArray[np.float64]) -> Points:
    return [(float(x), float(y)) for x, y in points]
