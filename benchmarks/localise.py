"""Do explanations point at what is there? `python -m benchmarks.localise [--checkpoint PATH] [--real FOLDER]`

It uses faultless drawings of two or three groups of things, from the part of the drawn world that is kept for
testing. For each group, the fragment that names it ranks the nine patches. The true patch is the one whose centre is
nearest to the middle of its things. Chance is rank 5.

The fragment's map is tested on the thing's mask: does the map's maximum lie within 15 pixels of the thing, and how much
of the map, less its mean, lies on the thing? Then 10 to 50 % of some pictures are greyed in cells of 32 pixels, those
that a map marks highest first, and the score's fall is compared with that after random cells. `--real` does the same
with images of AGIQA-3K.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, stats
from tqdm import tqdm

from benchmarks.deletion import Asked, print_curves, real_images
from mgs import Scorer
from mgs.demo.drawing import draw
from mgs.demo.faults import Damage
from mgs.demo.generators import as_asked
from mgs.demo.prompts import sample_content
from mgs.methods.mgs import TOP_PATCHES
from mgs.scoring.draw_explanation import heatmap
from mgs.scoring.explanation import Explanation

NEAR = 15  # pixels that a maximum may lie beside a thing


@dataclass(frozen=True)
class Masked:
    """A drawing with a fragment and a mask, (H, W), for each thing in it."""

    picture: NDArray[np.uint8]  # (H, W, 3)
    fragments: list[str]
    masks: list[NDArray[np.bool_]]

    def to_ask(self) -> Asked:
        """The picture with a prompt of its fragments."""
        picture = torch.from_numpy(self.picture).permute(2, 0, 1).contiguous()
        return Asked(picture, ", ".join(self.fragments), "keywords")


@dataclass(frozen=True)
class Found:
    """What an explanation says of one thing."""

    drawing: int  # in which it is
    rank: int  # of the patch that it lies in, 1 the brightest
    patches: int  # of the picture
    pointed: dict[str, float]  # by kind of map: the share of its maxima that lie at the thing
    inside: dict[str, float]  # by kind of map: how much of it lies on the thing


def main(argv: Sequence[str] | None = None) -> None:
    """Draw, explain, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="default: the demo CLIP as it ships, zero-shot")
    parser.add_argument("--drawings", type=int, default=100)
    parser.add_argument("--greyed", type=int, default=20, help="how many of the drawings are greyed too")
    parser.add_argument("--real", type=Path, help="AGIQA-3K's folder: grey images of it too")
    parser.add_argument("--images", type=int, default=40, help="how many of these")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    scorer = Scorer.load(args.checkpoint) if args.checkpoint else Scorer.zero_shot("demo")
    drawings = [draw_masked((args.seed, i)) for i in tqdm(range(args.drawings), desc="drawing")]
    found = [one for i, drawing in enumerate(tqdm(drawings, desc="explaining")) for one in locate(scorer, drawing, i)]
    print(f"{scorer.name}: {args.drawings} drawings, {len(found)} objects")
    print_ranks(found)
    print_places(found)
    if args.greyed:
        print(f"\n{min(args.greyed, args.drawings)} drawings, greyed")
        print_curves(scorer, [one.to_ask() for one in drawings[: args.greyed]], args.seed)
    if args.real:
        print(f"\n{args.images} real images, greyed")
        print_curves(scorer, real_images(args.real, args.images, args.seed), args.seed)


def draw_masked(seed: tuple[int, int]) -> Masked:
    """A faultless drawing of two or three groups of things, with the pixels that show each."""
    rng = np.random.default_rng(seed)
    while len((content := sample_content(rng, "test")).groups) < 2:
        pass
    picture = draw(as_asked(content), Damage(), rng)
    masks = [picture.mask(i) for i in range(len(content.groups))]
    return Masked(picture.pixels, [group.phrase for group in content.groups], masks)


def locate(scorer: Scorer, drawing: Masked, number: int) -> list[Found]:
    """What the explanation of a drawing, of that number, says of each thing in it that can be seen."""
    asked = drawing.to_ask()
    explanation = scorer.explain(asked.picture, asked.prompt, style=asked.style)
    found = []
    for i, mask in enumerate(drawing.masks):
        if not mask.any():
            continue
        fragment = explanation.fragments[i]
        maps = {"chance": np.zeros(mask.shape)}
        maps["nine squares"] = np.nan_to_num(heatmap(fragment.patches, explanation.boxes, mask.shape), nan=-1)
        if explanation.maps:
            maps["map"] = explanation.maps.fragments[i].merge().numpy()
        near = ndimage.binary_dilation(mask, disk(NEAR))
        found.append(
            Found(
                number,
                rank_of(fragment.patches, nearest_patch(explanation, mask)),
                len(explanation.boxes),
                {kind: float(near[one == one.max()].mean()) for kind, one in maps.items()},
                {kind: energy_inside(one, mask) for kind, one in maps.items()},
            )
        )
    return found


def energy_inside(values: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """The share of what a map has above its mean that lies in a mask; of an even map, the mask's share."""
    above = (values - values.mean()).clip(0)
    return float(above[mask].sum() / above.sum()) if above.any() else float(mask.mean())


def disk(radius: int) -> NDArray[np.bool_]:
    """A round structure to dilate with."""
    axis = np.arange(-radius, radius + 1)
    return np.hypot(axis[:, None], axis) <= radius


def nearest_patch(explanation: Explanation, mask: NDArray[np.bool_]) -> int:
    """The patch whose centre is nearest to the middle of a thing's extent."""
    middle = [(places.min() + places.max()) / 2 for places in np.nonzero(mask)]
    centres = np.array([(top + side / 2, left + side / 2) for top, left, side in explanation.boxes])  # (P, 2)
    return int(((centres - middle) ** 2).sum(1).argmin())


def rank_of(values: Sequence[float], i: int) -> int:
    """The place of entry `i` among the values, the largest first."""
    return 1 + sum(value > values[i] for value in values)


def print_ranks(found: Sequence[Found]) -> None:
    """Print how well the patches are ranked."""
    ranks, patches = [one.rank for one in found], found[0].patches
    if patches <= TOP_PATCHES:
        return
    first = np.mean(np.array(ranks) <= TOP_PATCHES)
    print(f"mean rank of the true patch {with_interval(ranks, found)} of {patches}, chance {(patches + 1) / 2}")
    print(f"among the {TOP_PATCHES} that count: {first:.0%}, chance {TOP_PATCHES / patches:.0%}")


def print_places(found: Sequence[Found]) -> None:
    """Print how well maps point at things."""
    print(f"{'':<16}{'maximum at the thing':>24}{'energy on the thing':>24}")
    for kind in found[0].pointed:
        columns = ([one.pointed[kind] for one in found], [one.inside[kind] for one in found])
        print(f"{kind:<16}" + "".join(f"{with_interval(values, found):>24}" for values in columns))


def with_interval(values: Sequence[float], found: Sequence[Found]) -> str:
    """The mean of a value of each thing with its 95 % interval; drawings are independent, things of one are not."""
    off = np.bincount([one.drawing for one in found], np.array(values) - np.mean(values))  # a drawing's sum
    count = np.unique([one.drawing for one in found]).size
    error = np.sqrt((off**2).sum() * count / (count - 1)) / len(values)
    return f"{np.mean(values):.3f} ± {stats.t.ppf(0.975, count - 1) * error:.3f}"


if __name__ == "__main__":
    main()
