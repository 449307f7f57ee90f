"""What captions may truthfully say of a drawn picture or of a window on it: the texts that the demo CLIP learns from.

Captions speak of what is really there, as alt texts do, in the three prompt styles and in fragments of them; some say
how the picture looks: "blurry", or "sharp" and "lifelike" where nothing is wrong. None is one of MGS's sentences on
quality and authenticity. Every caption comes with the facts that it claims, and every view with
all that are true of it, so that training knows exactly which captions fit which pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mgs.demo.canvas import SIDE
from mgs.demo.drawing import Picture
from mgs.demo.faults import AUTHENTICITY_DAMAGES, QUALITY_DAMAGES, Damage
from mgs.demo.generators import another
from mgs.demo.layout import Figure
from mgs.demo.light import LIGHTS
from mgs.demo.media import MEDIA
from mgs.demo.prompts import (
    COLOURS,
    NUMBERS,
    RELATIONS,
    STYLES,
    Content,
    Group,
    part_of,
    place,
    with_article,
    write_prompt,
)  # fmt: skip
from mgs.demo.scenes import SCENES
from mgs.demo.things.table import THINGS

PART = "pretraining"  # of the drawn world
CHANGED = 7  # captions with one element changed, tried for each true one
LOOKS = {
    "blur": "blurry", "noise": "grainy", "blocks": "pixelated", "fade": "faded",
    "waxy": "waxy", "melt": "melting", "deform": "deformed", "scribble": "scribbled",
}  # fmt: skip
GOOD_LOOKS = {"sharp": QUALITY_DAMAGES, "lifelike": AUTHENTICITY_DAMAGES}  # where none of these damages is there
HIDDEN, SHOWS, GLARING = 0.1, 0.3, 0.6  # levels of a damage: below, it is not seen; above, it is, and very much so
LOCAL = ("deform", "scribble")  # damages that a part of a picture may lack
SEEN, UNSEEN = 0.6, 0.1  # shares of a thing's box within a window: the thing is there, and it is not
Facts = frozenset[str]
Window = tuple[int, int, int]  # top, left and side, in pixels
WHOLE: Window = (0, 0, SIDE)


@dataclass(frozen=True)
class View:
    """What a caption may say of a view (`shown`, and `looks`, which is never empty), and all that is true of it."""

    shown: Content | None  # None where no group is wholly there
    looks: tuple[str, ...]
    facts: Facts
    false_looks: tuple[str, ...]


def describe(content: Content, damage: Damage, picture: Picture, window: Window) -> View:
    """What can be seen in a window."""
    facts: set[str] = set(filter(None, content.setting))
    shown: list[Group | None] = []
    for number, group in enumerate(content.groups):
        shares = [visible(figure, window) for figure in picture.figures if figure.group == number]
        whole, parts = sum(share >= SEEN for share in shares), sum(share >= UNSEEN for share in shares)
        shown.append(replace(group, count=whole) if whole and whole == parts else None)
        if parts:
            facts |= {f"a {group.thing}", f"{group.colour} {group.thing}"}
            facts |= {f"{count} {group.thing}" for count in range(max(1, whole), parts + 1)}
    groups = tuple(group for group in shown if group)
    related = len(groups) == len(content.groups) == 2
    relation = (content.relation or beside(picture.figures)) if related else None
    if relation:
        facts |= claims_of_relation(groups, relation)
    looks, false_looks = judge_looks(damage, whole=window == WHOLE)
    light = content.light if window == WHOLE else None  # a window may miss the rays
    view = Content(groups, relation, content.scene, content.medium, light) if groups else None
    return View(view, looks, frozenset((*facts, *judge_looks(damage, whole=True)[0])), false_looks)


def judge_looks(damage: Damage, *, whole: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words for how a picture looks, and those that are wrong; of a part of it only what is seen everywhere."""
    true, false = [], []
    for name, word in LOOKS.items():
        level = getattr(damage, name)
        slightly, very = f"slightly {word}", f"very {word}"
        if level < HIDDEN:
            false += [word, slightly, very]
        elif whole or name not in LOCAL:
            true += [word] * (level > SHOWS) + [slightly] * (level < (SHOWS + GLARING) / 2) + [very] * (level > GLARING)
            false += [slightly] * (level > GLARING) + [very] * (level < SHOWS)
    for word, names in GOOD_LOOKS.items():
        levels = {name: getattr(damage, name) for name in names}
        true += [word] * (max(levels.values()) < HIDDEN)
        false += [word] * any(level > SHOWS for name, level in levels.items() if whole or name not in LOCAL)
    return tuple(true), tuple(false)


def visible(figure: Figure, window: Window) -> float:
    """The share of a figure's box that lies within a window."""
    top, left, side = window
    return overlap(figure.x, figure.side, left, side) * overlap(figure.y, figure.side, top, side)


def overlap(centre: float, size: float, start: float, length: float) -> float:
    """Share of an interval about `centre` that lies in the one from `start`."""
    return max(0.0, min(centre + size / 2, start + length) - max(centre - size / 2, start)) / size


def beside(figures: list[Figure]) -> str:
    """How two groups stand that were not asked to stand in any way: always side by side."""
    first, second = (np.mean([f.x for f in figures if f.group == number]) for number in (0, 1))
    return "left of" if first < second else "right of"


def claims_of(content: Content) -> Facts:
    """The facts that a prompt claims."""
    claims = {
        fact for group in content.groups for fact in (f"{group.colour} {group.thing}", f"{group.count} {group.thing}")
    }
    if content.relation:
        claims |= claims_of_relation(content.groups, content.relation)
    return frozenset((*claims, *filter(None, content.setting)))


def claims_of_relation(groups: tuple[Group, ...], relation: str) -> set[str]:
    """The facts of a relation, as seen from both groups."""
    first, second = (f"{group.colour} {group.thing}" for group in groups[:2])
    inverse = RELATIONS[relation]
    return {f"{first} {relation} {second}", *([f"{second} {inverse} {first}"] if inverse else [])}


def caption(view: View, rng: np.random.Generator) -> tuple[str, Facts]:
    """A caption that is true of the view, and the facts that it claims.

    Some say how the picture looks, the others what it shows, all of it or a part. None names a content of another part
    of the world.
    """
    if view.shown is None or rng.random() < 0.2:
        looks = [str(look) for look in rng.permutation(view.looks)[:2]]
        return f"{with_article(looks[0])}{''.join(f', {look}' for look in looks[1:])} picture", frozenset(looks)
    if rng.random() < 0.3:
        return caption_part(view.shown, rng)
    for _ in range(4):
        content = view.shown if rng.random() < 0.5 else take_some(view.shown, rng)
        if part_of(content) == PART:
            return with_look(content, view, rng)
    return caption_part(view.shown, rng)


def with_look(content: Content, view: View, rng: np.random.Generator) -> tuple[str, Facts]:
    """A content as a prompt, sometimes with a look before it."""
    claims = claims_of(content)
    if rng.random() < 0.3:
        look = str(rng.choice(view.looks))
        return f"{with_article(look)} picture of {write_prompt(content, 'hybrid')}", claims | {look}
    return write_prompt(content, str(rng.choice(STYLES))), claims


def caption_part(content: Content, rng: np.random.Generator) -> tuple[str, Facts]:
    """A word or two about one thing, or about the setting: what prompts are cut into."""
    group = content.groups[int(rng.integers(len(content.groups)))]
    setting = [it for it in content.setting if it]
    if setting and rng.random() < 0.25:
        return caption_setting(str(rng.choice(setting)))
    if rng.random() < 0.35 or part_of(Content((group,))) != PART:
        one = with_article(group.thing)
        many = f"{NUMBERS[group.count]} {group.plural}"
        return (one if group.count == 1 else many), frozenset([f"a {group.thing}", f"{group.count} {group.thing}"])
    lead = str(rng.choice(("", "", "of ", "with ", "above ", "behind ")))
    return f"{lead}{group.phrase}", claims_of(Content((group,)))


def caption_setting(name: str) -> tuple[str, Facts]:
    """The words for a scene, a medium or a light."""
    text = place(name) if name in SCENES else MEDIA[name].phrase if name in MEDIA else LIGHTS[name].phrase
    return text, frozenset([name])


def take_some(content: Content, rng: np.random.Generator) -> Content:
    """A caption need not name everything: keep some groups, perhaps the scene, the medium and the light."""
    kept = rng.random(len(content.groups)) < rng.uniform(0.3, 1)
    groups = tuple(group for group, keep in zip(content.groups, kept, strict=True) if keep) or content.groups[:1]
    scene, medium, light = (it if rng.random() < 0.5 else None for it in content.setting)
    relation = content.relation if len(groups) == len(content.groups) and rng.random() < 0.8 else None
    return Content(groups, relation, scene, medium, light)


def choose(view: View, rng: np.random.Generator) -> list[str]:
    """A true caption, and some that are false since one thing in them differs; none where a view has none.

    Of looks in 40 % of cases, and where no group is wholly in view; else of contents.

    They teach that every word counts: what is where, how often, in which colour.
    """
    if view.shown is None or rng.random() < 0.4:
        looks = [rng.choice(view.looks), *rng.permutation(view.false_looks)[:CHANGED]]
        return [f"{with_article(str(look))} picture" for look in looks]
    for _ in range(4):
        content = view.shown if rng.random() < 0.4 else take_some(view.shown, rng)
        if part_of(content) == PART:
            break
    else:
        return []
    others = [change(content, rng) for _ in range(CHANGED)]
    style = str(rng.choice(STYLES))
    false = [one for one in others if part_of(one) == PART and not claims_of(one) <= view.facts]
    return [write_prompt(one, style) for one in dict.fromkeys((content, *false))]


def arrange(view: View, rng: np.random.Generator) -> list[str]:
    """A true caption of how two groups stand, then false ones of the same two; none for a view without a pair.

    Nothing but the relation differs. With swapped colours among them, too hard at first, colours were hardly learned.
    """
    if view.shown is None or view.shown.relation is None:
        return []
    pair = view.shown.groups if rng.random() < 0.5 else view.shown.groups[::-1]
    scene, medium, light = (it if rng.random() < 0.3 else None for it in view.shown.setting)
    relations = [view.shown.relation, *rivals(view.shown.relation)]
    arranged = [Content(pair, it, scene, medium, light) for it in relations]
    allowed = [one for one in arranged if part_of(one) == PART]
    true = [one for one in allowed if claims_of(one) <= view.facts]
    false = [one for one in allowed if one not in true]
    style = str(rng.choice(STYLES))
    return [write_prompt(one, style) for one in true + false] if true else []


def rivals(relation: str) -> tuple[str, ...]:
    """The relations that are false where this one is true; what is behind may also be left or right of it."""
    aside = ("left of", "right of") if relation == "behind" else ()
    return tuple(it for it in RELATIONS if it != relation and it not in aside)


def change(content: Content, rng: np.random.Generator) -> Content:
    """The content with another colour, thing, number, place, scene or medium; or with two colours swapped."""
    number = int(rng.integers(len(content.groups)))
    group, kind = content.groups[number], rng.random()
    if len(content.groups) > 1 and kind < 0.2:
        first, second, *others = content.groups
        pair = replace(first, colour=second.colour), replace(second, colour=first.colour)
        return replace(content, groups=(*pair, *others))
    if content.relation and kind < 0.5:
        return replace(content, relation=str(rng.choice(rivals(content.relation))))
    if content.scene and kind < 0.55:
        return replace(content, scene=another(tuple(SCENES), content.scene, rng))
    if content.medium and kind < 0.65:
        return replace(content, medium=another(tuple(MEDIA), content.medium, rng))
    kind = rng.random()
    if kind < 0.4:
        other = replace(group, thing=another(tuple(THINGS), group.thing, rng))
    elif kind < 0.7:
        other = replace(group, count=int(rng.choice([n for n in range(1, 6) if n != group.count])))
    else:
        other = replace(group, colour=another(COLOURS, group.colour, rng))
    return replace(content, groups=(*content.groups[:number], other, *content.groups[number + 1 :]))
