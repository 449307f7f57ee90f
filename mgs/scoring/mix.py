"""Scores mixed into one number an image: the arithmetic of a reward. Imports no torch, for clients of a server."""

from __future__ import annotations

import math
import statistics
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from mgs.dimensions import DIMENSIONS, MOS_MAX
from mgs.errors import UserError

SMALLEST = 1e-6  # of a batch's standard deviation: images that score alike differ by nothing


@dataclass(frozen=True)
class Mix:
    """A weighted mean of dimensions, on 0-1. With `standardize`, each is first standardized over the images.

    Raises `UserError` for weights that are none.
    """

    weights: Mapping[str, float]
    standardize: bool = False

    def __post_init__(self) -> None:
        weights = self.weights.values()
        if not weights or not all(weight > 0 for weight in weights) or not math.isfinite(sum(weights)):
            remedy = "give positive numbers, such as {'quality': 0.5, 'correspondence': 0.5}"
            raise UserError(f"weights {dict(self.weights)}: {remedy}")
        if unknown := [name for name in self.weights if name not in DIMENSIONS]:
            raise UserError(f"weights {', '.join(unknown)}: no such dimension; choose from {', '.join(DIMENSIONS)}")

    def total(self, shares: Mapping[str, Sequence[float]]) -> list[float]:
        """Each image's number, from its dimensions on 0-1; NaN where one of them is."""
        whole = math.fsum(self.weights.values())
        columns = [
            (weight / whole, standardized(shares[name]) if self.standardize else shares[name])
            for name, weight in self.weights.items()
        ]
        return [math.fsum(weight * column[i] for weight, column in columns) for i in range(len(columns[0][1]))]

    def refuse_missing(self, prompts: Sequence[str | None], needs_prompt: Container[str]) -> None:
        """Raise `ValueError` where an image has no prompt, and a dimension of the mix is judged against it."""
        if missing := [name for name in self.weights if name in needs_prompt and None in prompts]:
            raise ValueError(f"{', '.join(missing)}: judged against a prompt; give one for each image")


def choose_mix(
    weights: Mapping[str, float] | None, scored: Sequence[str], scorer: str, *, standardize: bool = False
) -> Mix:
    """A mix of the dimensions that a scorer of that name gives, by default all alike. Raises `UserError` for others."""
    weights = dict.fromkeys(scored, 1.0) if weights is None else dict(weights)
    if unknown := [name for name in weights if name not in scored]:
        raise UserError(f"weights {', '.join(unknown)}: {scorer} gives {', '.join(scored)}")
    return Mix(weights, standardize)


def as_share(score: float | None) -> float:
    """A score on 0-1; NaN for none."""
    return math.nan if score is None else score / MOS_MAX


def standardized(values: Sequence[float]) -> list[float]:
    """Values with mean 0 and standard deviation 1 among those that are numbers; 0 where all are alike."""
    known = [value for value in values if math.isfinite(value)]
    mean = statistics.fmean(known) if known else math.nan
    spread = max(statistics.pstdev(known, mean), SMALLEST) if known else 1.0
    return [(value - mean) / spread for value in values]
