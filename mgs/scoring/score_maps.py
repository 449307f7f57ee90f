"""Where in an image its scores come from, pixel by pixel: the views' token maps, merged where views overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mgs.backbones.token_maps import LastBlock
from mgs.engine.engine import Embedded
from mgs.methods.mgs import MGS

MOST_SIDE = 512  # pixels of a map's longer side; a larger picture's map is coarser, and far finer than the tokens


class Box(NamedTuple):
    """Where a view lies on the picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class ScoreMaps:
    """Readings of an image, place by place; unlike the patches' parts, they do not add up to the scores.

    Maps are float32, (h, w), over the whole picture: as large as it is, with at most 512 pixels on the longer side.
    """

    quality: Tensor  # what the place adds to the score of a view, to first order: below 0 where it lowers it
    authenticity: Tensor
    whole: Tensor | None  # how like the whole prompt the place is, a cosine; None without a prompt
    fragments: list[Tensor]  # how like each fragment it is


def map_scores(
    last: LastBlock, embedded: Embedded, method: MGS, boxes: Sequence[Box], shape: torch.Size, *, prompted: bool
) -> ScoreMaps:
    """The maps of one picture of that (..., H, W), whose views lie at `boxes`; of the prompt's only if it has one."""
    with torch.inference_mode(False):  # a gradient takes no tensor of inference mode
        level = embedded.texts[: len(method.sentences)].clone()
    added = last.read(lambda views: torch.stack(method.read_levels(views @ level.T), -1))  # (2, V, g, g)
    quality, authenticity = merge_maps(added.cpu(), boxes, shape).unbind()
    if not prompted:
        return ScoreMaps(quality, authenticity, None, [])
    count = int(embedded.numbers["counts"][0])
    texts = embedded.texts[torch.cat([embedded.numbers["whole"][:1], embedded.numbers["fragments"][0, :count]])]
    alike = last.embed_patches() @ texts.T  # (V, g, g, 1 + F)
    whole, *fragments = merge_maps(alike.movedim(-1, 0).cpu(), boxes, shape).unbind()
    return ScoreMaps(quality, authenticity, whole, fragments)


def merge_maps(maps: Tensor, boxes: Sequence[Box], shape: torch.Size | tuple[int, ...]) -> Tensor:
    """K maps of V views, (K, V, g, g), as K maps of a (..., H, W) picture, (K, h, w).

    Each view's map is resized to its box, bilinearly. Each pixel gets the mean of the views that show it; 0 where no
    view does.
    """
    height, width = shape[-2:]
    scale = min(1.0, MOST_SIDE / max(height, width))
    rows, columns = (max(1, round(side * scale)) for side in (height, width))
    total, count = torch.zeros(len(maps), rows, columns), torch.zeros(rows, columns)
    for view, (top, left, high, wide) in zip(maps.unbind(1), boxes, strict=True):
        down = stretch(maps.shape[-2], rows, top / height, high / height)  # (h, g)
        across = stretch(maps.shape[-1], columns, left / width, wide / width)  # (w, g)
        total += down @ view @ across.T
        count += down.sum(1)[:, None] * across.sum(1)
    return total / count.clamp(min=1)


def stretch(cells: int, pixels: int, start: float, share: float) -> Tensor:
    """Weights that resize a row of cells, bilinearly, to a share of a row of pixels, (pixels, cells); 0 outside it."""
    at = ((torch.arange(pixels, dtype=torch.float64) + 0.5) / pixels - start) / share  # 0-1 within the box
    places = (at * cells - 0.5).clamp(0, cells - 1)
    weights = (1 - (places[:, None] - torch.arange(cells)).abs()).clamp(min=0)
    return (weights * ((at > 0) & (at < 1))[:, None]).float()
