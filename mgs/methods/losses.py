"""What training lowers, as functions of scores and MOS by dimension."""

from __future__ import annotations

import torch
from torch import Tensor

from mgs.methods.method import Scores


def squared_error(scores: Scores, mos: Scores) -> Tensor:
    """Each dimension's mean squared error over the images that have MOS for it, 0 if none has, summed over dimensions.

    `mos` names the dimensions, (B,) each; NaN stands for no MOS.
    """
    predicted = torch.stack([scores[dimension] for dimension in mos])  # (D, B)
    wanted = torch.stack(list(mos.values()))
    there = wanted.isfinite()
    errors = (predicted - wanted.nan_to_num(0)).square() * there  # (D, B)
    return (errors.sum(1) / there.sum(1).clamp(min=1)).sum()
