"""Embedded colour profiles, against closed forms; profiles are built here, tag by tag (ICC.1:2001)."""

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from mgs.images.decode import read_image, to_tensor
from mgs.scoring.onnx.scorer import read_pixels

# the primaries in CIE XYZ, adapted to D50: columns red, green, blue
ADOBE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
GAMMA = 563 / 256  # of Adobe RGB
LEVELS = np.arange(256) / 255
TO_LINEAR = np.where(LEVELS <= 0.04045, LEVELS / 12.92, ((LEVELS + 0.055) / 1.055) ** 2.4)  # of sRGB


def fixed(*numbers):
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))


def profile(space, tags):
    """An ICC profile, version 2, of an input device."""
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78), **tags}
    tags |= {b"cprt": b"text\0\0\0\0none\0", b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1, 0.8249)}
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += name + struct.pack(">II", at + len(body), len(content))
        body += padded
    connection = b"Lab " if b"A2B0" in tags else b"XYZ "
    header = struct.pack(">I4sI4s4s4s", at + len(body), bytes(4), 0x02100000, b"scnr", space, connection)
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + fixed(0.9642, 1, 0.8249)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def curve(values=None, gamma=None):
    numbers = [round(gamma * 256)] if gamma else [round(value * 65535) for value in values]
    return b"curv\0\0\0\0" + struct.pack(f">I{len(numbers)}H", len(numbers), *numbers)


def rgb_profile(primaries, tone):
    tags = {}
    for letter, column in zip((b"r", b"g", b"b"), primaries.T, strict=True):
        tags |= {letter + b"XYZ": b"XYZ \0\0\0\0" + fixed(*column), letter + b"TRC": tone}
    return profile(b"RGB ", tags)


def cmyk_profile():
    """Black ink is black, any other ink alone a grey of lightness 50, and paper white."""
    corners = [(0 if n & 1 else 100 if not n else 50, 0, 0) for n in range(16)]  # C slowest, K fastest
    lab = [level for L, a, b in corners for level in (round(L * 2.55), a + 128, b + 128)]
    identity = fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    ramp = bytes(range(256))
    return profile(b"CMYK", {b"A2B0": b"mft1\0\0\0\0\4\3\2\0" + identity + ramp * 4 + bytes(lab) + ramp * 3})


ADOBE_RGB = rgb_profile(ADOBE, curve(gamma=GAMMA))
SRGBS = {
    "Pillow's": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    "a table's": rgb_profile(SRGB, curve(TO_LINEAR)),
    "rounded": rgb_profile(SRGB.round(3), curve(TO_LINEAR[::3])),
}


def encode(linear):
    """Linear sRGB as levels of 0-255."""
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def adobe_to_srgb(values):
    return encode((values / 255) ** GAMMA @ (np.linalg.inv(SRGB) @ ADOBE).T)


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)


def decoded(path):
    """An image by both decoders, which agree to the bit."""
    pixels = read_image(path).permute(1, 2, 0).numpy()
    assert np.array_equal((read_pixels(path) * 255).round().astype(np.uint8), pixels)
    return pixels


@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
def test_adobe_rgb_is_converted_to_srgb(tmp_path, values, kind):
    options = {"lossless": True} if kind == "webp" else {}
    Image.fromarray(values).save(tmp_path / f"a.{kind}", icc_profile=ADOBE_RGB, **options)
    found = decoded(tmp_path / f"a.{kind}")
    assert np.abs(found - adobe_to_srgb(values)).max() < 2
    with Image.open(tmp_path / f"a.{kind}") as picture:  # as a caller may hand it over
        assert np.array_equal(to_tensor(picture, "a").permute(1, 2, 0), found)


@pytest.mark.parametrize("name", SRGBS)
def test_what_is_tagged_srgb_keeps_its_bits_whatever_the_profile_is_called(tmp_path, values, name):
    for mode in ("RGB", "L"):
        picture = Image.fromarray(values).convert(mode)
        picture.save(tmp_path / "a.png", icc_profile=SRGBS[name])
        assert np.array_equal(decoded(tmp_path / "a.png"), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize(
    "data", [b"", b"junk", ADOBE_RGB[:200], ADOBE_RGB[:-40], cmyk_profile(), bytes(128), b"\0" * (1 << 24) + ADOBE_RGB]
)
def test_a_profile_that_is_broken_or_of_another_kind_of_picture_leaves_the_pixels(values, data):
    picture = Image.fromarray(values)
    picture.info["icc_profile"] = data
    assert np.array_equal(to_tensor(picture, "a").permute(1, 2, 0), values)


def test_transparency_stays_and_is_composited_in_srgb(tmp_path, values):
    alpha = np.full((512, 512, 1), 51, np.uint8)
    Image.fromarray(np.concatenate([values, alpha], -1)).save(tmp_path / "a.png", icc_profile=ADOBE_RGB)
    assert np.abs(decoded(tmp_path / "a.png") - (0.2 * adobe_to_srgb(values) + 0.8 * 255)).max() < 2


def test_a_palette_is_converted(tmp_path):
    Image.new("RGB", (600, 600), (40, 200, 90)).convert("P").save(tmp_path / "a.png", icc_profile=ADOBE_RGB)
    with Image.open(tmp_path / "a.png") as picture:
        stored = np.asarray(picture.convert("RGB"))
    assert np.abs(decoded(tmp_path / "a.png") - adobe_to_srgb(stored)).max() < 2


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_of_another_gamma_is_converted(tmp_path, bits):
    grey = np.tile(np.arange(512, dtype=np.uint16) // 2, (512, 1))
    picture = Image.fromarray(grey.astype(np.uint8) if bits == 8 else grey * 256)
    picture.save(tmp_path / "a.png", icc_profile=profile(b"GRAY", {b"kTRC": curve(gamma=1.8)}))
    expected = encode((grey / 255.0) ** 1.8)[..., None]
    assert np.abs(decoded(tmp_path / "a.png") - expected).max() < 2


def test_cmyk_is_converted_by_its_own_profile_and_without_one_as_before(tmp_path):
    inks = {(0, 0, 0, 0): 255, (255, 0, 0, 0): 119, (0, 0, 0, 255): 0}  # lightness 50 is level 119
    for ink, level in inks.items():
        picture = Image.new("CMYK", (600, 600), ink)
        picture.save(tmp_path / "a.tiff", icc_profile=cmyk_profile())
        assert np.abs(decoded(tmp_path / "a.tiff").astype(int) - level).max() <= 1
        picture.save(tmp_path / "a.tiff")
        assert np.array_equal(decoded(tmp_path / "a.tiff"), np.asarray(picture.convert("RGB")))
