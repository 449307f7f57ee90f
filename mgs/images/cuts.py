"""Which views of a picture a method sees, as data, and the one function that cuts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mgs.images.decode import BadImage
from mgs.images.fit import Fit

GRID = 3  # windows per side in the layout of MGS's paper
STRIDE, WIDE_STRIDE, WIDE = 32, 48, 1024  # of IPCE's and LIQE's windows; the wider one from that side on
SMALLEST, LARGEST = 32, 2048  # pixels of the shorter side at a picture's own size, for what a ResNet and memory take

Whole = Literal["squeezed", "centre", "native", "none"]
Windows = Literal["none", "grid", "cover", "even", "random"]


@dataclass(frozen=True)
class Cuts:
    """A picture is resized as `fit` says when it is decoded. Then come, in this order:

    - view 0, the whole picture: squeezed to a square, or its centre (a crop of the backbone's size), or at its own size
      (its centre, where the backbone takes one size alone); or nothing;
    - square windows, row by row. `grid`: three by three of them. `cover`: as many more as it takes until no pixel is
      missed. `even`: `count` of all at a stride of 32 pixels (48 from a side of 1024 on), evenly spread over their
      list. `random`: `count` of that list, drawn with replacement.

    With `flip`, half of the pictures, drawn at random, are mirrored first.
    """

    windows: Windows = "grid"
    side: int = 384  # pixels of a window, before it is resized to what the backbone takes
    antialias: bool = False
    whole: Whole = "squeezed"
    count: int = 0  # of `even` and `random` windows
    flip: bool = False
    fit: Fit = field(default_factory=Fit)

    @property
    def drawn(self) -> bool:
        """Whether views depend on a draw."""
        return self.flip or self.windows == "random"


@dataclass(frozen=True)
class Draw:
    """What decides a picture's random cuts: nothing but these numbers, so that no generator's state need be kept."""

    seed: int
    epoch: int
    position: int  # in the epoch


def refuse_too_small(picture: Tensor, cuts: Cuts, name: object) -> Tensor:
    """The decoded picture; `BadImage` for one with too few windows. `name` is what errors call it."""
    try:
        if cuts.windows in ("even", "random"):
            all_corners(picture.shape, cuts)
    except ValueError as error:
        raise BadImage(f"{name}: {error}") from None
    return picture


def for_size(cuts: Cuts, size: int, *, any_size: bool = False) -> Cuts:
    """The cuts for a backbone of that many pixels, or of any: a picture whose centre is taken is resized to them."""
    if cuts.whole == "native" and any_size:
        return replace(cuts, fit=Fit(SMALLEST, LARGEST))
    if cuts.whole not in ("centre", "native"):
        return cuts
    return replace(cuts, whole="centre", fit=replace(cuts.fit, least=size, most=size))


def cut_views(
    images: Tensor, cuts: Cuts, size: int, mean: Tensor, std: Tensor, draws: Sequence[Draw] | None = None
) -> Tensor:
    """Cut decoded pictures of one size into views for an image tower, on the device where they are.

    `images` is RGB on 0-255, uint8 or float, (..., 3, H, W), no side shorter than a window. Returns float32
    (..., V, 3, size, size), on 0-1 less `mean` and over `std`, (3, 1, 1) each. Resizing is bilinear, antialiased only
    where `cuts` says so (the papers' setting is not). `draws`, one for each picture, are for random cuts. Raises
    `ValueError` for pictures with too few windows.
    """
    pixels = images.reshape(-1, *images.shape[-3:]).to(torch.float32, copy=True).div_(255)  # (B, 3, H, W)
    if cuts.drawn:
        each = zip(pixels, draws or (), strict=True)
        views = torch.cat([cut_at_random(one[None], cuts, size, mean, std, draw) for one, draw in each])
    else:
        views = cut_at(pixels, window_corners(images.shape, cuts), cuts, size, mean, std)
    return views.reshape(*images.shape[:-3], *views.shape[1:])


def cut_at_random(pixels: Tensor, cuts: Cuts, size: int, mean: Tensor, std: Tensor, draw: Draw) -> Tensor:
    """The views of one picture, (1, 3, H, W) on 0-1, that a draw decides: (1, V, 3, S, S)."""
    rng = np.random.default_rng((draw.seed, draw.epoch, draw.position))
    if cuts.windows == "random":
        corners = all_corners(pixels.shape, cuts)
        chosen = [corners[i] for i in rng.integers(len(corners), size=cuts.count)]
    else:
        chosen = window_corners(pixels.shape, cuts)
    if cuts.flip and rng.random() < 0.5:
        pixels = pixels.flip(-1)
    return cut_at(pixels, chosen, cuts, size, mean, std)


def cut_at(
    pixels: Tensor, corners: Sequence[tuple[int, int]], cuts: Cuts, size: int, mean: Tensor, std: Tensor
) -> Tensor:
    """The whole picture and the windows at these corners, (B, V, 3, S, S), of pictures on 0-1, (B, 3, H, W).

    At the picture's own size there are no windows: (B, 1, 3, H, W).
    """
    if cuts.whole == "native":
        return pixels[:, None].sub(mean).div_(std)
    parts = [pixels[..., y : y + cuts.side, x : x + cuts.side] for y, x in corners]
    if cuts.whole == "squeezed":
        parts.insert(0, pixels)
    elif cuts.whole == "centre":
        top, left = (round((side - size) / 2) for side in pixels.shape[-2:])  # as torchvision rounds
        parts.insert(0, pixels[..., top : top + size, left : left + size])
    views = [
        F.interpolate(part, (size, size), mode="bilinear", align_corners=False, antialias=cuts.antialias)
        for part in parts
    ]
    return torch.stack(views, 1).sub_(mean).div_(std)


def shape_of_views(shape: torch.Size | tuple[int, ...], cuts: Cuts) -> tuple[int, ...]:
    """The number of views that a (..., H, W) picture has; and their sides, where these are not the backbone's size."""
    return (1, *shape[-2:]) if cuts.whole == "native" else (count_views(shape, cuts),)


def count_views(shape: torch.Size | tuple[int, ...], cuts: Cuts) -> int:
    """How many views a (..., H, W) picture has."""
    windows = cuts.count if cuts.windows in ("even", "random") else len(window_corners(shape, cuts))
    return windows + (cuts.whole != "none")


def window_corners(shape: torch.Size | tuple[int, ...], cuts: Cuts) -> list[tuple[int, int]]:
    """The (top, left) corners of the windows on a (..., H, W) picture, row-major: window 4 of 9 is the centre.

    Where they are drawn at random, there are none without a draw.
    """
    if cuts.windows in ("none", "random"):
        return []
    if cuts.windows == "even":
        corners = all_corners(shape, cuts)
        return [corners[i * (len(corners) // cuts.count)] for i in range(cuts.count)]
    rows, columns = (window_starts(side, cuts) for side in shape[-2:])
    return [(y, x) for y in rows for x in columns]


def all_corners(shape: torch.Size | tuple[int, ...], cuts: Cuts) -> list[tuple[int, int]]:
    """The corners of all windows at a stride, row-major, from which `even` and `random` choose."""
    height, width = shape[-2:]
    stride = WIDE_STRIDE if max(height, width) >= WIDE else STRIDE
    rows, columns = (range(0, side - cuts.side + 1, stride) for side in (height, width))
    corners = [(y, x) for y in rows for x in columns]
    if len(corners) < cuts.count:
        problem = f"a picture of {width}x{height} pixels has {len(corners)} windows of {cuts.side} pixels"
        raise ValueError(f"{problem}, and {cuts.count} are needed; use a larger one")
    return corners


def window_starts(side: int, cuts: Cuts) -> list[int]:
    """The first pixel of each window along a side of that many pixels.

    The last window of `cover` ends exactly at the side's end; that of `grid`, as in the paper, up to one pixel before.
    """
    if cuts.windows == "grid":
        return [i * ((side - cuts.side) // (GRID - 1)) for i in range(GRID)]  # one stride, rounded down
    count = max(GRID, -(-side // cuts.side))  # enough windows, end to end, to reach across
    return [i * (side - cuts.side) // (count - 1) for i in range(count)]  # each start rounded down
