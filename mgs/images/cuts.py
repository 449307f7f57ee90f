"""Which views of a picture a method sees, as data, and the one function that cuts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

GRID = 3  # windows per side in the paper's layout

Windows = Literal["none", "grid", "cover"]


@dataclass(frozen=True)
class Cuts:
    """View 0 is the whole picture squeezed to a square; the others are square windows, row by row.

    `grid`: three by three windows, the paper's. `cover`: as many more as it takes until no pixel is missed.
    """

    windows: Windows = "grid"
    side: int = 384  # pixels of a window, before it is resized to what the backbone takes
    antialias: bool = False


def cut_views(images: Tensor, cuts: Cuts, size: int, mean: Tensor, std: Tensor) -> Tensor:
    """Cut decoded pictures of one size into views for an image tower, on the device where they are.

    `images` is RGB on 0-255, uint8 or float, (..., 3, H, W), no side shorter than a window. Returns float32
    (..., V, 3, size, size), on 0-1 less `mean` and over `std`, (3, 1, 1) each. Resizing is bilinear, antialiased only
    where `cuts` says so (the paper's setting is not).
    """
    pixels = images.reshape(-1, *images.shape[-3:]).to(torch.float32, copy=True).div_(255)  # (B, 3, H, W)
    corners = window_corners(images.shape, cuts)
    parts = [pixels, *(pixels[..., y : y + cuts.side, x : x + cuts.side] for y, x in corners)]
    views = [
        F.interpolate(part, (size, size), mode="bilinear", align_corners=False, antialias=cuts.antialias)
        for part in parts
    ]
    stacked = torch.stack(views, 1).sub_(mean).div_(std)  # (B, V, 3, S, S)
    return stacked.reshape(*images.shape[:-3], *stacked.shape[1:])


def count_views(shape: torch.Size | tuple[int, ...], cuts: Cuts) -> int:
    """How many views a (..., H, W) picture has."""
    return 1 + len(window_corners(shape, cuts))


def window_corners(shape: torch.Size | tuple[int, ...], cuts: Cuts) -> list[tuple[int, int]]:
    """The (top, left) corners of the windows on a (..., H, W) picture, row-major: window 4 of 9 is the centre."""
    if cuts.windows == "none":
        return []
    rows, columns = (window_starts(side, cuts) for side in shape[-2:])
    return [(y, x) for y in rows for x in columns]


def window_starts(side: int, cuts: Cuts) -> list[int]:
    """The first pixel of each window along a side of that many pixels.

    The last window of `cover` ends exactly at the side's end; that of `grid`, as in the paper, up to one pixel before.
    """
    if cuts.windows == "grid":
        return [i * ((side - cuts.side) // (GRID - 1)) for i in range(GRID)]  # one stride, rounded down
    count = max(GRID, -(-side // cuts.side))  # enough windows, end to end, to reach across
    return [i * (side - cuts.side) // (count - 1) for i in range(count)]  # each start rounded down
