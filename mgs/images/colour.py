"""Pictures in sRGB, which CLIP was trained on: colours of other spaces are converted by the file's own ICC profile."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # Pillow's name of a profile's colour space
MAY_HAVE = {  # modes of pictures that a profile of that space may describe; a grey picture may have one of RGB, too
    "RGB": ("RGB", "RGBA", "RGBX", "P", "PA", "L", "LA", "1"),
    "L": ("L", "LA", "1"),
    "CMYK": ("CMYK",),
}
MOST_BYTES = 1 << 24  # of a profile; the largest in use have a few megabytes
SAME = 3  # levels of 255 by which the many profiles called sRGB differ from one another
PROBE = np.stack(np.meshgrid(*[np.linspace(0, 255, 16)] * 3), -1).reshape(64, 64, 3).astype(np.uint8)  # all of RGB
INTENT, FLAGS = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION


def to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """A Pillow image converted to sRGB by its profile, in mode RGB or RGBA.

    The image comes back unchanged if it has no profile, if its profile is one of sRGB, is damaged, or is for another
    kind of picture.
    """
    if not profile or len(profile) > MOST_BYTES:
        return picture
    try:
        mode, is_srgb = describe_profile(profile)
        if is_srgb or picture.mode not in MAY_HAVE[mode]:
            return picture
        layer = picture.convert("RGBA") if picture.has_transparency_data else picture
        converted = convert(layer.convert(mode), profile)
        if layer.mode == "RGBA":
            converted.putalpha(layer.getchannel("A"))
        return converted
    except Exception:  # the library documents no error classes, and no file is refused because of its profile
        return picture


@lru_cache(maxsize=8)  # a profile may have megabytes
def describe_profile(profile: bytes) -> tuple[str, bool]:
    """The mode of pictures that a profile describes, and whether it is sRGB, by its effect, since names differ."""
    mode = MODES[ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()]
    if mode == "CMYK":
        return mode, False
    probe = Image.fromarray(PROBE).convert(mode)
    moved = np.asarray(convert(probe, profile), int) - np.asarray(probe.convert("RGB"), int)
    return mode, bool(np.abs(moved).max() <= SAME)


def convert(picture: Image.Image, profile: bytes) -> Image.Image:
    """A picture of the profile's mode in sRGB, mode RGB."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(source, target, picture.mode, "RGB", INTENT, FLAGS)
    return ImageCms.applyTransform(picture, transform)  # type: ignore[return-value]  # None only in place
