"""Eight vehicles; those on the ground drive to the left."""

from __future__ import annotations

from math import cos, sin

from mgs.demo.things.parts import (
    Part,
    Points,
    Thing,
    box,
    ellipse,
    flipped,
    limb,
    mirrored,
    points,
    ring,
    smooth,
    stroke,
    wheel,
)

CAR = Thing(
    "vehicle",
    (
        Part("body", points("24,60 36,37 42,35 68,35 74,38 86,60")),
        *limb("glass", points("31,58 39,41 52,41 52,58")),
        *limb("glass", points("56,58 56,41 68,41 77,58")),
        Part("body", smooth(points("2,80 3,66 14,60 30,57.5 60,57 84,57.5 96,62 98,80 90,86 50,87 10,86"))),
        Part("dark", box(0.03, 0.8, 0.97, 0.86, 0.03)),
        Part("dark", box(0.535, 0.59, 0.545, 0.8)),
        Part("light", box(0.58, 0.64, 0.66, 0.665, 0.01)),
        Part("pane", ellipse(0.07, 0.69, 0.04, 0.045)),
        Part("tomato", box(0.94, 0.66, 0.975, 0.74, 0.012)),
        *wheel(0.24, 0.835, 0.135),
        *wheel(0.76, 0.835, 0.135),
    ),
)

BUS = Thing(
    "vehicle",
    (
        Part("body", box(0.02, 0.2, 0.98, 0.88, 0.07)),
        Part("light", box(0.05, 0.22, 0.95, 0.26, 0.02)),
        *(part for x in (0.21, 0.385, 0.56) for part in limb("glass", box(x, 0.32, x + 0.13, 0.5, 0.02))),
        *limb("glass", box(0.045, 0.32, 0.165, 0.54, 0.02)),
        *limb("glass", box(0.75, 0.34, 0.89, 0.82, 0.02), ("steel", box(0.81, 0.34, 0.83, 0.82))),
        Part("dark", box(0.02, 0.6, 0.72, 0.66)),
        Part("pane", ellipse(0.06, 0.75, 0.035, 0.035)),
        *wheel(0.24, 0.86, 0.11),
        *wheel(0.63, 0.86, 0.11),
    ),
    plural="buses",
)

BOAT = Thing(
    "vehicle",
    (
        Part("wood", box(0.5, 0.06, 0.53, 0.72)),
        Part("tomato", points("51.5,2 68,6 51.5,10")),
        *limb(
            "body", smooth(points("55,12 70,30 90,62 86,65.5 57,65.5")), ("light", points("56,50 82,50 86,57 56,57"))
        ),
        *limb("cream", smooth(points("48,16 34,36 13,62 16,65 46,65"))),
        Part("body", points("2,71 98,71 90,86 82,97 20,97 10,88")),
        Part("dark", points("2,71 98,71 96.5,75 4,75")),
        *(Part("glass", ellipse(x, 0.84, 0.045, 0.045)) for x in (0.3, 0.5, 0.7)),
    ),
)

TRAIN = Thing(
    "vehicle",
    (
        *limb("dark", points("20,44 21,26 15,14 39,14 33,26 34,44")),
        Part("body", ellipse(0.48, 0.44, 0.07, 0.1)),
        Part("body", box(0.1, 0.4, 0.64, 0.74, 0.1)),
        Part("body", box(0.6, 0.2, 0.96, 0.8, 0.02)),
        Part("dark", box(0.55, 0.13, 0.98, 0.21, 0.03)),
        *limb("glass", box(0.68, 0.28, 0.88, 0.48, 0.02)),
        *(Part("dark", box(x, 0.4, x + 0.03, 0.74)) for x in (0.24, 0.42)),
        Part("dark", box(0.08, 0.72, 0.98, 0.82, 0.02)),
        *limb("steel", points("14,76 2,96 18,96")),
        Part("pane", ellipse(0.11, 0.5, 0.05, 0.06)),
        *wheel(0.28, 0.865, 0.1),
        *wheel(0.52, 0.865, 0.1),
        *wheel(0.8, 0.835, 0.13),
        Part("steel", stroke(points("28,87 80,87"), 0.03, 0.03)),
    ),
)


def _bicycle_wheel(x: float) -> tuple[Part, ...]:
    spokes = [
        stroke([(x - 0.17 * cos(t), 0.75 - 0.17 * sin(t)), (x + 0.17 * cos(t), 0.75 + 0.17 * sin(t))], 0.008, 0.008)
        for t in (0.3, 1.35, 2.4)
    ]
    rim = ("body", ring(x, 0.75, 0.19, 0.035))
    return limb("ink", ring(x, 0.75, 0.22, 0.04), *(("steel", spoke) for spoke in spokes), rim)


def _tube(start: tuple[float, float], stop: tuple[float, float]) -> Part:
    return Part("body", stroke([start, stop], 0.06, 0.06))


BICYCLE = Thing(
    "vehicle",
    (
        *_bicycle_wheel(0.235),
        *_bicycle_wheel(0.765),
        _tube((0.765, 0.75), (0.5, 0.75)),
        _tube((0.765, 0.75), (0.6, 0.4)),
        _tube((0.5, 0.75), (0.61, 0.36)),
        _tube((0.5, 0.75), (0.31, 0.42)),
        _tube((0.32, 0.41), (0.6, 0.42)),
        _tube((0.235, 0.75), (0.34, 0.3)),
        *limb("ink", stroke(points("22,36 20,28 28,25 42,27"), 0.045, 0.045)),
        *limb("ink", smooth(points("50,33 58,29 73,28 74,35 60,37"))),
        *limb(
            "steel",
            ellipse(0.5, 0.75, 0.065, 0.065),
            ("ink", stroke(points("50,75 45,87"), 0.03, 0.03)),
            ("ink", box(0.39, 0.86, 0.51, 0.895, 0.01)),
        ),
    ),
)

ROCKET = Thing(
    "vehicle",
    (
        *limb("flame", smooth(points("40,78 60,78 63,88 50,99 37,88")), ("pane", smooth(points("45,80 55,80 50,93")))),
        *limb("dark", smooth(points("33,52 18,66 14,90 24,84 38,78"))),
        *limb("dark", flipped(smooth(points("33,52 18,66 14,90 24,84 38,78")))),
        Part("body", smooth(mirrored(points("50,2 38,16 30,40 33,68 39,80")))),
        Part("dark", smooth(points("50,2 61,15 63,21 50,23.5 37,21 39,15"))),
        *limb("steel", ellipse(0.5, 0.37, 0.105, 0.105), ("glass", ellipse(0.5, 0.37, 0.075, 0.075))),
        *limb("steel", ellipse(0.5, 0.58, 0.065, 0.065), ("glass", ellipse(0.5, 0.58, 0.042, 0.042))),
        *limb("dark", box(0.47, 0.68, 0.53, 0.92, 0.03)),
    ),
    flies=True,
)

PLANE = Thing(
    "vehicle",
    (
        *limb("dark", points("40,50 56,24 64,24 60,50")),
        *limb("body", points("74,46 90,16 98,16 95,50")),
        Part("body", smooth(points("2,56 8,47 24,41 60,42 90,46 98,50 86,58 60,66 24,67 8,64"))),
        Part("light", smooth(points("6,61 30,62 70,60 60,65.5 24,66.5 10,64.5"))),
        *limb("glass", smooth(points("8,50 16,45.5 19,46 17,53 10,54"))),
        *(Part("glass", ellipse(x, 0.5, 0.028, 0.034)) for x in (0.28, 0.37, 0.46, 0.55, 0.64)),
        *limb("dark", points("82,53 95,50 99,62 93,63")),
        *limb("dark", points("36,58 58,57 78,86 68,87")),
        *limb("steel", box(0.38, 0.67, 0.54, 0.77, 0.045), ("ink", ellipse(0.4, 0.72, 0.02, 0.045))),
    ),
    flies=True,
)


def _gore(left: float, right: float) -> Points:
    """A strip of the balloon's cloth, between two shares of its half width."""
    rows = points("2,2 6,24 16,36 32,42 46,37 58,25 68,12")
    return smooth([(0.5 + left * w, y) for y, w in rows] + [(0.5 + right * w, y) for y, w in rows[::-1]])


BALLOON = Thing(
    "vehicle",
    (
        *(
            Part("wood", stroke([(0.5 + d, 0.66), (0.5 + d * 0.8, 0.84)], 0.012, 0.012))
            for d in (-0.11, -0.04, 0.04, 0.11)
        ),
        Part("body", _gore(-1, 1)),
        *limb("light", _gore(-0.74, -0.3)),
        *limb("light", _gore(0.3, 0.74)),
        Part("flame", smooth(points("46,77 50,69 54,77 50,79"))),
        *limb(
            "wood",
            points("38.5,82 61.5,82 59,98 41,98"),
            ("waffle", box(0.37, 0.81, 0.63, 0.85, 0.015)),
            ("waffle", box(0.4, 0.9, 0.6, 0.92)),
        ),
    ),
    flies=True,
)

VEHICLES: dict[str, Thing] = {
    "car": CAR, "bus": BUS, "boat": BOAT, "train": TRAIN, "bicycle": BICYCLE, "rocket": ROCKET, "plane": PLANE,
    "balloon": BALLOON,
}  # fmt: skip
