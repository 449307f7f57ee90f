"""Turn whatever people give as an image into the tensor that views are cut from."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from PIL import Image
from torch import Tensor

from mgs.errors import UserError
from mgs.images.cuts import Cuts, refuse_too_small
from mgs.images.decode import BadImage, decode_image, open_image, read_bytes, to_tensor

ImageInput: TypeAlias = "str | Path | bytes | Image.Image | np.ndarray | Tensor"
Pair: TypeAlias = "tuple[ImageInput, str | None]"  # an image and its prompt
PILLOW = threading.Lock()  # Pillow decodes when first asked, and one image may be given to several threads
MGS_CUTS = Cuts()
CHANNELS = (1, 3, 4)  # grey, RGB, RGB with transparency


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
    if isinstance(image, Tensor):
        image = image.detach().cpu().float().numpy() if image.is_floating_point() else image.detach().cpu().numpy()
        if image.ndim == 3:
            image = image.transpose(1, 2, 0)  # (C, H, W) -> (H, W, C)
    if not isinstance(image, np.ndarray):
        raise BadImage(f"the image: a {type(image).__name__}; give a path, bytes, a Pillow image, an array or a tensor")
    picture = to_tensor(Image.fromarray(to_bytes(image)), "the image", cuts.fit)
    return refuse_too_small(picture, cuts, "the image"), ""


def load_content(data: bytes, name: Path | str, cuts: Cuts = MGS_CUTS) -> tuple[Tensor, str]:
    """What `load_image` returns, from a file's content; `name` is what errors call it."""
    return refuse_too_small(decode_image(data, name, cuts.fit), cuts, name), describe_frames(data)


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """An array of pixels as uint8, (H, W) or (H, W, 3 or 4). Raises `BadImage` for any other shape, type or range."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in CHANNELS) or not pixels.size:
        raise BadImage(f"the image: shape {pixels.shape}; give (H, W, 3) for an array, (3, H, W) for a tensor")
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise BadImage(f"the image: {pixels.dtype} pixels; give uint8, or floats on 0-1")
    if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
        raise BadImage("the image: float pixels that are not all from 0 to 1; scale them, or give uint8")
    return np.ascontiguousarray((pixels * 255).round().astype(np.uint8))


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


def as_prompt(prompt: Any) -> str | None:
    """A prompt as text; None, a table's missing value, and blank text are no prompt."""
    if prompt is None or prompt is pd.NA or (isinstance(prompt, float) and np.isnan(prompt)):
        return None
    if not isinstance(prompt, str):
        raise UserError(f"prompt {prompt!r}: a {type(prompt).__name__}; give text, or None")
    return prompt if prompt.strip() else None


def as_images(images: Sequence[ImageInput] | np.ndarray | Tensor) -> list[ImageInput]:
    """Several images as a list; an array or tensor is one with a batch axis. `ValueError` for a single image."""
    if isinstance(images, (str, Path, bytes, Image.Image)) or (
        isinstance(images, (np.ndarray, Tensor)) and images.ndim != 4
    ):
        raise ValueError("images: one image in place of a list; give a list")
    return list(images)


def as_prompts(prompts: Sequence[str | None] | None, images: int) -> list[str | None]:
    """One prompt per image, unchanged. `ValueError` for a single text, and for another number of prompts."""
    if prompts is None:
        return [None] * images
    if isinstance(prompts, str):
        raise ValueError(f"prompts: one text in place of a list; give a list, one prompt per image ({images})")
    if len(prompts) != images:
        raise ValueError(f"{len(prompts)} prompt(s) for {images} image(s); give lists, one prompt per image")
    return list(prompts)


def name_of(image: ImageInput) -> str:
    """What a table calls an image."""
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "") or "image")
    return str(image) if isinstance(image, (str, Path)) else "image"
