"""Views of drawn pictures that the demo CLIP learns from, and what is in each: as a whole and patch by patch."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from mgs.demo.canvas import SIDE
from mgs.demo.drawing import Picture, draw
from mgs.demo.faults import Damage
from mgs.demo.generators import GENERATORS, as_asked, sample_damage
from mgs.demo.prompts import COLOURS, sample_content
from mgs.demo.things.table import THINGS
from mgs.images.cuts import Cuts, window_corners
from scripts.demo_captions import LOOKS, PART, SEEN, WHOLE, View, Window, describe, visible

SIZE, PATCH = 96, 12  # pixels
GRID = SIZE // PATCH
WINDOWS, CROPS = 2, 2  # views of a picture besides the whole: of MGS's nine windows, and about a thing
KEPT = 1 + WINDOWS + CROPS
TIGHT, LOOSE = 1.1, 2.2  # sides of crops, in the thing's
CHUNK = 25  # pictures that a process draws at once
FAULTLESS = 0.3  # share of pictures without any damage
EMPTY, UNCLEAR = 0, -100  # what a patch shows: no thing; too little of one to ask about. 1 + its place in THINGS else
MANY = 6  # things in a view; more are counted as so many
COVERED = 0.4  # share of a patch that a thing must cover to be asked about


@dataclass(frozen=True)
class Views:
    """N views of pictures and what they show."""

    pixels: Tensor  # uint8, (N, 96, 96, 3)
    things: Tensor  # of each patch, (N, 64)
    colours: Tensor  # places in COLOURS, UNCLEAR where there is no thing, (N, 64)
    numbers: Tensor  # things that are there, 0 to MANY, (N,)
    levels: Tensor  # of the picture's damages, 0-1, (N, 8)
    notes: list[View]


def draw_all(pictures: int, seed: int, workers: int) -> Views:
    """Draw over several processes."""
    chunks = [[(seed, i) for i in range(start, min(start + CHUNK, pictures))] for start in range(0, pictures, CHUNK)]
    pixels = np.empty((pictures, KEPT, SIZE, SIZE, 3), dtype=np.uint8)
    labels = np.empty((pictures, KEPT, 2, GRID * GRID), dtype=np.int64)
    numbers = np.empty((pictures, KEPT), dtype=np.int64)
    levels = np.empty((pictures, KEPT, len(LOOKS)), dtype=np.float32)
    notes: list[View] = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        drawing = tqdm(pool.map(draw_views, chunks), total=len(chunks), desc="drawing", unit=f"{CHUNK} pictures")
        for views, shown, counts, damages, described in drawing:
            rows = slice(len(notes) // KEPT, len(notes) // KEPT + len(views))
            pixels[rows], labels[rows], numbers[rows], levels[rows] = views, shown, counts, damages[:, None]
            notes += described
    images, shown, number, level = (torch.from_numpy(it).flatten(0, 1) for it in (pixels, labels, numbers, levels))
    return Views(images, shown[:, 0], shown[:, 1], number, level, notes)


def draw_views(
    seeds: Iterable[tuple[int, int]],
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], list[View]]:
    """One picture per seed: views, (N, 5, 96, 96, 3), their patches' things and colours, (N, 5, 2, 64), numbers,
    (N, 5), damages, (N, 8), and notes."""
    torch.set_num_threads(1)  # one of several processes
    pixels, labels, numbers, levels, notes = [], [], [], [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        content = sample_content(rng, PART)
        generator = GENERATORS[str(rng.choice(list(GENERATORS)))]
        damage = Damage() if rng.random() < FAULTLESS else sample_damage(generator, rng)
        picture = draw(as_asked(content), damage, rng)
        chw = torch.from_numpy(picture.pixels).permute(2, 0, 1)
        windows = choose_windows(picture, rng)
        pixels.append(np.stack([shrink(chw[:, top : top + side, left : left + side]) for top, left, side in windows]))
        labels.append(np.stack([label_patches(picture, window) for window in windows]))
        seen = [[visible(figure, window) >= SEEN for figure in picture.figures] for window in windows]
        numbers.append([min(MANY, sum(few)) for few in seen])
        levels.append([getattr(damage, name) for name in LOOKS])
        notes += [describe(content, damage, picture, window) for window in windows]
    return np.stack(pixels), np.stack(labels), np.array(numbers), np.array(levels, dtype=np.float32), notes


def choose_windows(picture: Picture, rng: np.random.Generator) -> list[Window]:
    """The views of a picture that are learned from."""
    corners = rng.permutation(window_corners((3, SIDE, SIDE), Cuts()))[:WINDOWS].tolist()
    windows = [WHOLE, *((top, left, Cuts().side) for top, left in corners)]
    for _ in range(CROPS):
        figure = picture.figures[int(rng.integers(len(picture.figures)))]
        side = min(SIDE, int(figure.side * rng.uniform(TIGHT, LOOSE)))
        middle = np.array([figure.x, figure.y]) + rng.uniform(-0.25, 0.25, 2) * figure.side
        x, y = (middle - side / 2).clip(0, SIDE - side)
        windows.append((int(y), int(x), side))
    return windows


def shrink(window: Tensor) -> NDArray[np.uint8]:
    """A window, uint8 (3, S, S), as a view, (96, 96, 3): not antialiased, as MGS's are."""
    small = F.interpolate(window[None].float(), (SIZE, SIZE), mode="bilinear", align_corners=False)[0]
    return small.round().clip(0, 255).byte().permute(1, 2, 0).numpy()


def label_patches(picture: Picture, window: Window) -> NDArray[np.int64]:
    """The thing and the colour that each patch shows, (2, 64): those of the figure that covers most of it."""
    top, left, side = window
    places = (np.arange(SIZE) + 0.5) * side / SIZE
    owner = picture.owner[np.ix_((top + places).astype(int), (left + places).astype(int))]
    patches = owner.reshape(GRID, PATCH, GRID, PATCH).swapaxes(1, 2).reshape(GRID * GRID, PATCH * PATCH)
    shares = np.stack([(patches == number).mean(1) for number in range(len(picture.figures))])  # (figures, 64)
    most, first = shares.max(0), shares.argmax(0)
    things = np.array([list(THINGS).index(figure.thing) for figure in picture.figures])[first] + 1
    colours = np.array([list(COLOURS).index(figure.colour) for figure in picture.figures])[first]
    clear = most >= COVERED
    return np.stack(
        [np.where(clear, things, np.where(most > 0, UNCLEAR, EMPTY)), np.where(clear, colours, UNCLEAR)]
    ).astype(np.int64)
