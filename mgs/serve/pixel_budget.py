"""Bound the memory of decoded images: threads wait until there is room for the next one."""

from __future__ import annotations

import math
import threading

from PIL import Image

from mgs.images.decode import open_image
from mgs.images.fit import Fit

SLOWER = 8  # times fewer pixels are taken of a format that Pillow decodes in Python, a hundred times slower than in C


class PixelBudget:
    """So many pixels may be decoded and not scored yet, whatever the number of images."""

    def __init__(self, pixels: int) -> None:
        self.left = pixels
        self.changed = threading.Condition()

    def take(self, pixels: int) -> None:
        """Wait until so many pixels are left, and take them; `pixels` is no more than the whole budget."""
        with self.changed:
            self.changed.wait_for(lambda: self.left >= pixels)
            self.left -= pixels

    def give(self, pixels: int) -> None:
        """Give pixels back."""
        with self.changed:
            self.left += pixels
            self.changed.notify_all()


def count_pixels(data: bytes, fit: Fit) -> tuple[int, bool]:
    """How many pixels an image file makes, as it is or as `fit` enlarges it, and whether it is decoded in Python.

    0 for what is no image, or cannot be enlarged: decoding tells the reason better.
    """
    try:
        with open_image(data) as picture:
            in_python = any(tile[0] in Image.DECODERS for tile in getattr(picture, "tile", ()))
            return max(math.prod(picture.size), math.prod(fit.size(*picture.size))), in_python
    except Exception:  # decoders raise what they like
        return 0, False
