"""How a whole picture is made: watercolor, oil, crayon, cut paper, mosaic. Colours, shapes and counts stay readable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mgs.demo.canvas import SIDE, Canvas
from mgs.demo.scene_parts import Field, cut_field, field, grain, tone

HALF = SIDE // 2
PAPERS = 16  # colours of a cutout
PAPER = np.array((244, 240, 230), dtype=np.float32)


def _half(canvas: Canvas) -> Image.Image:
    """The canvas at half its size."""
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8)).reduce(2)


def _enlarge(picture: Image.Image) -> Canvas:
    """A half-size picture at full size."""
    return np.array(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR), dtype=np.float32)


def _grey(picture: Image.Image, blur: float) -> Field:
    """Lightness, blurred."""
    return np.array(picture.convert("L").filter(ImageFilter.BoxBlur(blur)), dtype=np.float32)


def _paper_margin(rng: np.random.Generator, wide: float, ragged: float) -> Field:
    """1 on the picture and 0 on the sheet's bare margin; the border between them wavers."""
    axis = np.minimum(np.arange(HALF), np.arange(HALF)[::-1]).astype(np.float32)
    inside = np.minimum(axis[:, None], axis[None])
    waver = cut_field(field(2.0), rng, HALF, HALF) + 0.3 * cut_field(field(1.2), rng, HALF, HALF)
    return ((inside - wide - np.float32(ragged) * waver) / 2).clip(0, 1)


def paint_watercolor(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """Pale washes that run a little, darker where they dry at an edge, on rough paper with a bare margin."""
    small = _half(canvas).filter(ImageFilter.MedianFilter(3))
    wash = np.array(small.filter(ImageFilter.BoxBlur(1)), dtype=np.float32)
    flow = [(2.2 * cut_field(field(2.0), rng, HALF, HALF)).round().astype(np.int32) for _ in range(2)]
    rows = (np.arange(HALF)[:, None] + flow[0]).clip(0, HALF - 1)
    columns = (np.arange(HALF)[None] + flow[1]).clip(0, HALF - 1)
    wash = np.take(wash.reshape(-1, 3), rows * HALF + columns, axis=0)
    light = wash @ np.array((0.3, 0.6, 0.1), dtype=np.float32)
    around = np.array(
        Image.fromarray(light)
        .resize((HALF // 4,) * 2, Image.Resampling.BOX)
        .resize((HALF,) * 2, Image.Resampling.BILINEAR)
    )
    rim = np.abs(light - around).clip(0, 40) / 40
    pools = cut_field(field(2.0), rng, HALF, HALF)
    pigment = 0.8 + 0.16 * pools + 0.35 * rim  # how much of the colour lies on the paper
    cover = (pigment * _paper_margin(rng, 15, 3.5)).clip(0, 1.25)
    wet = PAPER + (wash - PAPER) * cover[..., None]
    painted = _enlarge(Image.fromarray(wet.clip(0, 255).astype(np.uint8)))
    grain(painted, cut_field(field(0.6), rng), 0.035)
    return painted


@dataclass(frozen=True)
class _Marks:
    """Marks that cover the half-size picture: where each pixel takes its colour, and how high it stands."""

    source: NDArray[np.int32]  # (HALF, HALF) flat index of the pixel at the mark's centre
    relief: Field  # (HALF, HALF)


@lru_cache(maxsize=2)
def _strokes(length: float, width: float) -> _Marks:
    """Brush strokes that follow a swirling field, laid over one another; the same at every call."""
    rng = np.random.default_rng(3)
    source = np.arange(HALF * HALF, dtype=np.int32).reshape(HALF, HALF)
    relief = np.zeros((HALF, HALF), dtype=np.float32)
    swirl = cut_field(field(2.0), rng, HALF, HALF)
    reach = int(length) + 2
    down, across = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    for _ in range(int(0.9 * HALF * HALF / (length * width))):
        y, x = rng.integers(0, HALF, 2)
        turn = 0.9 * swirl[y, x] + 0.4 * length + rng.normal(0, 0.25)
        along, over = across * np.cos(turn) + down * np.sin(turn), down * np.cos(turn) - across * np.sin(turn)
        over = over + 0.012 * along**2 * rng.choice((-1, 1))
        top, left = max(y - reach, 0), max(x - reach, 0)
        inside = (slice(top - y + reach, HALF - y + reach), slice(left - x + reach, HALF - x + reach))
        hit = ((np.abs(along / length) ** 3 + np.abs(over / width) ** 3) < 1)[inside]
        bristles = 0.7 * np.sin(over * 5.5 / width * 2 + rng.uniform(0, 6)) + 1 - (over / width) ** 2
        rows, columns = hit.shape
        source[top : top + rows, left : left + columns][hit] = y * HALF + x
        relief[top : top + rows, left : left + columns][hit] = bristles[inside][hit]
    return _Marks(source, relief)


def paint_oil(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """Thick strokes of a brush, wide in calm places and fine on details, lit from the upper left."""
    turns = int(rng.integers(4))  # the strokes are always the same, but not the side they are seen from
    small = Image.fromarray(np.rot90(np.array(_half(canvas)), turns))
    pixels = np.array(small.filter(ImageFilter.BoxBlur(1)), dtype=np.float32).reshape(-1, 3)
    wide, fine = _strokes(13, 3.6), _strokes(5, 1.8)
    sharp = _grey(small, 1)
    detail = np.abs(sharp - _grey(small, 6)) > 7
    detail = np.array(Image.fromarray(detail.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(5))) > 0
    source = np.where(detail, fine.source, wide.source)
    relief = np.where(detail, 0.7 * fine.relief, wide.relief)
    painted = np.take(pixels, source, axis=0)
    loads = rng.normal(0, 6, (4096, 1)) + rng.normal(0, 4, (4096, 3))  # no two loads of the brush are alike
    painted += np.take(loads.astype(np.float32), (source * 7 + source // HALF) % 4096, axis=0)
    painted, relief = np.rot90(painted, -turns), np.rot90(relief, -turns)
    slope = relief - np.roll(relief, (1, 1), axis=(0, 1))
    painted = (painted - 128) * 1.12 + 126 + (13 * slope.clip(-1.6, 2))[..., None]
    return _enlarge(Image.fromarray(painted.clip(0, 255).astype(np.uint8)))


@lru_cache(maxsize=2)
def _hatching(number: int) -> Field:
    """Crayon strokes of a hand, slanting; about -1 between the strokes and 1 on them. The same at every call."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0:HALF, 0:HALF].astype(np.float32)
    bend = 2.2 * cut_field(field(2.0), rng, HALF, HALF)
    angle = (0.62, 0.95)[number]
    return np.sin((x * np.sin(angle) + y * np.cos(angle)) * 1.05 + bend).astype(np.float32)


def draw_crayon(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """Slanting strokes of wax that leave paper bare between them, bright colours, and heavy outlines."""
    small = _half(canvas).filter(ImageFilter.MedianFilter(3))
    pixels = np.array(small, dtype=np.float32)
    grey = pixels.mean(-1, keepdims=True)
    vivid = grey + (pixels - grey) * 1.5
    tooth = cut_field(field(0.6), rng, HALF, HALF)
    strokes = np.roll(_hatching(int(rng.integers(2))), int(rng.integers(HALF)), axis=1)
    depth = ((235 - grey[..., 0]) / 200).clip(0.12, 1)  # dark places are rubbed harder
    margin = _paper_margin(rng, 8, 2.5)
    cover = (0.3 + 0.62 * depth + 0.42 * strokes + 0.22 * tooth).clip(0.06, 1) * margin
    soft = _grey(small, 1)
    edge = np.maximum(np.abs(soft - np.roll(soft, 2, axis=0)), np.abs(soft - np.roll(soft, 2, axis=1)))
    outline = ((edge - 14) / 22).clip(0, 1) * (0.75 + 0.25 * tooth).clip(0, 1) * margin
    drawn = PAPER + (vivid * 0.94 - PAPER) * cover[..., None]
    drawn += (0.3 * vivid - drawn) * (0.8 * outline)[..., None]
    return _enlarge(Image.fromarray(drawn.clip(0, 255).astype(np.uint8)))


def cut_paper(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """Sheets of coloured paper, one flat tint each, that cast shadows on the sheets below."""
    small = _half(canvas).reduce(2).filter(ImageFilter.MedianFilter(3))
    # This method keeps small things of a rare colour, which the usual one drowns.
    labels = np.array(small.quantize(PAPERS, method=Image.Quantize.MAXCOVERAGE, kmeans=1))
    counts = np.bincount(labels.ravel(), minlength=PAPERS)
    sums = [np.bincount(labels.ravel(), np.array(part).ravel(), PAPERS) for part in small.split()]
    tints = np.stack(sums, axis=-1) / np.maximum(counts, 1)[:, None]
    # Each sheet is blurred and enlarged by itself; the thickest wins, so that cut edges come out smooth.
    strongest = np.zeros((HALF, HALF), dtype=np.uint16)
    for sheet in range(PAPERS):
        blurred = Image.fromarray((labels == sheet).astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(1))
        share = np.array(blurred.resize((HALF, HALF), Image.Resampling.BILINEAR), dtype=np.uint16)
        np.maximum(strongest, share * PAPERS + sheet, out=strongest)
    sheets = strongest % PAPERS
    # The sheets that cover most lie lowest; the small ones, on top, throw shadows.
    height = np.argsort(np.argsort(-np.bincount(sheets.ravel(), minlength=PAPERS))).astype(np.uint8)
    level = height[sheets]
    above = np.maximum(np.roll(level, (4, 3), axis=(0, 1)), np.roll(level, (2, 2), axis=(0, 1))) > level
    shadow = np.array(
        Image.fromarray(above).convert("L").filter(ImageFilter.BoxBlur(2)), dtype=np.float32
    ) / np.float32(255)
    rim = np.roll(level, (-1, -1), axis=(0, 1)) < level  # the cut edge catches light
    paper = np.take(tints.astype(np.float32), sheets, axis=0)
    grain(paper, -shadow, 0.42)
    tone(paper, np.float32(0.3) * rim, (255, 255, 255))
    cut = _enlarge(Image.fromarray(paper.clip(0, 255).astype(np.uint8)))
    grain(cut, cut_field(field(0.6), rng), 0.03)
    return cut


@lru_cache(maxsize=1)
def _tiles(pitch: float) -> tuple[_Marks, Field]:
    """Uneven little tiles, and how much of each pixel is joint (0-1). The same at every call."""
    rng = np.random.default_rng(5)
    count = int(HALF / pitch) + 3
    centres = (np.array(np.mgrid[0:count, 0:count]) - 0.8) * pitch + rng.uniform(-0.2, 0.2, (2, count, count)) * pitch
    y, x = np.mgrid[0:HALF, 0:HALF]
    row, column = (y / pitch + 0.8).round().astype(int), (x / pitch + 0.8).round().astype(int)
    near = np.full((3, HALF, HALF), np.inf)  # distance to the nearest and second centre, and the nearest's index
    for r in (-1, 0, 1):
        for c in (-1, 0, 1):
            at = ((row + r).clip(0, count - 1), (column + c).clip(0, count - 1))
            dy, dx = np.abs(y - centres[0][at]), np.abs(x - centres[1][at])
            gap = np.maximum(dy, dx) + 0.35 * np.minimum(dy, dx)
            closer = gap < near[0]
            near[1] = np.where(closer, near[0], np.minimum(near[1], gap))
            near[2] = np.where(closer, at[0] * count + at[1], near[2])
            near[0] = np.where(closer, gap, near[0])
    tile = near[2].astype(int)
    middle = centres.round().astype(int).clip(0, HALF - 1)
    source = (middle[0] * HALF + middle[1]).ravel()[tile]
    joint = (1.7 - 0.75 * (near[1] - near[0])).clip(0, 1)
    bevel = ((centres[0].ravel()[tile] - y) + (centres[1].ravel()[tile] - x)) / pitch
    return _Marks(source.astype(np.int32), bevel.astype(np.float32)), joint.astype(np.float32)


def lay_mosaic(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """Little tiles of one colour each, with pale joints."""
    marks, joint = _tiles(8.5)
    pixels = np.array(_half(canvas).filter(ImageFilter.BoxBlur(2)), dtype=np.float32).reshape(-1, 3)
    tile = marks.source
    glaze = rng.normal(0, 11, 4096).astype(np.float32)
    laid = (
        np.take(pixels, tile, axis=0) * 1.08
        - 8
        + (glaze[(tile * 7 + tile // HALF) % 4096] + 16 * marks.relief)[..., None]
    )
    laid += (np.array((176, 170, 158), dtype=np.float32) - laid) * (0.85 * joint)[..., None]
    return _enlarge(Image.fromarray(laid.clip(0, 255).astype(np.uint8)))


@dataclass(frozen=True)
class Medium:
    """A way to make a picture: its words among keywords, those in a sentence, and what it does to a canvas (0-255)."""

    words: str
    phrase: str
    apply: Callable[[Canvas, np.random.Generator], Canvas]


MEDIA = {
    "watercolor": Medium("watercolor", "painted in watercolor", paint_watercolor),
    "oil painting": Medium("oil painting", "as an oil painting", paint_oil),
    "crayon drawing": Medium("crayon drawing", "drawn in crayon", draw_crayon),
    "paper cutout": Medium("paper cutout", "cut out of paper", cut_paper),
    "mosaic": Medium("mosaic", "as a mosaic", lay_mosaic),
}


def apply_medium(canvas: Canvas, name: str | None, rng: np.random.Generator) -> Canvas:
    """The canvas made in a medium of `MEDIA`, as a new canvas (0-255); `None` leaves it as it is."""
    return MEDIA[name].apply(canvas, rng).clip(0, 255) if name else canvas
