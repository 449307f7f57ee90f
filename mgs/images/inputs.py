"""Turn whatever people give as an image into the tensor that views are cut from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from torch import Tensor

from mgs.images.cuts import Cuts, refuse_too_small
from mgs.images.decode import BadImage, decode_image, open_image, read_bytes, to_tensor
from mgs.images.forms import PILLOW, ImageInput, from_pixels

MGS_CUTS = Cuts()


def load_image(image: ImageInput, cuts: Cuts = MGS_CUTS) -> tuple[Tensor, str]:
    """An image as uint8 RGB, (3, H, W), the shorter side as `cuts` say, and a remark, "" where there is nothing to say.

    Paths, files' contents and Pillow images may be of any size and mode that `images/decode.py` reads. Arrays are
    (H, W) or (H, W, C), tensors (C, H, W), with 1, 3 or 4 channels, uint8 or floats on 0-1. Raises `BadImage`.
    """
    if isinstance(image, (str, Path)):
        return load_content(read_bytes(Path(image)), Path(image), cuts)
    if isinstance(image, bytes):
        return load_content(image, "the image", cuts)
    if isinstance(image, Image.Image):
        with PILLOW:
            return refuse_too_small(to_tensor(image, "the image", cuts.fit), cuts, "the image"), ""
    return refuse_too_small(to_tensor(from_pixels(image), "the image", cuts.fit), cuts, "the image"), ""


def load_content(data: bytes, name: Path | str, cuts: Cuts = MGS_CUTS) -> tuple[Tensor, str]:
    """What `load_image` returns, from a file's content; `name` is what errors call it."""
    return refuse_too_small(decode_image(data, name, cuts.fit), cuts, name), describe_frames(data)


def describe_frames(data: bytes) -> str:
    """A remark on a file of several frames, of which the first is scored."""
    with contextlib.suppress(Exception), open_image(data) as file:  # damage past the first frame
        return "first frame of an animation" if getattr(file, "is_animated", False) else ""
    return ""


def load_or_reason(load: Callable[[], tuple[Tensor, str]]) -> tuple[Tensor | None, str]:
    """What `load` returns, such as `load_image`; for a bad image, None and the reason."""
    try:
        return load()
    except BadImage as error:
        return None, str(error)
    except MemoryError:
        return None, "out of memory while decoding; use a smaller image"
