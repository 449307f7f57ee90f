"""What a CLIP knows of drawings: it picks the true caption of a picture among some that differ in one word.

    python -m scripts.demo_probes [--clip PATH]

The pictures are of the part of the drawn world that is kept for testing: no caption of the pre-training asks for just
what one of them was drawn for.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import clip
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.plain import openai_module
from mgs.backbones.architecture import MEAN, STD
from mgs.backbones.table import load_backbone
from mgs.demo.drawing import draw
from mgs.demo.faults import Damage
from mgs.demo.generators import as_asked
from mgs.demo.media import MEDIA
from mgs.demo.prompts import COLOURS, Content, sample_content, with_article, write_prompt
from mgs.demo.scenes import SCENES
from mgs.demo.things.table import THINGS
from mgs.images.cuts import Cuts, cut_views
from scripts.demo_captions import LOOKS

SIDES = ("above", "below", "left of", "right of")
Encode = Callable[[Tensor], Tensor]


def choices(kind: str, content: Content) -> list[Content]:
    """The contents to choose from, the true one among them."""
    first, *others = content.groups
    if kind == "colour":
        return [Content((replace(first, colour=colour),)) for colour in COLOURS]
    if kind == "shape":
        return [Content((replace(first, thing=thing),)) for thing in THINGS]
    if kind == "count":
        return [Content((replace(first, count=count),)) for count in range(1, MOST + 1)]
    if kind == "position":
        return [Content((first, *others), relation) for relation in SIDES]
    if kind == "binding":  # which of two things has which colour
        swapped = (replace(first, colour=others[0].colour), replace(others[0], colour=first.colour))
        return [Content((first, *others)), Content(swapped)]
    if kind == "scene":
        return [replace(content, scene=scene) for scene in SCENES]
    return [replace(content, medium=medium) for medium in MEDIA]


def suits(kind: str, content: Content) -> bool:
    """Whether a content can be asked that question."""
    lone = len(content.groups) == 1
    return {
        "colour": lone,
        "shape": lone,
        "count": lone,
        "position": len(content.groups) == 2 and content.relation in SIDES,
        "binding": len(content.groups) == 2,
        "scene": content.scene is not None,
        "medium": content.medium is not None,
    }[kind]


KINDS = ("colour", "shape", "count", "position", "binding", "scene", "medium", "look")
GLARING = 0.7  # level of a damage
MOST = 5  # things of one kind


def questions(kind: str, number: int, seed: int, part: str) -> Iterator[tuple[Tensor, list[str], int]]:
    """Pictures of a part of the world, uint8 (3, 512, 512), each with its captions and the place of the true one."""
    rng = np.random.default_rng((seed, KINDS.index(kind)))
    for i in range(number):
        if kind == "look":
            true = i % len(LOOKS)
            content, damage = sample_content(rng, part), Damage(**{list(LOOKS)[true]: GLARING})
            picture = draw(as_asked(content), damage, rng).pixels
            texts = [f"{with_article(look)} picture" for look in LOOKS.values()]
            yield torch.from_numpy(picture).permute(2, 0, 1), texts, true
            continue
        count = i % MOST + 1  # as often each, though most groups of the demo are of one
        while not suits(kind, content := sample_content(rng, part)) or (
            kind == "count" and content.groups[0].count != count
        ):
            pass
        offered = choices(kind, content)
        picture = draw(as_asked(content), Damage(), rng).pixels
        texts = [write_prompt(one, "hybrid") for one in offered]
        true = next(i for i, one in enumerate(offered) if is_true(one, content))
        yield torch.from_numpy(picture).permute(2, 0, 1), texts, true


def is_true(offered: Content, content: Content) -> bool:
    """Whether a choice says what the content says, as far as it says anything."""
    groups = offered.groups == content.groups
    return groups and all(it is None or it == its for it, its in zip(settings(offered), settings(content), strict=True))


def settings(content: Content) -> tuple[str | None, ...]:
    """Relation, scene, medium, light."""
    return content.relation, *content.setting


def probe(
    encode_image: Encode,
    encode_text: Callable[[Sequence[str]], Tensor],
    *,
    number: int,
    seed: int,
    part: str = "test",
) -> dict[str, float]:
    """Shares of right choices by kind of question. The encoders give unit-norm embeddings; views are (B, 3, 96, 96)."""
    found = {}
    for kind in KINDS:
        views, texts, trues = zip(*questions(kind, number, seed, part), strict=True)
        images = encode_image(torch.stack([whole_view(view) for view in views]))
        embedded = encode_text([text for offered in texts for text in offered]).split(
            [len(offered) for offered in texts]
        )
        right = [
            int((image @ few.T).argmax()) == true for image, few, true in zip(images, embedded, trues, strict=True)
        ]
        found[kind] = round(float(np.mean(right)), 3)
    return found


def whole_view(picture: Tensor) -> Tensor:
    """The whole picture as the demo CLIP sees it, (3, 96, 96)."""
    return cut_views(picture, Cuts(), 96, torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None])[0]


def main(argv: Sequence[str] | None = None) -> None:
    """Ask a backbone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", default="demo", help="a name or a file, as model.clip in a config")
    parser.add_argument("--number", type=int, default=400, help="pictures for each kind of question")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    model = openai_module(load_backbone(args.clip).state_dict())

    @torch.no_grad()
    def encode_text(texts: Sequence[str]) -> Tensor:
        return normalize(model.encode_text(clip.tokenize(list(texts))), dim=-1)

    @torch.no_grad()
    def encode_image(views: Tensor) -> Tensor:
        return normalize(model.encode_image(views), dim=-1)

    for kind, share in probe(encode_image, encode_text, number=args.number, seed=args.seed).items():
        print(f"{kind:10}{share:.1%}")


if __name__ == "__main__":
    main()
