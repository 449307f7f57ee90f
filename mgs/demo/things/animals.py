"""Ten animals; those that walk look to the left."""

from __future__ import annotations

from math import pi

from mgs.demo.things.parts import (
    Part,
    Thing,
    box,
    ellipse,
    eye,
    flipped,
    front_eye,
    limb,
    mirrored,
    points,
    smooth,
    stroke,
    turned,
)


def _cat_ear() -> tuple[Part, ...]:
    left = points("21,28 19,3 40,14")
    inner = points("25,22 22.5,9 34,15")
    return limb("body", left, ("rose", inner)) + limb("body", flipped(left, 0.42), ("rose", flipped(inner, 0.42)))


CAT = Thing(
    "animal",
    (
        *limb("body", stroke(points("66,88 84,90 93,74 85,60 90,48"), 0.11, 0.07)),
        Part("body", smooth(points("30,46 54,44 70,62 77,84 72,95 58,96.5 42,96.5 29,95 29,70"))),
        *limb("body", smooth(points("54,80 66,72 77,80 76,96 52,97 50,92"))),
        Part("light", smooth(points("36,50 48,50 49,68 42,76 34,66"))),
        *limb("body", box(0.29, 0.66, 0.41, 0.97, 0.055)),
        *limb("body", box(0.42, 0.66, 0.54, 0.97, 0.055)),
        *_cat_ear(),
        Part("body", ellipse(0.42, 0.3, 0.245, 0.205)),
        *(Part("dark", stroke([(x, 0.1), (0.42 + (x - 0.42) * 0.7, 0.19)], 0.03, 0.012)) for x in (0.36, 0.42, 0.48)),
        Part("light", ellipse(0.42, 0.4, 0.11, 0.075)),
        *front_eye(0.32, 0.29, 0.058),
        *front_eye(0.52, 0.29, 0.058),
        Part("rose", points("38.5,35.5 45.5,35.5 42,39.5")),
        *(Part("ink", stroke([(0.5, y), (0.72, y + d)], 0.01, 0.006)) for y, d in ((0.38, -0.03), (0.41, 0.02))),
        *(Part("ink", stroke([(0.34, y), (0.12, y + d)], 0.01, 0.006)) for y, d in ((0.38, -0.03), (0.41, 0.02))),
    ),
)

DOG = Thing(
    "animal",
    (
        *limb("dark", stroke(points("42,66 43,92"), 0.12, 0.1)),
        *limb("dark", stroke(points("74,62 71,80 73,92"), 0.14, 0.1)),
        *limb("body", stroke(points("84,54 93,44 95,26"), 0.1, 0.06)),
        Part("body", smooth(points("28,44 50,45 78,44 90,56 84,72 56,70 36,78 25,64"))),
        *limb("body", stroke(points("33,68 32,92"), 0.15, 0.1)),
        *limb("body", stroke(points("82,60 87,78 85,92"), 0.2, 0.1)),
        Part("body", smooth(points("19,14 34,10 44,20 45,40 46,56 27,58 24,43 8,43 3,34 14,27"))),
        Part("tomato", stroke(points("24,47 35,50 46,45"), 0.05, 0.05)),
        *limb("dark", smooth(points("31,13 42,14 50,32 44,45 36,36"))),
        Part("ink", ellipse(0.06, 0.32, 0.045, 0.04)),
        Part("ink", stroke(points("9,39 17,40 22,37"), 0.014, 0.01)),
        *eye(0.24, 0.23, 0.042),
    ),
)

BIRD = Thing(
    "animal",
    (
        *limb("dark", points("66,56 97,52 90,62 98,74 64,70")),
        *limb("dark", smooth(points("36,50 24,26 26,4 42,20 54,48"))),
        Part("beak", points("15,42 1,50 16,53")),
        Part("body", smooth(points("10,48 18,36 32,38 54,48 76,58 60,76 36,80 18,68"))),
        Part("light", smooth(points("15,58 28,60 50,72 40,78 24,73"))),
        *limb(
            "body",
            smooth(points("36,58 48,26 68,8 86,4 80,34 64,58 46,66")),
            *(
                ("dark", stroke([(x, y), (x + 0.13, y - 0.2)], 0.018, 0.01))
                for x, y in ((0.5, 0.54), (0.58, 0.5), (0.65, 0.42))
            ),
        ),
        *eye(0.2, 0.46, 0.042),
    ),
    flies=True,
)

FISH = Thing(
    "animal",
    (
        *limb("dark", smooth(points("66,50 90,22 98,26 90,50 98,74 90,78"))),
        *limb("dark", smooth(points("28,34 40,12 60,14 62,36"))),
        *limb("dark", smooth(points("38,70 50,72 52,88 42,84"))),
        Part("body", smooth(points("2,50 14,34 36,24 58,32 76,48 76,53 58,70 36,77 14,67"))),
        Part("light", smooth(points("7,60 30,66 58,64 48,72 34,75 16,67"))),
        *(Part("dark", stroke([(x, 0.36), (x + 0.03, 0.48), (x, 0.6)], 0.03, 0.016)) for x in (0.5, 0.6)),
        Part("dark", stroke(points("27,34 32,50 26,65"), 0.016, 0.016)),
        *limb("light", smooth(points("34,52 48,47 50,60 42,63"))),
        *eye(0.17, 0.44, 0.06),
        Part("ink", stroke(points("4,55 10,57 13,55"), 0.014, 0.012)),
    ),
    flies=True,
    plural="fish",
)

RABBIT = Thing(
    "animal",
    (
        *limb("light", ellipse(0.9, 0.76, 0.085, 0.085)),
        *limb("dark", turned(ellipse(0.39, 0.18, 0.06, 0.17), 0.3, 0.36, 0.32)),
        Part("body", smooth(points("30,56 54,46 80,56 92,78 84,94 70,96.5 40,96.5 26,92 24,74"))),
        *limb("body", smooth(points("52,80 66,64 84,70 88,86 80,95.5 64,96.5 48,96.5 45,93 50,90"))),
        *limb("body", stroke(points("36,74 30,86 27,92"), 0.13, 0.09)),
        *limb(
            "body", turned(ellipse(0.3, 0.17, 0.065, 0.16), -0.05, 0.3, 0.3), ("rose", ellipse(0.29, 0.18, 0.03, 0.11))
        ),
        Part("body", smooth(points("6,49 16,34 34,29 47,42 44,58 28,64 10,59"))),
        Part("light", ellipse(0.16, 0.55, 0.085, 0.055)),
        Part("rose", ellipse(0.075, 0.49, 0.028, 0.024)),
        *eye(0.25, 0.43, 0.045),
    ),
)

TURTLE = Thing(
    "animal",
    (
        *limb("dark", stroke(points("42,78 46,91"), 0.12, 0.11)),
        *limb("dark", stroke(points("74,78 70,91"), 0.12, 0.11)),
        Part("light", stroke(points("84,80 97,84"), 0.09, 0.02)),
        Part("light", stroke(points("34,78 18,62 14,56"), 0.16, 0.14)),
        Part("light", smooth(points("2,54 8,42 20,41 26,52 20,63 8,62"))),
        *limb("light", stroke(points("34,78 28,91"), 0.13, 0.12)),
        *limb("light", stroke(points("82,78 85,91"), 0.13, 0.12)),
        Part("body", smooth(points("24,78 26,56 40,34 58,28 78,36 92,58 94,78 60,83"))),
        *(
            Part("dark", smooth([(x, 0.42), (x + 0.12, 0.42), (x + 0.15, 0.54), (x + 0.06, 0.63), (x - 0.03, 0.54)]))
            for x in (0.35, 0.53, 0.71)
        ),
        *(
            Part("dark", smooth([(x, 0.64), (x + 0.06, 0.68), (x + 0.05, 0.75), (x - 0.05, 0.75), (x - 0.06, 0.68)]))
            for x in (0.36, 0.5, 0.68, 0.82)
        ),
        *eye(0.12, 0.49, 0.036),
        Part("ink", stroke(points("3,57 10,58 15,56"), 0.012, 0.01)),
    ),
)

BUTTERFLY = Thing(
    "animal",
    (
        *(
            part
            for side in (lambda outline: outline, flipped)
            for part in (
                Part("ink", side(stroke(points("48,30 42,16 34,8"), 0.02, 0.03))),
                *limb(
                    "body",
                    side(smooth(points("48,54 30,56 12,66 14,86 30,92 42,76"))),
                    ("light", side(ellipse(0.26, 0.74, 0.08, 0.09))),
                    ("dark", side(ellipse(0.26, 0.75, 0.04, 0.05))),
                ),
                *limb(
                    "body",
                    side(smooth(points("48,40 36,18 14,6 2,18 6,44 20,56 46,54"))),
                    ("dark", side(smooth(points("13,9 3,18 6,40 12,26")))),
                    ("light", side(ellipse(0.25, 0.34, 0.1, 0.1))),
                    ("dark", side(ellipse(0.25, 0.34, 0.05, 0.05))),
                ),
            )
        ),
        Part("ink", ellipse(0.5, 0.55, 0.045, 0.26)),
        Part("ink", ellipse(0.5, 0.29, 0.06, 0.06)),
    ),
    flies=True,
    plural="butterflies",
)

SNAIL = Thing(
    "animal",
    (
        *limb("cream", stroke(points("20,62 24,48 22,36"), 0.05, 0.035), ("ink", ellipse(0.22, 0.35, 0.036, 0.036))),
        *limb("cream", stroke(points("14,62 9,50 7,42"), 0.05, 0.035), ("ink", ellipse(0.07, 0.41, 0.036, 0.036))),
        Part("cream", smooth(points("6,68 14,58 26,62 34,80 60,86 82,88 98,96 60,97 20,97 10,86"))),
        Part("body", smooth(points("30,56 40,26 64,16 86,30 93,56 84,82 60,92 38,82"))),
        Part("dark", stroke(points("46,90 72,82 82,58 70,34 50,36 42,54 52,70 66,64 67,52 58,50"), 0.055, 0.035)),
        Part("ink", stroke(points("8,73 14,76 19,73"), 0.014, 0.012)),
    ),
)

OWL = Thing(
    "animal",
    (
        Part("beak", ellipse(0.39, 0.94, 0.09, 0.035)),
        Part("beak", ellipse(0.61, 0.94, 0.09, 0.035)),
        *limb("body", points("22,28 20,3 44,16")),
        *limb("body", points("78,28 80,3 56,16")),
        Part("body", smooth(mirrored(points("50,12 28,16 18,36 18,68 30,90 50,94")))),
        Part("light", ellipse(0.5, 0.72, 0.2, 0.2)),
        *(
            Part("body", ellipse(x, y, 0.05, 0.035, 0, pi))
            for x, y in ((0.42, 0.64), (0.58, 0.64), (0.5, 0.72), (0.42, 0.8), (0.58, 0.8))
        ),
        *limb("dark", smooth(points("20,42 30,54 30,74 20,88 11,66"))),
        *limb("dark", flipped(smooth(points("20,42 30,54 30,74 20,88 11,66")))),
        *(Part("cream", ellipse(x, 0.36, 0.15, 0.15)) for x in (0.36, 0.64)),
        *front_eye(0.37, 0.36, 0.1),
        *front_eye(0.63, 0.36, 0.1),
        *limb("beak", points("44,42 56,42 50,55")),
    ),
)

ELEPHANT = Thing(
    "animal",
    (
        *limb("dark", box(0.46, 0.6, 0.58, 0.97, 0.03)),
        *limb("dark", box(0.72, 0.6, 0.84, 0.97, 0.03)),
        Part("body", stroke(points("93,46 96,60 95,72"), 0.03, 0.03)),
        Part("dark", ellipse(0.95, 0.74, 0.03, 0.05)),
        Part("body", smooth(points("30,30 56,18 84,26 95,48 92,72 64,76 38,72"))),
        *limb(
            "body",
            box(0.35, 0.62, 0.49, 0.97, 0.03),
            *(("light", ellipse(x, 0.955, 0.02, 0.015)) for x in (0.385, 0.42, 0.455)),
        ),
        *limb(
            "body",
            box(0.79, 0.58, 0.93, 0.97, 0.03),
            *(("light", ellipse(x, 0.955, 0.02, 0.015)) for x in (0.825, 0.86, 0.895)),
        ),
        *limb("body", stroke(points("17,40 12,60 13,78 7,88 3,84"), 0.2, 0.06)),
        Part("white", smooth(points("20,56 27,56 24,66 13,70 20,63"))),
        Part("body", ellipse(0.27, 0.38, 0.2, 0.21)),
        *limb("dark", smooth(points("30,22 44,16 56,26 55,46 46,58 36,52 31,40"))),
        *eye(0.18, 0.35, 0.036),
    ),
)

ANIMALS: dict[str, Thing] = {
    "cat": CAT, "dog": DOG, "bird": BIRD, "fish": FISH, "rabbit": RABBIT, "turtle": TURTLE, "butterfly": BUTTERFLY,
    "snail": SNAIL, "owl": OWL, "elephant": ELEPHANT,
}  # fmt: skip
