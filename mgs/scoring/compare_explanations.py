"""Why images score differently: each difference from the first image, split exactly into the parts that make it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mgs.dimensions import DIMENSIONS, Dimension
from mgs.methods.mgs import MGS
from mgs.methods.templates import read_levels
from mgs.scoring.explanation import Explanation

NODES = 256  # of the integral over the way from one image's cosines to the other's; its error is far below a float's
NOTABLE = 0.005  # of a score; smaller differences are not told, since two decimals do not show them
WHOLE_PROMPT, WHOLE_IMAGE = "the whole prompt", "the whole image"
GRID = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")


@dataclass(frozen=True)
class Part:
    """What makes a difference between two scores."""

    name: str
    difference: float  # what it adds to the other image's score beyond what it adds to the first's


@dataclass(frozen=True)
class Difference:
    """A score of another image less the first's, and its parts, which add up to it."""

    dimension: Dimension
    total: float
    parts: list[Part]  # none where the images have different prompts, so that no part has a counterpart


@dataclass(frozen=True)
class Comparison:
    """Explained images side by side."""

    names: list[str]
    explanations: list[Explanation]
    differences: list[list[Difference]]  # of each image but the first, by dimension

    @property
    def dimensions(self) -> list[Dimension]:
        """Those in which an image differs from the first."""
        return [d for d in DIMENSIONS if any(self.of(d))]

    def of(self, dimension: Dimension) -> list[Difference | None]:
        """The difference of each image but the first; None for an image without that score."""
        return [next((one for one in found if one.dimension == dimension), None) for found in self.differences]

    @property
    def sentences(self) -> list[str]:
        """The differences in words."""
        pairs = zip(self.names[1:], self.differences, strict=True)
        return [tell(one, name, self.names[0]) for name, differences in pairs for one in differences]


def compare(explanations: Sequence[Explanation], names: Sequence[str], method: MGS) -> Comparison:
    """Explanations by one method, two at least, each after the first compared with it."""
    first, *others = explanations
    return Comparison(list(names), list(explanations), [differences_of(first, other, method) for other in others])


@torch.no_grad()
def differences_of(first: Explanation, other: Explanation, method: MGS) -> list[Difference]:
    """The differences of all scores that both images have."""
    quality, authenticity = split_levels(first, other, method)
    correspondence = split_correspondence(first, other)
    parts: dict[Dimension, list[Part]] = {
        "quality": quality,
        "authenticity": authenticity,
        "correspondence": correspondence,
    }
    if correspondence:
        shares = method.fusion.double().softmax(-1).tolist()
        totals = [sum(part.difference for part in one) for one in parts.values()]
        parts["overall"] = named(list(parts), [share * total for share, total in zip(shares, totals, strict=True)])
    pairs = [(d, getattr(first.score, d), getattr(other.score, d)) for d in DIMENSIONS]
    return [Difference(d, b - a, parts.get(d, [])) for d, a, b in pairs if a is not None and b is not None]


def split_correspondence(first: Explanation, other: Explanation) -> list[Part]:
    """The weighted parts' differences; none for different prompts."""
    if first.prompt != other.prompt or len(first.fragments) != len(other.fragments):
        return []
    share = first.whole_share
    whole = [Part(WHOLE_PROMPT, share * (other.whole - first.whole))] if share > 0 else []
    pairs = zip(first.fragments, other.fragments, strict=True) if share < 1 else ()
    return whole + [Part(f"'{a.text}'", (1 - share) * (b.weight * b.score - a.weight * a.score)) for a, b in pairs]


def split_levels(first: Explanation, other: Explanation, method: MGS) -> tuple[list[Part], list[Part]]:
    """Quality's and authenticity's difference by views: the whole image, and each patch.

    Levels are a softmax of mean cosines, so a view's part depends on the others. It is the score's slope times the
    view's change, averaged over the straight way from one image's cosines to the other's. These parts add up exactly
    (Aumann and Shapley: Values of Non-Atomic Games, 1974).
    """
    start, end = (one.level_cosines.double() for one in (first, other))  # (1 + P, T) each
    if len(start) != len(end):  # patches of one have no counterparts in the other
        start, end = (torch.stack([one[0], one[1:].mean(0)]) for one in (start, end))
        names = [WHOLE_IMAGE, "the patches"]
    else:
        names = [WHOLE_IMAGE, *(patch_name(i, len(start) - 1) for i in range(len(start) - 1))]
    weights = torch.full((len(names),), 0.5 / max(1, len(names) - 1), dtype=torch.float64)
    weights[0] = 1 - weights[1:].sum()  # all, where there are no patches
    changes = weights[:, None] * (end - start)
    slopes = mean_slopes(weights @ start, weights @ end, method)  # (2, T)
    quality, authenticity = (changes @ slopes.T).T.tolist()
    return named(names, quality), named(names, authenticity)


def mean_slopes(start: Tensor, end: Tensor, method: MGS) -> Tensor:
    """Quality's and authenticity's mean slope by each sentence's similarity from `start` to `end`, (2, T)."""
    nodes, weights = (torch.from_numpy(one) for one in np.polynomial.legendre.leggauss(NODES))
    temperature, levels = (one.detach().cpu().double() for one in (method.temperature, method.levels))
    with torch.enable_grad():
        way = torch.lerp(start, end, ((nodes + 1) / 2)[:, None]).requires_grad_()  # (N, T)
        scores = read_levels(way, method.options.templates, temperature, levels)  # (N,) each
        found = [torch.autograd.grad(score @ weights / 2, way, retain_graph=True)[0].sum(0) for score in scores]
    return torch.stack(found)


def named(names: Sequence[str], differences: Sequence[float]) -> list[Part]:
    """Parts of these names."""
    return [Part(name, difference) for name, difference in zip(names, differences, strict=True)]


def patch_name(i: int, count: int) -> str:
    """What people call patch `i` of as many."""
    return f"the {GRID[i]} patch" if count == len(GRID) else f"patch {i + 1}"


def tell(difference: Difference, name: str, first: str) -> str:
    """A difference in words: "b.png is better than a.png in correspondence by 0.40, most of it from 'a red fox'"."""
    total, dimension = difference.total, difference.dimension
    if abs(total) < NOTABLE:
        return f"{name} and {first} are alike in {dimension}"
    sentence = f"{name} is {'better' if total > 0 else 'worse'} than {first} in {dimension} by {abs(total):.2f}"
    if not difference.parts:
        return f"{sentence}; their prompts differ"
    most = max(difference.parts, key=lambda part: part.difference * np.sign(total))
    share = "most of it" if abs(most.difference) > abs(total) / 2 else f"{abs(most.difference):.2f} of it"
    return f"{sentence}, {share} from {most.name}"


def names_of(images: Sequence[Path]) -> list[str]:
    """What to call images: their files' names, or their paths where two have the same name."""
    short = [image.name for image in images]
    return short if len(set(short)) == len(short) else [str(image) for image in images]
