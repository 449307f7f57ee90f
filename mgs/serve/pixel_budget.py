"""Bound the memory of decoded images: threads wait until there is room for the next one."""

from __future__ import annotations

import math
import threading

from mgs.images.decode import open_image
from mgs.images.fit import Fit


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


def count_pixels(data: bytes, fit: Fit) -> int:
    """How many pixels an image file makes, as it is or as `fit` enlarges it; 0 for what is none, or cannot be enlarged.

    Decoding tells the reason for that better.
    """
    try:
        with open_image(data) as picture:
            return max(math.prod(picture.size), math.prod(fit.size(*picture.size)))
    except Exception:  # decoders raise what they like
        return 0
