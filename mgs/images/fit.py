"""How large a picture is made when it is decoded, as data; Pillow resizes it, antialiased, as papers' code does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from PIL import Image

MAX_PIXELS = 178_956_970  # Pillow's own limit; it also holds if a library has removed Pillow's, and after enlarging


@dataclass(frozen=True)
class Fit:
    """Bounds of the shorter side, in pixels; the aspect is kept."""

    least: int = 512  # a shorter one is enlarged to it; MGS's windows of 384 pixels are then always a part of a picture
    most: int | None = None  # a longer one is shrunk to it
    resample: Literal["bilinear", "bicubic"] = "bilinear"
    longer: Literal["rounded", "cut"] = "rounded"  # how a fraction of a pixel of the longer side ends

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The width and height that a picture is resized to. `ValueError` for a sliver that would fill the memory."""
        shorter = min(width, height)
        wanted = max(shorter, self.least)
        wanted = wanted if self.most is None else min(wanted, self.most)
        if wanted == shorter:
            return width, height
        if self.longer == "cut":
            sides = [int(wanted * side / shorter) for side in (width, height)]
        else:
            sides = [round(side * (wanted / shorter)) for side in (width, height)]
        width_now, height_now = (max(wanted, side) for side in sides)
        if width_now * height_now > MAX_PIXELS:
            raise ValueError(f"{width}x{height} is too thin to enlarge")
        return width_now, height_now


def resize(picture: Image.Image, fit: Fit) -> Image.Image:
    """The picture within its bounds. Raises `ValueError` as `Fit.size` does."""
    size = fit.size(*picture.size)
    return picture if size == picture.size else picture.resize(size, Image.Resampling[fit.resample.upper()])
