"""What training lowers, as functions of scores and MOS by dimension; NaN stands for no MOS."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mgs.methods.method import Scores

EPSILON = 1e-8  # under the roots of the fidelity loss, whose slope at 0 is infinite


def squared_error(scores: Scores, mos: Scores) -> Tensor:
    """Each dimension's mean squared error over the images that have MOS for it, 0 if none has, summed over dimensions.

    `mos` names the dimensions, (B,) each.
    """
    return mean_error(scores, mos, torch.square)


def absolute_error(scores: Scores, mos: Scores) -> Tensor:
    """The same with absolute errors."""
    return mean_error(scores, mos, torch.abs)


def mean_error(scores: Scores, mos: Scores, size_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Each dimension's mean error over the images that have MOS for it, summed over dimensions."""
    predicted = torch.stack([scores[dimension] for dimension in mos])  # (D, B)
    wanted = torch.stack(list(mos.values()))
    there = wanted.isfinite()
    errors = size_of(predicted - wanted.nan_to_num(0)) * there  # (D, B)
    return (errors.sum(1) / there.sum(1).clamp(min=1)).sum()


def fidelity(scores: Scores, mos: Scores, *, unit: float) -> Tensor:
    """LIQE's ranking loss: how badly score differences tell, for pairs of images, which has the higher MOS.

    A pair's probability is the normal distribution's at the difference over `unit`, the MOS points that count as one.
    It is compared with 1, 0 or, of equal MOS, 0.5. The mean over pairs is summed over dimensions; 0 without pairs.
    """
    total = torch.zeros((), device=next(iter(scores.values())).device)
    for dimension, wanted in mos.items():
        i, j = torch.triu_indices(len(wanted), len(wanted), 1, device=wanted.device)  # pairs, the earlier first
        difference = (scores[dimension][i] - scores[dimension][j]) / unit
        higher = ((wanted[i] - wanted[j]).sign() + 1) / 2
        there = wanted[i].isfinite() & wanted[j].isfinite()
        found = (1 + torch.erf(difference / 2**0.5)) / 2
        agree = (found * higher + EPSILON).sqrt() + ((1 - found) * (1 - higher) + EPSILON).sqrt()
        total = total + ((1 - agree) * there).sum() / there.sum().clamp(min=1)
    return total
