"""What the demo CLIP's pre-training asks besides its captions, and the losses of all its choices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgs.demo.media import MEDIA
from mgs.demo.prompts import COLOURS
from mgs.demo.scenes import SCENES
from mgs.demo.things.table import THINGS
from scripts.demo_captions import LOOKS, Facts
from scripts.demo_views import GRID, MANY, Views

SHARP = 16  # what embeddings are multiplied by, since theirs are of length 1
NAMED = [frozenset([f"a {thing}"]) for thing in THINGS]
SETTINGS = [[frozenset([name]) for name in table] for table in (SCENES, MEDIA)]


class Lessons(nn.Module):
    """Linear layers that tell from embeddings what is in a view and in its patches. Only pre-training has them.

    They ask what is seen and how strong each damage is, never for a score. One layer names the things of views and of
    patches, so that both speak one language.
    """

    def __init__(self, width: int):
        super().__init__()
        self.things = nn.Linear(width, 1 + len(THINGS))
        self.colours = nn.Linear(width, len(COLOURS))
        self.layout = nn.Linear(width, 4 * (1 + len(COLOURS)))
        self.settings = nn.ModuleList(nn.Linear(width, len(names)) for names in SETTINGS)
        self.numbers = nn.Linear(width, 1 + MANY)
        self.levels = nn.Linear(width, len(LOOKS))

    def forward(self, images: Tensor, patches: Tensor, views: Views, rows: Tensor, facts: Sequence[Facts]) -> Tensor:
        """The sum of the losses for embeddings of views `rows`, (B, D), and of their patches, (B, 64, D)."""
        images, patches = SHARP * images, SHARP * patches.flatten(0, 1)
        things, colours = views.things[rows], views.colours[rows]
        seen_in_patches = self.levels(patches).unflatten(0, (len(images), -1)).mean(1)
        losses = [
            F.cross_entropy(self.things(patches), things.flatten()),
            F.cross_entropy(self.colours(patches), colours.flatten()),
            one_way(self.things(images)[:, 1:], match(facts, NAMED)),
            F.cross_entropy(self.layout(images).unflatten(1, (4, -1)).transpose(1, 2), quarters(colours)),
            F.cross_entropy(self.numbers(images), views.numbers[rows]),
            len(LOOKS) * F.binary_cross_entropy_with_logits(self.levels(images), views.levels[rows]),
            len(LOOKS) * F.binary_cross_entropy_with_logits(seen_in_patches, views.levels[rows]),
        ]
        losses += [
            one_way(ask(images), match(facts, names)) for ask, names in zip(self.settings, SETTINGS, strict=True)
        ]
        return torch.stack(losses).sum()


def quarters(colours: Tensor) -> Tensor:
    """Shares of nothing and of each colour in the quarters of views, (B, 11, 4), by their patches' colours, (B, 64)."""
    shown = F.one_hot(colours.clamp(min=-1) + 1, 1 + len(COLOURS)).float()
    half = GRID // 2
    return shown.unflatten(1, (2, half, 2, half)).mean((2, 4)).flatten(1, 2).transpose(1, 2)


def match(facts: Sequence[Facts], claims: Sequence[Facts]) -> Tensor:
    """Which captions are true of which views, 0 or 1, (views, captions): those whose every claim is a fact."""
    number = {fact: i for i, fact in enumerate(sorted(frozenset().union(*claims)))}
    known = torch.zeros(len(facts), len(number))
    asked = torch.zeros(len(claims), len(number))
    for table, rows in ((known, facts), (asked, claims)):
        for row, names in zip(table, rows, strict=True):
            row[[number[name] for name in names if name in number]] = 1
    return (known @ asked.T == asked.sum(1)).float()


def contrastive_loss(logits: Tensor, matches: Tensor) -> Tensor:
    """Symmetric InfoNCE for (images, texts) logits, where one caption can be true of many images and an image of many.

    Each softmax is scored by its mean log-probability over all true partners, so a repeated caption is no false
    negative. A caption that is true of no image only serves as a negative.
    """
    return (one_way(logits, matches) + one_way(logits.T, matches.T)) / 2


def one_way(logits: Tensor, matches: Tensor) -> Tensor:
    """The mean over rows of the mean log-probability of what is true, less than 0; rows without any are left out."""
    count = matches.sum(1)
    return -((logits.log_softmax(1) * matches).sum(1)[count > 0] / count[count > 0]).mean()
