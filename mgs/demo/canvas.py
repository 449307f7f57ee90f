"""The float canvas that pictures are painted on."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Canvas = NDArray[np.float32]  # (512, 512, 3), RGB 0-255; or of another size, or a coverage on 0-1

SIDE = 512


@lru_cache(maxsize=1)
def grid() -> tuple[Canvas, Canvas]:
    """Pixel coordinates: x as (1, 512, 1), y as (512, 1, 1)."""
    axis = np.arange(SIDE, dtype=np.float32)
    return axis[None, :, None], axis[:, None, None]
