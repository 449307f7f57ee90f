"""How fast a score falls where the places that a map marks are greyed: deletion curves, for `benchmarks.localise`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from mgs import Scorer
from mgs.images.inputs import load_image
from mgs.scoring.draw_explanation import heatmap
from mgs.scoring.explanation import Explanation

CELL = 32  # pixels a side of what is greyed at once
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)  # of the picture
AT_RANDOM = "at random"


@dataclass(frozen=True)
class Asked:
    """A picture, uint8 (3, H, W), with its prompt."""

    picture: Tensor
    prompt: str
    style: str


def real_images(folder: Path, count: int, seed: int) -> list[Asked]:
    """That many images of AGIQA-3K as it is downloaded: data.csv beside the folder images."""
    table = pd.read_csv(folder / "data.csv", keep_default_na=False).sample(count, random_state=seed)
    pairs = zip(table["name"], table["prompt"], strict=True)
    return [Asked(load_image(folder / "images" / name)[0], prompt, "hybrid") for name, prompt in pairs]


def print_curves(scorer: Scorer, pictures: Iterable[Asked], seed: int) -> None:
    """Print the mean fall of each score by what was greyed, and how much larger it is than after random cells.

    Differences are paired by picture; their 95 % intervals are Student's.
    """
    falls: dict[tuple[str, str], list[NDArray[np.floating]]] = {}
    for number, asked in enumerate(tqdm(list(pictures), desc="greying")):
        for key, curves in curves_of(scorer, asked, np.random.default_rng((seed, number))).items():
            falls.setdefault(key, []).append(np.mean(curves, 0))
    shares = "".join(f"{share:>8.0%}" for share in SHARES)
    print(f"{'fall of':<16}{'greyed first':<22}{shares}{'mean':>8}{'more than at random':>24}")
    for (score, order), fell in sorted(falls.items()):
        numbers = "".join(f"{value:8.3f}" for value in (*np.mean(fell, 0), np.mean(fell)))
        more = np.mean(fell, 1) - np.mean(falls[score, AT_RANDOM], 1)  # (pictures,)
        reach = stats.t.ppf(0.975, len(more) - 1) * stats.sem(more)
        told = "" if order == AT_RANDOM else f"{more.mean():+.3f} ± {reach:.3f}"
        print(f"{score:<16}{order:<22}{numbers}{told:>24} of {len(more)}")


def curves_of(scorer: Scorer, asked: Asked, rng: np.random.Generator) -> dict[tuple[str, str], list[list[float]]]:
    """By score and order of greying, what each share of the picture takes off the score; a curve a fragment."""
    before = scorer.explain(asked.picture, asked.prompt, style=asked.style)
    maps = before.maps
    if maps is None:
        raise SystemExit(f"{scorer.name}: its image tower shows no tokens, so there are no maps to measure")

    def fall(marks: np.ndarray, read: str, fragment: int = 0) -> list[float]:
        found = [scorer.explain(grey(asked.picture, marks, share), asked.prompt, style=asked.style) for share in SHARES]
        return [value_of(before, read, fragment) - value_of(one, read, fragment) for one in found]

    shape = (asked.picture.shape[1], asked.picture.shape[2])
    at_random = rng.random((shape[0] // CELL, shape[1] // CELL))
    curves: dict[tuple[str, str], list[list[float]]] = {}
    for i, fragment in enumerate(before.fragments):
        squares = torch.from_numpy(heatmap(fragment.patches, before.boxes, shape)).float()
        for order, marks in (("map", cells(maps.fragments[i].merge(), shape)), ("nine squares", cells(squares, shape))):
            curves.setdefault(("fragment", order), []).append(fall(marks, "fragment", i))
        curves.setdefault(("fragment", AT_RANDOM), []).append(fall(at_random, "fragment", i))
    levels = (
        ("quality", maps.quality.merge(), before.patch_quality),
        ("authenticity", maps.authenticity.merge(), before.patch_authenticity),
    )
    for name, found, patches in levels:
        squares = torch.from_numpy(heatmap(patches, before.boxes, shape)).float()
        orders = {
            "map": cells(found, shape),
            "map, lowest first": -cells(found, shape),
            "nine squares": cells(squares, shape),
        }
        for order, marks in {**orders, AT_RANDOM: at_random}.items():
            curves[name, order] = [fall(marks, name)]
    return curves


def value_of(explanation: Explanation, read: str, fragment: int) -> float:
    """A fragment's score, or a level."""
    return explanation.fragments[fragment].score if read == "fragment" else float(getattr(explanation, read))


def cells(found: Tensor, shape: tuple[int, int]) -> np.ndarray:
    """A map's mean over each cell of a picture, (H / 32, W / 32); what no patch shows is least."""
    rows, columns = (side // CELL for side in shape)
    least = found[~found.isnan()].min().item()
    return F.adaptive_avg_pool2d(found.nan_to_num(least)[None], (rows, columns))[0].numpy()


def grey(picture: Tensor, marks: np.ndarray, share: float) -> Tensor:
    """The picture with the most marked cells in its mean colour."""
    greyed, mean = picture.clone(), picture.float().mean((1, 2)).round().to(picture.dtype)[:, None, None]
    order = np.argsort(-marks.ravel(), kind="stable")
    for cell in order[: round(share * len(order))].tolist():
        row, column = divmod(cell, marks.shape[1])
        greyed[:, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = mean
    return greyed
