"""Twelve objects."""

from __future__ import annotations

from math import cos, pi, sin

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
    smooth,
    stroke,
    turned,
)

CUP = Thing(
    "object",
    (
        *(
            Part("cream", stroke([(x, 0.27), (x - 0.05, 0.2), (x + 0.04, 0.12), (x, 0.03)], 0.035, 0.03))
            for x in (0.3, 0.5)
        ),
        *limb("body", stroke(points("66,44 86,42 92,58 82,72 62,76"), 0.075, 0.075)),
        *limb("light", smooth(points("4,89 40,87 78,89 70,96 40,97 12,96"))),
        Part("body", smooth(points("8,34 40,30 72,34 70,60 60,86 40,91 20,86 10,60"))),
        Part("light", ellipse(0.4, 0.345, 0.32, 0.065)),
        Part("wood", ellipse(0.4, 0.355, 0.27, 0.045)),
        Part("dark", stroke(points("10,56 40,63 70,56"), 0.035, 0.035)),
    ),
)


def _cloth(left: float, right: float) -> Points:
    """A panel of the umbrella between two shares of its half width, scalloped below."""
    edges = [
        [(0.5 + share * 0.48 * sin(t), 0.5 - 0.42 * cos(t)) for t in (0, 0.35, 0.7, 1.05, 1.35, pi / 2)]
        for share in (left, right)
    ]
    middle = 0.5 + (left + right) * 0.24
    return [*edges[0], (middle, 0.45), *edges[1][::-1]]


UMBRELLA = Thing(
    "object",
    (
        *limb("wood", stroke(points("50,30 50,60 50,86 56,94 65,93 68,84"), 0.035, 0.05)),
        Part("ink", box(0.487, 0.02, 0.513, 0.12, 0.01)),
        *limb("body", _cloth(-1, -0.5)),
        *limb("body", _cloth(0.5, 1)),
        *limb("dark", _cloth(-0.5, 0)),
        *limb("body", _cloth(0, 0.5)),
    ),
)

CHAIR = Thing(
    "object",
    (
        *limb("dark", box(0.28, 0.66, 0.35, 0.89)),
        *limb("dark", box(0.71, 0.66, 0.78, 0.89)),
        *limb("body", box(0.3, 0.1, 0.76, 0.21)),
        *limb("body", box(0.3, 0.29, 0.76, 0.38)),
        Part("body", box(0.25, 0.03, 0.34, 0.58, 0.02)),
        Part("body", box(0.72, 0.03, 0.81, 0.58, 0.02)),
        *limb("body", box(0.13, 0.68, 0.23, 0.97)),
        *limb("body", box(0.83, 0.68, 0.93, 0.97)),
        Part("light", points("25,53 81,53 95,66 11,66")),
        Part("body", box(0.11, 0.655, 0.95, 0.74, 0.01)),
    ),
)

CLOCK = Thing(
    "object",
    (
        *limb("dark", stroke(points("26,80 17,93"), 0.1, 0.08)),
        *limb("dark", stroke(points("74,80 83,93"), 0.1, 0.08)),
        *limb("body", turned(ellipse(0.24, 0.19, 0.17, 0.16, pi, 2 * pi), -0.65, 0.24, 0.19)),
        *limb("body", turned(ellipse(0.76, 0.19, 0.17, 0.16, pi, 2 * pi), 0.65, 0.76, 0.19)),
        Part("steel", box(0.47, 0.06, 0.53, 0.2, 0.015)),
        Part("body", ellipse(0.5, 0.54, 0.4, 0.4)),
        Part("white", ellipse(0.5, 0.54, 0.27, 0.27)),
        *(
            Part("ink", ellipse(0.5 + 0.22 * sin(t), 0.54 - 0.22 * cos(t), 0.018, 0.018))
            for t in (i * pi / 6 for i in range(12))
        ),
        *limb("ink", stroke(points("50,54 38,45"), 0.05, 0.04)),
        *limb("ink", stroke(points("50,54 57,34"), 0.045, 0.03)),
        Part("tomato", ellipse(0.5, 0.54, 0.03, 0.03)),
    ),
)

LAMP = Thing(
    "object",
    (
        *limb("pane", ellipse(0.5, 0.5, 0.1, 0.09)),
        Part("steel", box(0.475, 0.5, 0.525, 0.9)),
        *limb("body", smooth(mirrored(points("50,84 36,87 27,95 29,97")))),
        *limb(
            "body",
            points("34,4 66,4 90,48 10,48"),
            ("light", points("44,4 50,4 46,48 30,48")),
            ("dark", points("12.5,43.5 87.5,43.5 90,48 10,48")),
            ("ink", stroke(points("70,49 70,64"), 0.014, 0.014)),
            ("pane", ellipse(0.7, 0.65, 0.028, 0.028)),
        ),
    ),
)

BOOK = Thing(
    "object",
    (
        Part("tomato", points("62,82 72,82 72,97 67,93 62,97")),
        Part("dark", points("20,10 82,10 82,93 20,93")),
        Part("white", points("24,80 80,80 80,91 24,91")),
        Part("body", box(0.18, 0.03, 0.82, 0.84, 0.02)),
        *limb(
            "dark", box(0.17, 0.03, 0.29, 0.93, 0.02), *(("light", box(0.17, y, 0.29, y + 0.03)) for y in (0.16, 0.77))
        ),
        *limb(
            "cream",
            box(0.37, 0.16, 0.74, 0.36, 0.01),
            ("ink", box(0.41, 0.21, 0.68, 0.235)),
            ("ink", box(0.45, 0.28, 0.64, 0.305)),
        ),
        *limb("light", ellipse(0.545, 0.6, 0.1, 0.1)),
    ),
)


def _star_point(turn: float) -> tuple[Part, ...]:
    tip, left, right = (
        (0.5 + r * sin(t), 0.52 - r * cos(t)) for r, t in ((0.5, turn), (0.23, turn - pi / 5), (0.23, turn + pi / 5))
    )
    return limb("body", [tip, right, (0.5, 0.52), left], ("light", [tip, (0.5, 0.52), left]))


STAR = Thing("object", tuple(part for i in range(5) for part in _star_point(i * 2 * pi / 5)), flies=True)


def _lobes() -> tuple[Part, ...]:
    turn = [pi + i * pi / 30 for i in range(31)]
    curve = [
        (0.5 + 16 * sin(t) ** 3 / 34, 0.47 - (13 * cos(t) - 5 * cos(2 * t) - 2 * cos(3 * t) - cos(4 * t)) / 34)
        for t in turn
    ]
    return limb("body", curve, ("light", stroke(points("12,40 14,26 26,18"), 0.05, 0.03))) + limb(
        "body", flipped(curve)
    )


HEART = Thing(
    "object",
    (
        *_lobes(),
        Part("body", points("50,33 62,30 66,60 50,93 34,60 38,30"), seamless=True),
    ),
)


def _panel(start: float, stop: float) -> Points:
    """A panel of the beach ball between two angles at its rim; its sides are bent."""

    def side(angle: float) -> Points:
        x, y = 0.5 + 0.45 * cos(angle) - 0.42, 0.52 + 0.45 * sin(angle) - 0.4
        return [
            (0.42 + x * t - y * 0.5 * t * (1 - t), 0.4 + y * t + x * 0.5 * t * (1 - t))
            for t in (i / 8 for i in range(9))
        ]

    return side(start) + ellipse(0.5, 0.52, 0.45, 0.45, start, stop) + side(stop)[::-1]


BALL = Thing(
    "object",
    (
        *(part for i in range(3) for part in limb("body", _panel(i * 2.0944, i * 2.0944 + 1.3))),
        *(part for i in range(3) for part in limb("cream", _panel(i * 2.0944 + 1.3, i * 2.0944 + 2.0944))),
        Part("dark", ellipse(0.42, 0.4, 0.07, 0.065)),
    ),
)

_FINGERS = (
    points("40,50 36,34 33,17"),
    points("50,48 50,30 50,9"),
    points("60,50 63,34 66,15"),
    points("68,58 76,45 82,31"),
    points("36,74 22,62 12,47"),
)

HAND = Thing(
    "object",
    (
        Part("body", smooth(points("34,48 50,44 66,48 74,60 70,78 64,88 65,97 37,97 38,88 29,74"))),
        *(part for path in _FINGERS for part in limb("body", stroke(path, 0.13, 0.1))),
        Part("dark", stroke(points("38,62 50,60 66,64"), 0.016, 0.012)),
        Part("dark", stroke(points("42,56 48,70 46,84"), 0.016, 0.012)),
        Part("dark", box(0.33, 0.91, 0.69, 0.97, 0.02)),
    ),
)

KEY = Thing(
    "object",
    (
        *limb("body", box(0.48, 0.64, 0.66, 0.71, 0.015)),
        *limb("body", box(0.48, 0.75, 0.72, 0.82, 0.015)),
        *limb("body", box(0.48, 0.86, 0.64, 0.93, 0.015)),
        Part("body", box(0.41, 0.4, 0.51, 0.97, 0.03)),
        Part("light", box(0.435, 0.46, 0.455, 0.9, 0.01)),
        *limb("body", ellipse(0.46, 0.22, 0.22, 0.2), ("hole", ellipse(0.46, 0.19, 0.1, 0.08))),
        Part("dark", box(0.38, 0.39, 0.54, 0.45, 0.02)),
    ),
)

HAT = Thing(
    "object",
    (
        *limb(
            "white",
            smooth(points("70,72 76,44 90,20 97,16 96,40 86,60 76,74")),
            ("steel", stroke(points("74,70 92,24"), 0.014, 0.006)),
        ),
        *limb("body", smooth(points("2,80 12,86 50,82 88,86 98,80 90,93 50,97 10,93"))),
        Part("body", smooth(points("20,16 50,20 80,16 76,50 77,86 50,90 23,86 24,50"))),
        Part("dark", ellipse(0.5, 0.16, 0.31, 0.07)),
        Part("dark", smooth(points("23.5,64 50,69 76.5,64 77,80 50,85 23,80"))),
        *limb("pane", box(0.42, 0.66, 0.58, 0.85, 0.02), ("dark", box(0.46, 0.71, 0.54, 0.8, 0.01))),
    ),
)

OBJECTS: dict[str, Thing] = {
    "cup": CUP, "umbrella": UMBRELLA, "chair": CHAIR, "clock": CLOCK, "lamp": LAMP, "book": BOOK, "star": STAR,
    "heart": HEART, "ball": BALL, "hand": HAND, "key": KEY, "hat": HAT,
}  # fmt: skip
