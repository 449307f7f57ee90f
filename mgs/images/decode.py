"""Read image files of any mode as uint8 RGB; a damaged file is an error, never a grey picture.

torch is imported only where a tensor is made, since clients of a server make none.
"""

from __future__ import annotations

import contextlib
import io
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mgs.files import file_sha256
from mgs.images.colour import to_srgb
from mgs.images.fit import MAX_PIXELS, Fit, resize
from mgs.images.jpeg import check_jpeg
from mgs.images.plugins import needed_plugin
from mgs.safe_text import one_line, printable

if TYPE_CHECKING:
    from torch import Tensor

MAX_BYTES = 1 << 30
FORMATS = ["AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP"]
GREY16_MAX = 65535
DEFAULT_FIT = Fit()
URL = re.compile(r"(?:^|/)(?:https?|ftp|s3|gs|hf):/", re.IGNORECASE)


class BadImage(Exception):
    """A file that cannot be read as a whole picture; the message names the file and the reason, on one line.

    A name's control characters come out as escapes: the message becomes a status, which terminals show.
    """

    def __init__(self, text: str) -> None:
        super().__init__(one_line(printable(text)))


def read_image(path: Path, fit: Fit = DEFAULT_FIT) -> Tensor:
    """Decode a file to RGB, uint8, (3, H, W), with the shorter side as `fit` says: by default 512 or more.

    Colours are converted to sRGB where the file has a profile of another colour space. Transparency is composited on
    white, EXIF rotation applied, 16-bit grey scaled to 8 bits, and of an animation the first frame taken. Raises
    `BadImage`.
    """
    return decode_image(read_bytes(path), path, fit)


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises `BadImage`, also for what is no file, such as a pipe, which might never end."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadImage(f"{path}: not a file")
        if status.st_size > MAX_BYTES:
            raise BadImage(f"{path}: {status.st_size / 1e9:.1f} GB, more than any picture that can be read")
        return path.read_bytes()
    except FileNotFoundError:
        reason = "a URL; download it first" if is_url(str(path)) else "no such file"
        raise BadImage(f"{path}: {reason}") from None
    except OSError as error:
        raise BadImage(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # a name with a zero byte
        raise BadImage(f"{str(path)!r}: cannot be read ({error})") from None


def is_url(text: str) -> bool:
    """Whether a text, also one that was turned into a path, is an address such as https://..."""
    return bool(URL.search(text))


def content_ids(paths: Iterable[Path]) -> dict[Path, str]:
    """Path -> a text that is equal for files of equal content, under any names; missing and empty files have none.

    Only files of equal size are read.
    """
    by_size: dict[int, list[Path]] = {}
    for path in dict.fromkeys(paths):
        with contextlib.suppress(OSError):
            by_size.setdefault(path.stat().st_size, []).append(path)
    by_size.pop(0, None)
    ids = {}
    for size, group in by_size.items():
        for path in group:
            with contextlib.suppress(OSError):
                ids[path] = f"{size} {file_sha256(path)}" if len(group) > 1 else str(size)
    return ids


def decode_image(data: bytes, path: Path | str, fit: Fit = DEFAULT_FIT) -> Tensor:
    """What `read_image` returns, from a file's bytes; `path` is what errors name."""
    if (plugin := needed_plugin(data)) and not plugin.ready():
        raise BadImage(f"{path}: a {plugin.name} image, which needs a plugin of Pillow's; {plugin.remedy}")
    try:
        check_whole(data)
        with open_image(data) as file:
            return to_tensor(file, path, fit)
    except (MemoryError, BadImage):  # MemoryError says nothing about the file
        raise
    except Exception as error:  # decoders raise what they like on damage: OSError, RuntimeError, SyntaxError, ...
        reason = "no image format that is read here" if isinstance(error, UnidentifiedImageError) else error
        raise BadImage(f"{path}: not a whole image ({reason})") from error


def open_image(data: bytes) -> Image.Image:
    """A file's image, not decoded yet; only of the common formats, and no larger than `MAX_PIXELS`.

    Other formats' decoders start other programs (PostScript), decode at once, however large the image (ICO), or are
    old, rare and little tested.
    """
    plugin = needed_plugin(data)
    picture = Image.open(io.BytesIO(data), formats=[plugin.kind] if plugin and plugin.ready() else FORMATS)
    if picture.width * picture.height > MAX_PIXELS:
        raise ValueError(f"{picture.width}x{picture.height} pixels, more than {MAX_PIXELS:,}")
    return picture


def to_tensor(picture: Image.Image, name: Path | str, fit: Fit = DEFAULT_FIT) -> Tensor:
    """What `read_image` returns, from a Pillow image; `name` is what errors call it. Raises `BadImage`."""
    import torch

    return torch.from_numpy(to_pixels(picture, name, fit)).permute(2, 0, 1).contiguous()  # (H, W, 3) -> (3, H, W)


def to_pixels(picture: Image.Image, name: Path | str, fit: Fit = DEFAULT_FIT) -> np.ndarray:
    """What `to_tensor` returns, as an array, (H, W, 3)."""
    try:
        picture.load()
        return np.array(resize(to_rgb(upright(picture)), fit))
    except MemoryError:
        raise
    except Exception as error:  # decoding happens here, so what decoders raise comes out here
        raise BadImage(f"{name}: not a whole image ({error})") from error


def check_whole(data: bytes) -> None:
    """Raise `ValueError` for damage that decoding ignores, such as the zeros at the end of a broken download.

    PNG has checksums, which Pillow compares only when asked. JPEG has none.
    """
    with open_image(data) as file:
        kind = file.format
        file.verify()
    if kind in ("JPEG", "MPO"):
        check_jpeg(data)


def upright(picture: Image.Image) -> Image.Image:
    """The picture turned as EXIF says; unchanged if EXIF is unreadable, since that is no damage to the pixels."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # the parser has no common base class for its errors
        return picture


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB, sRGB; transparent parts show white. `ValueError` for pixels of unknown range."""
    profile = picture.info.get("icc_profile")
    if picture.mode == "F":
        raise ValueError("floating-point pixels have no known range; save as 8 or 16 bits")
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip at 255
        levels = np.asarray(picture).astype(np.int64)  # (H, W)
        if levels.min() < 0 or levels.max() > GREY16_MAX:
            raise ValueError("32-bit pixels have no known range; save as 8 or 16 bits")
        levels[levels == picture.info.get("transparency", -1)] = GREY16_MAX
        picture = Image.fromarray((levels >> 8).astype(np.uint8))
    picture = to_srgb(picture, profile)
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture.convert("RGB")
