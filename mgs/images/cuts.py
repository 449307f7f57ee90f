"""The views of a picture: view 0 is all of it, the others are 384-pixel windows, each resized for the backbone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH_PIXELS = 384
GRID = 3  # windows per side in the paper's layout
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

Layout = Literal["grid", "cover"]


def make_views(images: Tensor, size: int, *, layout: Layout = "grid", antialias: bool = False) -> Tensor:
    """Cut decoded pictures of one size into views for the image tower, on the device where they are.

    `images` is uint8 RGB, (..., 3, H, W), sides at least 512. Returns float32 (..., V, 3, size, size), normalised with
    CLIP's mean and standard deviation: view 0 the whole picture squeezed to a square, then the windows row by row. V is
    10 for `grid`; `cover` adds windows to a side until no pixel is missed. Resizing is bilinear, not antialiased by
    default (the paper's setting).
    """
    pixels = images.reshape(-1, *images.shape[-3:]).to(torch.float32, copy=True).div_(255)  # (B, 3, H, W)
    corners = windows(images.shape, layout)
    parts = [pixels, *(pixels[..., y : y + PATCH_PIXELS, x : x + PATCH_PIXELS] for y, x in corners)]
    views = [
        F.interpolate(part, (size, size), mode="bilinear", align_corners=False, antialias=antialias) for part in parts
    ]
    mean, std = clip_statistics(images.device)
    stacked = torch.stack(views, 1).sub_(mean).div_(std)  # (B, V, 3, S, S)
    return stacked.reshape(*images.shape[:-3], *stacked.shape[1:])


def denormalise(views: Tensor) -> Tensor:
    """Normalised views, (..., 3, S, S), back to 0-1 for people to look at."""
    mean, std = clip_statistics(views.device)
    return views * std + mean


def clip_statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """CLIP's mean and standard deviation per channel, (3, 1, 1) each."""
    return torch.tensor(CLIP_MEAN, device=device)[:, None, None], torch.tensor(CLIP_STD, device=device)[:, None, None]


def windows(shape: torch.Size | tuple[int, ...], layout: Layout) -> Iterator[tuple[int, int]]:
    """The (top, left) corners of the windows on a (..., H, W) picture, row-major: window 4 of 9 is the centre."""
    height, width = shape[-2:]
    for y in offsets(height, layout):
        for x in offsets(width, layout):
            yield y, x


def offsets(side: int, layout: Layout) -> list[int]:
    """The first pixel of each window along a side of that many pixels.

    The last window of `cover` ends exactly at the side's end; that of `grid`, as in the paper, up to one pixel before.
    """
    if layout == "grid":
        return [i * ((side - PATCH_PIXELS) // (GRID - 1)) for i in range(GRID)]  # one stride, rounded down
    count = max(GRID, -(-side // PATCH_PIXELS))  # enough windows, end to end, to reach across
    return [i * (side - PATCH_PIXELS) // (count - 1) for i in range(count)]  # each start rounded down
