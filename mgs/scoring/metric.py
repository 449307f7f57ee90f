"""MGS as a metric inside other people's code: on batches of RGB tensors, differentiable, and for torchmetrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgs.config import MOS_MAX
from mgs.data.images import MIN_SIDE
from mgs.data.views import make_views
from mgs.errors import UserError
from mgs.model.fragments import Prompt
from mgs.scoring.scorer import Scorer


class ImageMetric(nn.Module):
    """One dimension's score of RGB images, with gradients down to their pixels; the weights stay as they are.

    `score_range` is where scores usually lie (they are never clamped); higher is better.
    """

    score_range = (0.0, MOS_MAX)
    lower_better = False

    def __init__(self, scorer: Scorer, dimension: str) -> None:
        super().__init__()
        if dimension not in scorer.scored:
            raise UserError(f"metric {dimension}: {scorer.name} gives {', '.join(scorer.scored)}; choose of these")
        self.model = scorer.model.requires_grad_(False)
        self.views, self.size = scorer.pipeline.settings, scorer.pipeline.size
        self.dimension, self.prompt_style = dimension, scorer.prompt_style

    def forward(self, images: Tensor, prompts: Sequence[str] | None = None) -> Tensor:
        """Scores, (B,), of images, (B, 3, H, W) on 0-1, on the device of the weights.

        `prompts`, one an image, are needed for correspondence and overall, and not read for the others. A shorter side
        below 512 is enlarged, bilinear. Raises `ValueError` for another shape or number of prompts.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(f"images {tuple(images.shape)}, {images.dtype}: give floats on 0-1, (B, 3, H, W)")
        if prompts is None and self.dimension in ("correspondence", "overall"):
            raise ValueError(f"{self.dimension} is judged against a prompt; give one an image")
        prompts = [""] * len(images) if prompts is None else prompts
        if isinstance(prompts, str) or len(prompts) != len(images):
            raise ValueError(f"{len(prompts)} prompts for {len(images)} images; give a list, one an image")
        cut = make_views(enlarge(images) * 255, self.size, layout=self.views.layout, antialias=self.views.antialias)
        scores: Tensor = getattr(self.model(cut, [Prompt(text, self.prompt_style) for text in prompts]), self.dimension)
        return scores


def enlarge(images: Tensor) -> Tensor:
    """Images with the shorter side at least 512, as `data.images` has them."""
    height, width = images.shape[-2:]
    scale = MIN_SIDE / min(height, width)
    if scale <= 1:
        return images
    size = (max(MIN_SIDE, round(height * scale)), max(MIN_SIDE, round(width * scale)))
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)


def create_metric(
    dimension: str, checkpoint: str | Path | None = None, *, clip: str | None = None, device: str = "auto"
) -> ImageMetric:
    """A differentiable metric from a checkpoint, or from a bare `clip`, zero-shot, in float32. Raises `UserError`."""
    if (checkpoint is None) == (clip is None):
        raise UserError("create_metric: give a checkpoint, or clip=... for a bare CLIP; one of the two")
    if checkpoint is not None:
        return ImageMetric(Scorer.load(checkpoint, device=device, precision="fp32"), dimension)
    return ImageMetric(Scorer.zero_shot(str(clip), device=device, precision="fp32"), dimension)


def torchmetrics_class() -> Any:
    """The base class of `MGSScore`; `UserError` where torchmetrics is not installed."""
    try:
        from torchmetrics import Metric
    except ImportError:
        raise UserError("MGSScore needs torchmetrics: run pip install torchmetrics") from None
    return Metric


def make_score_class() -> Any:
    """`MGSScore`, made when first asked for, since its base class comes from a package that few need."""

    class MGSScore(torchmetrics_class()):  # type: ignore[misc]
        """Mean scores over all images seen, for torchmetrics: `update(images, prompts)`, `compute()`, `plot()`.

        `compute` gives a dict of the scorer's dimensions, NaN before the first image; correspondence and overall are
        means over images that had a prompt.
        """

        is_differentiable = False
        higher_is_better = True
        full_state_update = False
        plot_lower_bound, plot_upper_bound = 0.0, MOS_MAX

        def __init__(self, scorer: Scorer, **options: Any) -> None:
            super().__init__(**options)
            self.scorer = scorer
            self.add_state("total", torch.zeros(len(scorer.scored), dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state("count", torch.zeros(len(scorer.scored), dtype=torch.float64), dist_reduce_fx="sum")

        def update(self, images: Sequence[Any], prompts: Sequence[str | None] | None = None) -> None:
            """Score images, of any kind that a scorer takes, with a prompt each. Raises `UserError` for a bad image."""
            prompts = [None] * len(images) if prompts is None else prompts
            for score in self.scorer.score_stream(list(zip(images, prompts, strict=True))):
                if score.failed:
                    raise UserError(score.status)
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

    MGSScore.__qualname__ = "MGSScore"
    return MGSScore


def __getattr__(name: str) -> Any:
    if name == "MGSScore":
        globals()[name] = make_score_class()
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
