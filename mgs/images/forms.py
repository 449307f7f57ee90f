"""The forms in which people give images and prompts. Imports no torch, for clients of a server."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
import pandas as pd
from PIL import Image

from mgs.errors import UserError
from mgs.images.decode import BadImage, read_bytes, to_pixels
from mgs.images.fit import Fit

if TYPE_CHECKING:
    from torch import Tensor

ImageInput: TypeAlias = "str | Path | bytes | Image.Image | np.ndarray | Tensor"
Images: TypeAlias = "Sequence[ImageInput] | np.ndarray | Tensor"
Pair: TypeAlias = "tuple[ImageInput, str | None]"  # an image and its prompt
PILLOW = threading.Lock()  # Pillow decodes when first asked, and one image may be given to several threads
CHANNELS = (1, 3, 4)  # grey, RGB, RGB with transparency
AS_IT_IS = Fit(least=1)


def is_tensor(value: Any) -> TypeGuard[Tensor]:
    """Whether a value is a torch tensor; nobody who has one has not imported torch."""
    return isinstance(value, getattr(sys.modules.get("torch"), "Tensor", ()))


def as_batch(images: Images) -> list[ImageInput]:
    """The images of a list, or of a batch with its channels first or last, on any device. `ValueError` for others."""
    if is_tensor(images):
        images = images.detach().cpu()  # all at once
    return as_images(channels_first(images) if is_tensor(images) or isinstance(images, np.ndarray) else images)


def as_images(images: Images) -> list[ImageInput]:
    """Several images as a list; an array or tensor is one with a batch axis. `ValueError` for a single image."""
    if isinstance(images, (str, Path, bytes, Image.Image)) or (
        (is_tensor(images) or isinstance(images, np.ndarray)) and images.ndim != 4
    ):
        raise ValueError("images: one image in place of a list; give a list")
    return list(images)


def channels_first(images: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """A batch with its channels where `Scorer` looks for them: (N, C, H, W) of a tensor, (N, H, W, C) of an array.

    Where both ends could be channels, a batch is what its kind mostly is. A single image has no batch axis.
    """
    if images.ndim != 4:
        raise ValueError(f"images {tuple(images.shape)}: give (N, C, H, W) or (N, H, W, C), or a list of images")
    first, last = images.shape[1] in CHANNELS, images.shape[3] in CHANNELS
    if is_tensor(images):
        return images.permute(0, 3, 1, 2) if last and not first else images
    assert isinstance(images, np.ndarray)
    return images.transpose(0, 2, 3, 1) if first and not last else images


def as_prompt(prompt: Any) -> str | None:
    """A prompt as text; None, a table's missing value, and blank text are no prompt."""
    if prompt is None or prompt is pd.NA or (isinstance(prompt, float) and np.isnan(prompt)):
        return None
    if not isinstance(prompt, str):
        raise UserError(f"prompt {prompt!r}: a {type(prompt).__name__}; give text, or None")
    return prompt if prompt.strip() else None


def as_prompts(prompts: Sequence[str | None] | None, images: int) -> list[str | None]:
    """One prompt per image, unchanged. `ValueError` for a single text, and for another number of prompts."""
    if prompts is None:
        return [None] * images
    if isinstance(prompts, str):
        raise ValueError(f"prompts: one text in place of a list; give a list, one prompt per image ({images})")
    if len(prompts) != images:
        raise ValueError(f"{len(prompts)} prompt(s) for {images} image(s); give lists, one prompt per image")
    return list(prompts)


def as_file(image: ImageInput) -> bytes:
    """An image as a file's content, for a server: files and contents unchanged, all others as PNG, without any loss.

    Raises `BadImage` for a file that cannot be read, and for what is no image.
    """
    if isinstance(image, (str, Path)):
        return read_bytes(Path(image))
    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        with PILLOW:  # through an array, which has no profile that would be applied a second time
            picture = Image.fromarray(to_pixels(image, "the image", AS_IT_IS))
    else:
        picture = from_pixels(image)
    content = io.BytesIO()
    picture.save(content, "PNG", compress_level=1)
    return content.getvalue()


def from_pixels(pixels: np.ndarray | Tensor) -> Image.Image:
    """An array, (H, W) or (H, W, C), or a tensor, (C, H, W), as a Pillow image. Raises `BadImage` for all else."""
    if is_tensor(pixels):
        tensor = pixels.detach().cpu()
        pixels = tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
        if pixels.ndim == 3:
            pixels = pixels.transpose(1, 2, 0)  # (C, H, W) -> (H, W, C)
    if not isinstance(pixels, np.ndarray):
        kind = type(pixels).__name__
        raise BadImage(f"the image: a {kind}; give a path, bytes, a Pillow image, an array or a tensor")
    return Image.fromarray(to_bytes(pixels))


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


def name_of(image: ImageInput) -> str:
    """What a table calls an image."""
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "") or "image")
    return str(image) if isinstance(image, (str, Path)) else "image"
