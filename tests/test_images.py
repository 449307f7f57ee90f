"""Decoding: each kind of picture against values worked out by hand, and damage, which must never become a picture."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features
from PIL.PngImagePlugin import PngImageFile

from mgs.images.cuts import Cuts, cut_views
from mgs.images.decode import BadImage, read_image

SIDE = 600  # above 512, so that nothing is enlarged


def pixel(path: Path, x: int = 5, y: int = 5) -> list[int]:
    return read_image(path)[:, y, x].tolist()


def solid(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (SIDE, SIDE), colour)  # type: ignore[arg-type]


def noise(height: int = 520, width: int = 640) -> Image.Image:
    """Smooth enough for a JPEG to stay near it, rough enough for its bytes to be many."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def test_picture_is_uint8_rgb_with_its_pixels_where_they_were(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 256, (520, 640, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == torch.uint8
    assert image.shape == (3, 520, 640)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), values)


# how EXIF orientation 1-8 moves the top left corner of the stored picture, as (right, bottom) of the upright one
UPRIGHT = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int, kind: str) -> None:
    picture = Image.new("RGB", (640, 560), "black")
    picture.paste((255, 0, 0), (0, 0, 80, 80))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / f"a.{kind}", exif=exif)
    image = read_image(tmp_path / f"a.{kind}")
    assert image.shape == ((3, 640, 560) if orientation >= 5 else (3, 560, 640))
    right, bottom = UPRIGHT[orientation]
    for x, y in ((0, 0), (1, 0), (0, 1), (1, 1)):
        red = int(image[0, -40 if y else 40, -40 if x else 40])
        assert (red > 200) == ((x, y) == (right, bottom))


def test_unreadable_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    solid("RGB", (10, 20, 30)).save(tmp_path / "a.png", exif=b"Exif\0\0garbage")
    assert pixel(tmp_path / "a.png") == [10, 20, 30]


def test_transparency_shows_white(tmp_path: Path) -> None:
    half = solid("RGBA", (200, 0, 100, 128))
    half.save(tmp_path / "rgba.png")
    expected = [round((c * 128 + 255 * 127) / 255) for c in (200, 0, 100)]
    assert pixel(tmp_path / "rgba.png") == pytest.approx(expected, abs=1)

    solid("RGBA", (200, 0, 100, 0)).save(tmp_path / "clear.webp", lossless=True)
    assert pixel(tmp_path / "clear.webp") == [255, 255, 255]

    solid("LA", (0, 51)).save(tmp_path / "grey.png")
    assert pixel(tmp_path / "grey.png") == pytest.approx([204] * 3, abs=1)


def test_palette_transparency_shows_white_and_other_colours_stay(tmp_path: Path) -> None:
    picture = solid("P", 0)
    picture.putpalette([255, 0, 0, 0, 0, 255, 0, 128, 0])
    picture.paste(1, (100, 0, 200, SIDE))
    picture.paste(2, (200, 0, 300, SIDE))
    picture.save(tmp_path / "a.png", transparency=bytes([255, 0, 51]))
    assert pixel(tmp_path / "a.png", x=50) == [255, 0, 0]
    assert pixel(tmp_path / "a.png", x=150) == [255, 255, 255]
    assert pixel(tmp_path / "a.png", x=250) == pytest.approx([204, 230, 204], abs=1)
    picture.save(tmp_path / "a.gif", transparency=1)
    assert pixel(tmp_path / "a.gif", x=50) == [255, 0, 0]
    assert pixel(tmp_path / "a.gif", x=150) == [255, 255, 255]


@pytest.mark.parametrize(("mode", "colour"), [("L", 7), ("RGB", (1, 2, 3)), ("1", 0)])
def test_colour_declared_transparent_shows_white(tmp_path: Path, mode: str, colour: object) -> None:
    picture = solid(mode, colour)
    picture.putpixel((5, 5), 255 if mode != "RGB" else (255, 0, 0))
    picture.putpixel((7, 5), 1 if mode == "1" else colour)  # type: ignore[arg-type]
    picture.save(tmp_path / "a.png", transparency=colour)
    assert pixel(tmp_path / "a.png", x=50) == [255, 255, 255]
    assert pixel(tmp_path / "a.png", x=5) == ([255, 0, 0] if mode == "RGB" else [255, 255, 255])


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_16_bit_grey_is_scaled_to_8_bits(tmp_path: Path, kind: str) -> None:
    levels = np.zeros((SIDE, SIDE), np.uint16)
    levels[:, 100:] = 0x80FF
    levels[:, 200:] = 0xFFFF
    Image.fromarray(levels).save(tmp_path / f"a.{kind}")
    assert [pixel(tmp_path / f"a.{kind}", x=x) for x in (50, 150, 250)] == [[0] * 3, [128] * 3, [255] * 3]


def test_16_bit_grey_declared_transparent_shows_white(tmp_path: Path) -> None:
    levels = np.full((SIDE, SIDE), 1000, np.uint16)
    levels[:, 100:] = 0x4000
    Image.fromarray(levels).save(tmp_path / "a.png", transparency=1000)
    assert [pixel(tmp_path / "a.png", x=x) for x in (50, 150)] == [[255] * 3, [64] * 3]


@pytest.mark.parametrize("kind", ["jpg", "tif"])
def test_cmyk_becomes_rgb(tmp_path: Path, kind: str) -> None:
    ink = solid("CMYK", (255, 0, 0, 0))  # cyan
    ink.paste((0, 0, 0, 255), (300, 0, SIDE, SIDE))  # black
    ink.paste((0, 0, 0, 0), (500, 0, SIDE, SIDE))  # bare paper
    ink.save(tmp_path / f"a.{kind}")
    for x, colour in ((150, (0, 255, 255)), (400, (0, 0, 0)), (550, (255, 255, 255))):
        assert pixel(tmp_path / f"a.{kind}", x=x) == pytest.approx(colour, abs=2)


def test_first_frame_stands_for_an_animation(tmp_path: Path) -> None:
    frames = [solid("RGB", colour) for colour in ((255, 0, 0), (0, 0, 255))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert pixel(tmp_path / "a.gif") == [255, 0, 0]


@pytest.mark.parametrize(
    ("width", "height", "shape"),
    [
        (256, 256, (512, 512)),
        (100, 250, (1280, 512)),
        (511, 900, (902, 512)),
        (512, 512, (512, 512)),
        (513, 700, (700, 513)),
    ],
)
def test_shorter_side_is_enlarged_to_512_and_never_shrunk(
    tmp_path: Path, width: int, height: int, shape: tuple[int, int]
) -> None:
    Image.new("RGB", (width, height)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (3, *shape)


def test_enlarging_is_bilinear(tmp_path: Path) -> None:
    values = np.random.default_rng(2).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    pixels = torch.from_numpy(values).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(pixels, (512, 768), mode="bilinear", align_corners=False, antialias=True)
    assert (read_image(tmp_path / "a.png").double() - expected[0]).abs().max() <= 1.01  # Pillow rounds after each axis


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 95, "subsampling": 0}])
def test_jpeg_cut_anywhere_is_bad_and_never_a_grey_picture(tmp_path: Path, options: dict[str, object]) -> None:
    data = encoded(noise(), "JPEG", **options)
    for end in [0, 1, 2, 100, *range(1000, len(data), len(data) // 12), len(data) - 40, len(data) - 2, len(data) - 1]:
        (tmp_path / "a.jpg").write_bytes(data[:end])
        with pytest.raises(BadImage, match=r"a\.jpg: not a whole image \("):
            read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("kind", "options"),
    [("jpeg", {"quality": 95, "subsampling": 0}), ("png", {})],  # so that Pillow itself takes the zeros for pixels
)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9, 0.99])
def test_tail_of_zeros_is_bad(tmp_path: Path, kind: str, options: dict[str, int], kept: float) -> None:
    thumbnail = Image.Exif()
    thumbnail[0x010E] = "\xff\xd9".encode("latin-1")  # an end marker before the pixels must not pass for the end
    data = encoded(noise(), kind, exif=thumbnail, **options)
    assert 0 < data.find(b"\xff\xd9") < 200
    length = int(len(data) * kept)
    (tmp_path / "a").write_bytes(data[:length] + bytes(len(data) - length))
    with pytest.raises(BadImage, match="not a whole image"):
        read_image(tmp_path / "a")


def test_whole_jpeg_with_bytes_after_its_end_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(noise(), "JPEG") + b"a phone's \xff\xda extra data")
    assert read_image(tmp_path / "a.jpg").shape == (3, 520, 640)


def test_jpeg_of_many_scans_is_bad(tmp_path: Path) -> None:
    """Each scan costs as much time as a picture, whatever its size in the file."""
    data = encoded(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    end = data.rindex(b"\xff\xd9")
    last = data[data.rindex(b"\xff\xda") : end]
    scans = data.count(b"\xff\xda")
    for times, bad in ((50 - scans, False), (51 - scans, True)):
        (tmp_path / "a.jpg").write_bytes(data[:end] + last * times + data[end:])
        with Image.open(tmp_path / "a.jpg") as picture:
            picture.load()  # libjpeg takes them all
        if bad:
            with pytest.raises(BadImage, match="in more than 50 scans"):
                read_image(tmp_path / "a.jpg")
        else:
            assert read_image(tmp_path / "a.jpg").shape == (3, 512, 512)


def test_jpegs_with_padded_markers_and_restarts_are_read(tmp_path: Path) -> None:
    data = encoded(noise(), "JPEG", restart_marker_blocks=1)
    assert data.count(b"\xff\xd0") > 3
    (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xff" + data[2:])
    assert read_image(tmp_path / "a.jpg").shape[0] == 3


def test_changed_bit_in_a_png_is_bad(tmp_path: Path) -> None:
    data = bytearray(encoded(noise(), "PNG"))
    data[len(data) // 2] ^= 1
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(BadImage, match="not a whole image"):
        read_image(tmp_path / "a.png")


def test_pixels_of_unknown_range_are_bad_and_never_black(tmp_path: Path) -> None:
    Image.fromarray(np.full((SIDE, SIDE), 0.5, np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((SIDE, SIDE), 1 << 20, np.int32)).save(tmp_path / "int.tif")
    for name, reason in (("float.tif", "floating-point"), ("int.tif", "32-bit")):
        with pytest.raises(BadImage, match=rf"{name}: not a whole image \({reason} pixels have no known range"):
            read_image(tmp_path / name)


def test_sliver_that_would_fill_the_memory_is_bad(tmp_path: Path) -> None:
    Image.new("RGB", (1, 3000)).save(tmp_path / "a.png")
    with pytest.raises(BadImage, match="1x3000 is too thin to enlarge"):
        read_image(tmp_path / "a.png")


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
JPEG_XL = b"\0\0\0\x0cJXL \r\n\x87\n"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (HEIC, "a HEIC image, .* pip install pillow-heif, or convert"),
        (JPEG_XL, "a JPEG XL image, .* pip install pillow-jxl-plugin"),
        (b"\xff\x0a\x7f", "a JPEG XL image"),
    ],
)
def test_a_format_that_needs_a_plugin_is_named_with_the_remedy(tmp_path, monkeypatch, data, told):
    for module in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, module, None)  # as where it is not installed
    (tmp_path / "a.heic").write_bytes(data + bytes(100))
    with pytest.raises(BadImage, match=told):
        read_image(tmp_path / "a.heic")


def test_a_format_is_read_where_its_plugin_is_installed(tmp_path, monkeypatch):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (520, 530, 3), dtype=np.uint8))
    picture.save(tmp_path / "a.png")
    (tmp_path / "a.heic").write_bytes(HEIC + (tmp_path / "a.png").read_bytes())

    def register():
        def read(stream, name):
            stream.seek(len(HEIC))
            return PngImageFile(io.BytesIO(stream.read()))

        Image.register_open("HEIF", read, lambda start: start.startswith(HEIC[:12]))

    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register))
    assert torch.equal(read_image(tmp_path / "a.heic"), read_image(tmp_path / "a.png"))


def test_avif_needs_no_plugin(tmp_path):
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    Image.new("RGB", (520, 520), "red").save(tmp_path / "a.avif")
    assert read_image(tmp_path / "a.avif").shape == (3, 520, 520)


def test_an_address_is_told_to_be_one():
    with pytest.raises(BadImage, match="a URL; download it first"):
        read_image(Path("https://example.com/a.png"))


def test_a_name_that_would_drive_the_terminal_is_told_in_escapes():
    with pytest.raises(BadImage) as caught:
        read_image(Path("/tmp/\x1b[31mevil\n.png"))
    assert str(caught.value) == r"/tmp/\x1b[31mevil .png: no such file"


def test_views_leave_the_pictures_that_they_are_cut_from_alone():
    picture = torch.rand(3, 520, 560) * 255
    before = picture.clone()
    cut_views(picture, Cuts(), 32, torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    assert torch.equal(picture, before)
