"""Five plants."""

from __future__ import annotations

from math import cos, sin

from mgs.demo.things.parts import Part, Points, Thing, ellipse, flipped, limb, mirrored, points, smooth, stroke


def _leaf(x: float, y: float) -> Points:
    return stroke([(x, y), (x + 0.035, y - 0.035)], 0.02, 0.036)


TREE = Thing(
    "plant",
    (
        *limb("wood", points("44,50 56,50 57,84 66,97 34,97 43,84")),
        Part("wood", stroke(points("50,80 66,66 72,56"), 0.07, 0.05)),
        Part("wood", stroke(points("49,76 36,66 30,56"), 0.06, 0.04)),
        *(
            part
            for x, y in ((0.23, 0.45), (0.77, 0.45), (0.5, 0.24), (0.3, 0.27), (0.7, 0.27))
            for part in limb(
                "body",
                ellipse(x, y, 0.215, 0.2),
                ("light", _leaf(x * 1.3 - 0.2, y - 0.1)),
                ("dark", _leaf(x * 1.36 - 0.18, y + 0.11)),
                ("dark", _leaf(x * 1.36 - 0.23, y + 0.01)),
            )
        ),
        Part("body", ellipse(0.5, 0.4, 0.27, 0.22), seamless=True),
        *(Part("dark", _leaf(x, y), seamless=True) for x, y in points("40,56 56,48 64,38 36,36 50,30")),
        *(Part("light", _leaf(x, y), seamless=True) for x, y in points("46,38 56,26 36,46")),
    ),
)

FLOWER = Thing(
    "plant",
    (
        Part("leaf", stroke(points("50,40 52,70 49,95"), 0.045, 0.045)),
        *limb("leaf", smooth(points("50,90 56,74 76,66 80,68 70,84"))),
        *limb("leaf", smooth(points("50,93 44,80 26,74 20,76 32,89"))),
        *(
            part
            for t in (0.3, 1.35, 2.4, 3.44, 4.49, 5.54)
            for part in limb(
                "body",
                ellipse(0.5 + 0.21 * cos(t), 0.34 + 0.21 * sin(t), 0.125, 0.125),
                (
                    "dark",
                    stroke(
                        [(0.5 + 0.12 * cos(t), 0.34 + 0.12 * sin(t)), (0.5 + 0.24 * cos(t), 0.34 + 0.24 * sin(t))],
                        0.035,
                        0.012,
                    ),
                ),
            )
        ),
        Part("pane", ellipse(0.5, 0.34, 0.115, 0.115)),
        *(
            Part("beak", ellipse(0.5 + 0.055 * cos(t), 0.34 + 0.055 * sin(t), 0.016, 0.016))
            for t in (0, 1.26, 2.51, 3.77, 5.03)
        ),
    ),
)


def _cactus_arm(side: float, top: float) -> tuple[Part, ...]:
    path = [
        (0.5, top + 0.3),
        (0.5 + side * 0.24, top + 0.27),
        (0.5 + side * 0.33, top + 0.16),
        (0.5 + side * 0.33, top),
    ]
    return limb(
        "body",
        stroke(path, 0.16, 0.14),
        ("light", stroke([(0.5 + side * 0.33, top + 0.14), (0.5 + side * 0.33, top)], 0.016, 0.016)),
    )


CACTUS = Thing(
    "plant",
    (
        *_cactus_arm(-1, 0.32),
        *_cactus_arm(1, 0.2),
        Part("body", smooth(mirrored(points("50,5 41,9 37,20 37,60 38,90 40,97")))),
        *(Part("light", stroke([(x, 0.16), (x, 0.92)], 0.016, 0.016)) for x in (0.45, 0.55)),
        *limb("rose", smooth(points("42,9 38,2 46,5 50,1 54,5 62,2 58,9"))),
        *(
            Part("cream", stroke([(x, y), (x + d, y - 0.03)], 0.01, 0.006))
            for x, y, d in (
                (0.4, 0.3, -0.06),
                (0.6, 0.36, 0.06),
                (0.4, 0.72, -0.06),
                (0.61, 0.66, 0.06),
                (0.39, 0.86, -0.06),
                (0.62, 0.82, 0.06),
            )
        ),
    ),
    plural="cactuses",
)

MUSHROOM = Thing(
    "plant",
    (
        *limb("cream", smooth(mirrored(points("50,50 40,52 40,72 33,90 36,97")))),
        Part("white", points("37,62 63,62 68,72 57,69 50,74 43,69 32,72")),
        Part("body", smooth(mirrored(points("50,6 26,13 7,36 3,54 14,60 50,62")))),
        *(
            part
            for x, y, rx, ry in (
                (0.25, 0.37, 0.085, 0.08),
                (0.5, 0.23, 0.1, 0.075),
                (0.74, 0.38, 0.085, 0.085),
            )
            for part in limb("cream", ellipse(x, y, rx, ry))
        ),
        *(Part("cream", ellipse(x, y, 0.045, 0.04)) for x, y in points("50,46 12,53 90,53")),
    ),
)


def _tier(top: float, bottom: float, width: float) -> tuple[Part, ...]:
    edge = [
        (0.5 - width, bottom),
        (0.5 - width * 0.6, bottom - 0.03),
        (0.5 - width * 0.3, bottom + 0.01),
        (0.5, bottom - 0.03),
    ]
    return limb(
        "body",
        [(0.5, top), *edge, *flipped(edge)[::-1]],
        ("light", [(0.5, top + 0.03), (0.5 - width * 0.55, bottom - 0.06), (0.5 - width * 0.35, bottom - 0.06)]),
    )


PINE = Thing(
    "plant",
    (
        Part("wood", points("45,78 55,78 58,97 42,97")),
        *_tier(0.44, 0.86, 0.38),
        *_tier(0.26, 0.64, 0.31),
        *_tier(0.1, 0.44, 0.24),
        *_tier(0.02, 0.24, 0.15),
    ),
)

PLANTS: dict[str, Thing] = {"tree": TREE, "flower": FLOWER, "cactus": CACTUS, "mushroom": MUSHROOM, "pine": PINE}
