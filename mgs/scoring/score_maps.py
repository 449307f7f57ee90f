"""Where in an image its scores come from: the views' token maps, and how they merge where views overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mgs.backbones.token_maps import LastBlock
from mgs.engine.engine import Embedded
from mgs.methods.mgs import MGS

LONGEST = 512  # pixels of a merged map's longer side; a larger picture's map is coarser, and far finer than the tokens


class Box(NamedTuple):
    """Where a view lies on the picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class ScoreMap:
    """A number for each token of each view, and where the views lie on the picture."""

    views: Tensor  # float32, (V, g, g)
    boxes: Sequence[Box]
    shape: tuple[int, int]  # of the picture, (H, W)

    def merge(self, longest: int = LONGEST) -> Tensor:
        """The map over the whole picture, float32, (h, w): as large as that, but no side longer than `longest`.

        Each view's map is resized to its box, bilinearly. Each pixel gets the mean of the views that show it; 0 where
        no view does.
        """
        height, width = self.shape
        scale = min(1.0, longest / max(height, width))
        rows, columns = (max(1, round(side * scale)) for side in (height, width))
        total, count = torch.zeros(rows, columns), torch.zeros(rows, columns)
        for view, (top, left, high, wide) in zip(self.views, self.boxes, strict=True):
            down = stretch(len(view), rows, top / height, high / height)  # (h, g)
            across = stretch(len(view), columns, left / width, wide / width)  # (w, g)
            total += down @ view @ across.T
            count += down.sum(1)[:, None] * across.sum(1)
        return total / count.clamp(min=1)


@dataclass(frozen=True)
class ScoreMaps:
    """Readings of an image, place by place; unlike the patches' parts, they do not add up to the scores."""

    quality: ScoreMap  # what the place adds to the score of a view, to first order: below 0 where it lowers it
    authenticity: ScoreMap
    whole: ScoreMap | None  # how like the whole prompt the place is, a cosine; None without a prompt
    fragments: list[ScoreMap]  # how like each fragment it is


def map_scores(
    last: LastBlock, embedded: Embedded, method: MGS, boxes: Sequence[Box], shape: tuple[int, int], *, prompted: bool
) -> ScoreMaps:
    """The maps of one picture of that (H, W), whose views lie at `boxes`; of the prompt's only if it has one."""
    with torch.inference_mode(False):  # a gradient takes no tensor of inference mode
        level = embedded.texts[: len(method.sentences)].clone()
    added = last.read(lambda views: torch.stack(method.read_levels(views @ level.T), -1)).cpu()  # (2, V, g, g)
    quality, authenticity = (ScoreMap(views, boxes, shape) for views in added)
    if not prompted:
        return ScoreMaps(quality, authenticity, None, [])
    count = int(embedded.numbers["counts"][0])
    texts = embedded.texts[torch.cat([embedded.numbers["whole"][:1], embedded.numbers["fragments"][0, :count]])]
    alike = (last.embed_patches() @ texts.T).movedim(-1, 0).cpu()  # (1 + F, V, g, g)
    whole, *fragments = (ScoreMap(views, boxes, shape) for views in alike)
    return ScoreMaps(quality, authenticity, whole, fragments)


def stretch(cells: int, pixels: int, start: float, share: float) -> Tensor:
    """Weights that resize a row of cells, bilinearly, to a share of a row of pixels, (pixels, cells); 0 outside it."""
    at = ((torch.arange(pixels, dtype=torch.float64) + 0.5) / pixels - start) / share  # 0-1 within the box
    places = (at * cells - 0.5).clamp(0, cells - 1)
    weights = (1 - (places[:, None] - torch.arange(cells)).abs()).clamp(min=0)
    return (weights * ((at > 0) & (at < 1))[:, None]).float()
