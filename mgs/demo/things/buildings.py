"""Four buildings."""

from __future__ import annotations

from math import pi

from mgs.demo.things.parts import Part, Thing, box, ellipse, limb, points, smooth, stroke, turned


def _house_window(x: float, y: float) -> tuple[Part, ...]:
    r = 0.075
    bars = ("wood", box(x - 0.008, y - r, x + 0.008, y + r)), ("wood", box(x - r, y - 0.008, x + r, y + 0.008))
    return limb("pane", box(x - r, y - r, x + r, y + r), *bars)


HOUSE = Thing(
    "building",
    (
        *limb("tomato", box(0.68, 0.1, 0.79, 0.4), ("dark", box(0.66, 0.08, 0.81, 0.13))),
        Part("body", points("12,44 50,16 88,44 88,97 12,97")),
        *limb("dark", points("50,4 99,42 94,50 50,17 6,50 1,42")),
        *limb("wood", box(0.42, 0.66, 0.58, 0.97, 0.01), ("pane", ellipse(0.55, 0.82, 0.014, 0.014))),
        *_house_window(0.26, 0.68),
        *_house_window(0.74, 0.68),
        *limb(
            "pane",
            ellipse(0.5, 0.42, 0.075, 0.075),
            ("wood", box(0.492, 0.345, 0.508, 0.495)),
            ("wood", box(0.425, 0.412, 0.575, 0.428)),
        ),
    ),
)


def _castle_tower(left: float, right: float, top: float) -> tuple[Part, ...]:
    middle = (left + right) / 2
    pole = ("wood", stroke([(middle, top - 0.18), (middle, top - 0.29)], 0.014, 0.014))
    flag = ("tomato", [(middle, top - 0.29), (middle + 0.13, top - 0.25), (middle, top - 0.21)])
    return (
        Part("body", box(left, top, right, 0.97)),
        *limb("dark", [(left - 0.03, top + 0.01), (middle, top - 0.2), (right + 0.03, top + 0.01)], pole, flag),
        Part("ink", ellipse(middle, top + 0.13, 0.035, 0.055)),
    )


CASTLE = Thing(
    "building",
    (
        Part(
            "body",
            [
                (0.2, 0.97),
                (0.2, 0.5),
                *(
                    (x, y)
                    for i in range(4)
                    for x, y in (
                        (0.26 + 0.14 * i, 0.5),
                        (0.26 + 0.14 * i, 0.57),
                        (0.33 + 0.14 * i, 0.57),
                        (0.33 + 0.14 * i, 0.5),
                    )
                ),
                (0.8, 0.5),
                (0.8, 0.97),
            ],
        ),
        *_castle_tower(0.05, 0.29, 0.4),
        *_castle_tower(0.71, 0.95, 0.4),
        *limb(
            "ink",
            [(0.39, 0.97), *ellipse(0.5, 0.78, 0.11, 0.12, pi, 2 * pi), (0.61, 0.97)],
            *(("wood", box(x, 0.71, x + 0.02, 0.97)) for x in (0.44, 0.49, 0.54)),
        ),
        *(
            Part("dark", box(x, y, x + 0.07, y + 0.03))
            for x, y in ((0.09, 0.7), (0.16, 0.84), (0.75, 0.66), (0.83, 0.8), (0.33, 0.62), (0.6, 0.62))
        ),
    ),
)

LIGHTHOUSE = Thing(
    "building",
    (
        *limb("pane", points("48,17 4,7 4,26")),
        Part("body", points("38,32 62,32 70,90 30,90")),
        *(
            Part("cream", [(0.5 - w, y), (0.5 + w, y), (0.5 + w + 0.014, y + 0.1), (0.5 - w - 0.014, y + 0.1)])
            for y, w in ((0.42, 0.134), (0.63, 0.163))
        ),
        Part("dark", box(0.22, 0.88, 0.78, 0.97, 0.02)),
        *limb("pane", box(0.42, 0.13, 0.58, 0.28), *(("ink", box(x, 0.13, x + 0.014, 0.28)) for x in (0.465, 0.52))),
        *limb("dark", box(0.34, 0.27, 0.66, 0.33, 0.015)),
        *limb("body", smooth(points("39,15 42,8 50,2 58,8 61,15"))),
        Part("ink", ellipse(0.5, 0.57, 0.03, 0.045)),
        *limb("wood", [(0.44, 0.9), *ellipse(0.5, 0.81, 0.06, 0.06, pi, 2 * pi), (0.56, 0.9)]),
    ),
)


def _sail(angle: float) -> tuple[Part, ...]:
    arm, cloth = box(0.488, 0.01, 0.512, 0.36), box(0.512, 0.02, 0.595, 0.25)
    bars = [box(0.512, y, 0.595, y + 0.012) for y in (0.1, 0.18)]
    arm, cloth, *bars = (turned(outline, angle, 0.5, 0.36) for outline in (arm, cloth, *bars))
    return limb("cream", cloth, *(("wood", bar) for bar in (*bars, arm)))


WINDMILL = Thing(
    "building",
    (
        Part("body", points("34,36 66,36 82,97 18,97")),
        Part("dark", [(0.31, 0.38), *ellipse(0.5, 0.34, 0.19, 0.17, pi, 2 * pi), (0.69, 0.38)]),
        *limb("wood", [(0.43, 0.97), *ellipse(0.5, 0.83, 0.07, 0.07, pi, 2 * pi), (0.57, 0.97)]),
        *limb("pane", box(0.45, 0.57, 0.55, 0.69, 0.01)),
        *(part for turn in range(4) for part in _sail(0.5 + turn * pi / 2)),
        Part("wood", ellipse(0.5, 0.36, 0.04, 0.04)),
    ),
)

BUILDINGS: dict[str, Thing] = {"house": HOUSE, "castle": CASTLE, "lighthouse": LIGHTHOUSE, "windmill": WINDMILL}
