"""Six things to eat."""

from __future__ import annotations

from mgs.demo.things.parts import Part, Thing, box, ellipse, limb, mirrored, points, smooth, stroke, turned

APPLE = Thing(
    "food",
    (
        *limb("wood", stroke(points("50,30 50,16 56,5"), 0.04, 0.05)),
        Part("body", smooth(points("50,27 34,20 14,26 4,50 12,78 32,96 50,93 68,96 88,78 96,50 86,26 66,20"))),
        Part("dark", smooth(points("40,25 50,27 60,25 50,32"))),
        *limb(
            "leaf",
            smooth(points("53,19 60,7 76,3 86,6 78,17 64,21")),
            ("wood", stroke(points("55,18 80,8"), 0.012, 0.006)),
        ),
        Part("light", smooth(points("16,42 24,32 27,34 20,48 17,56"))),
    ),
)

PEAR = Thing(
    "food",
    (
        *limb("wood", stroke(points("50,16 50,8 55,2.5"), 0.035, 0.04)),
        Part("body", smooth(mirrored(points("50,11 39,16 35,32 26,48 16,68 22,88 40,97")))),
        *limb(
            "leaf",
            smooth(points("48,13 40,2 26,2 18,8 28,15 40,16")),
            ("wood", stroke(points("46,12 24,7"), 0.012, 0.006)),
        ),
        *(
            Part("dark", ellipse(x, y, 0.012, 0.012))
            for x, y in ((0.62, 0.6), (0.7, 0.72), (0.58, 0.78), (0.68, 0.84), (0.5, 0.66))
        ),
        Part("light", smooth(points("30,56 36,48 37,54 29,72 25,70"))),
    ),
)

_FROND = smooth(points("48,34 41,24 43,19 39,13 44,11 50,2 56,11 61,13 57,19 59,24 52,34"))
_RIB = stroke(points("50,28 50,8"), 0.012, 0.006)

CARROT = Thing(
    "food",
    (
        *(
            part
            for angle in (-0.95, 0.95, -0.45, 0.45, 0)
            for part in limb("leaf", turned(_FROND, angle, 0.5, 0.34), ("light", turned(_RIB, angle, 0.5, 0.34)))
        ),
        Part("body", smooth(mirrored(points("50,31 34,32 29,42 36,66 45,88 49,97")))),
        *(
            Part("dark", stroke([(x, y), (x + d, y + 0.02)], 0.022, 0.012))
            for x, y, d in (
                (0.31, 0.42, 0.13),
                (0.67, 0.5, -0.12),
                (0.37, 0.62, 0.1),
                (0.6, 0.7, -0.09),
                (0.43, 0.8, 0.06),
            )
        ),
        Part("light", smooth(points("38,38 42,38 43,54 40,53"))),
    ),
)

CAKE = Thing(
    "food",
    (
        *(
            part
            for x in (0.36, 0.5, 0.64)
            for part in limb(
                "rose",
                box(x - 0.03, 0.16, x + 0.03, 0.36),
                ("flame", smooth([(x, 0.03), (x + 0.03, 0.1), (x, 0.15), (x - 0.03, 0.1)])),
            )
        ),
        *limb(
            "body",
            box(0.2, 0.35, 0.8, 0.64, 0.04),
            ("cream", smooth(points("19,36 50,33 81,36 79,43 71,39 62,46 54,39 44,46 36,39 28,44 21,42"))),
        ),
        Part("body", box(0.06, 0.62, 0.94, 0.94, 0.04)),
        Part("cream", smooth(points("5,63 50,61 95,63 92,72 84,67 74,74 64,67 54,73 42,67 30,74 20,67 8,72"))),
        *(Part("tomato", ellipse(x, 0.84, 0.035, 0.035)) for x in (0.2, 0.4, 0.6, 0.8)),
        Part("steel", box(0.02, 0.935, 0.98, 0.97, 0.015)),
    ),
)

ICE_CREAM = Thing(
    "food",
    (
        *limb(
            "waffle",
            points("27,54 73,54 52,97 48,97"),
            *(
                ("wood", stroke([(x, 0.56), (x + d, y)], 0.012, 0.012))
                for x, d, y in ((0.36, 0.22, 0.8), (0.52, 0.13, 0.7), (0.64, -0.22, 0.8), (0.48, -0.13, 0.7))
            ),
        ),
        *limb("wood", box(0.7, 0.02, 0.77, 0.36, 0.02)),
        *limb("body", ellipse(0.34, 0.38, 0.2, 0.19)),
        *limb("body", ellipse(0.66, 0.38, 0.2, 0.19)),
        *limb("body", ellipse(0.5, 0.22, 0.2, 0.18)),
        Part("body", smooth(points("18,50 30,46 50,48 70,46 82,50 74,57 62,64 55,57 40,60 32,57 24,58"))),
        Part("tomato", ellipse(0.47, 0.06, 0.05, 0.05)),
        *(
            Part("light", stroke([(x, y), (x + 0.04, y - 0.02)], 0.018, 0.018))
            for x, y in ((0.3, 0.36), (0.42, 0.24), (0.56, 0.2), (0.62, 0.38), (0.7, 0.34), (0.46, 0.42))
        ),
    ),
)

PIZZA = Thing(
    "food",
    (
        *limb("waffle", smooth(points("3,17 10,9 50,4 90,9 97,17 92,23 50,17 8,23"))),
        Part("body", points("7,20 30,16 50,15 70,16 93,20 67,68 64,80 61,78 50,97 37,76 34,80 31,65")),
        *(
            part
            for x, y in ((0.3, 0.34), (0.66, 0.36), (0.48, 0.56), (0.52, 0.79))
            for part in limb("tomato", ellipse(x, y, 0.076, 0.072), ("rose", ellipse(x - 0.025, y - 0.02, 0.02, 0.016)))
        ),
        *(
            Part(tint, ellipse(x, y, radius, radius))
            for x, y in points("48,33 36,50 62,56")
            for tint, radius in (("ink", 0.03), ("pane", 0.014))
        ),
        *(
            Part("leaf", smooth([(x, y), (x + 0.05, y - 0.03), (x + 0.08, y), (x + 0.03, y + 0.03)]))
            for x, y in ((0.15, 0.28), (0.76, 0.28), (0.5, 0.68))
        ),
    ),
)

FOOD: dict[str, Thing] = {
    "apple": APPLE,
    "cake": CAKE,
    "ice cream": ICE_CREAM,
    "pizza": PIZZA,
    "pear": PEAR,
    "carrot": CARROT,
}
