"""MGS for torchmetrics, which must be installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mgs.dimensions import MOS_MAX
from mgs.errors import UserError
from mgs.images.forms import as_images, as_prompts
from mgs.scoring.score import raise_failure
from mgs.scoring.scorer import Scorer

try:
    from torchmetrics import Metric
except ImportError:
    raise UserError("MGSScore needs torchmetrics: run pip install torchmetrics") from None


class MGSScore(Metric):
    """Mean scores over all images seen, for torchmetrics: `update(images, prompts)`, `compute()`, `plot()`.

    `compute` gives a dict of the scorer's dimensions, NaN before the first image; correspondence and overall are means
    over images that had a prompt.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound, plot_upper_bound = 0.0, MOS_MAX

    total: Tensor
    count: Tensor

    def __init__(self, scorer: Scorer, **options: Any) -> None:
        super().__init__(**options)
        self.scorer = scorer
        self.add_state("total", torch.zeros(len(scorer.scored), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(len(scorer.scored), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, images: Sequence[Any], prompts: Sequence[str | None] | None = None) -> None:
        """Score images, of any kind that a scorer takes, with a prompt each.

        Raises `UserError` for a bad image, `ValueError` where there are not as many prompts as images, or a
        single item is given in place of a list.
        """
        images = as_images(images)
        pairs = list(zip(images, as_prompts(prompts, len(images)), strict=True))
        for score in [raise_failure(score) for score in self.scorer.score_stream(pairs)]:
            values = [getattr(score, dimension) for dimension in self.scorer.scored]
            told = torch.tensor([value is not None for value in values])
            self.total += torch.tensor([value or 0.0 for value in values], dtype=torch.float64).to(self.total)
            self.count += told.to(self.count)

    def compute(self) -> dict[str, Tensor]:
        """Dimension -> mean score."""
        return dict(zip(self.scorer.scored, (self.total / self.count).float(), strict=True))

    def plot(self, value: Any = None, axes: Any = None) -> Any:
        """The means, or `value`, one or several results of `compute`, drawn: a figure and its axes."""
        return self._plot(value, axes)
