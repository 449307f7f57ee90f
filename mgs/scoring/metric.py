"""MGS as a metric inside other people's code: on batches of RGB tensors, differentiable, and for torchmetrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgs.dimensions import MOS_MAX, Prompt
from mgs.engine.engine import Engine
from mgs.errors import UserError
from mgs.images.cuts import cut_views
from mgs.images.fit import MAX_PIXELS, Fit
from mgs.images.forms import as_prompt, as_prompts
from mgs.machine import Machine, exact_products
from mgs.methods.method import Method
from mgs.scoring.scorer import Scorer

SLACK = 0.5 / 255  # half a grey level: what rounding leaves outside 0-1


class ImageMetric(nn.Module):
    """One dimension's score of RGB images, with gradients down to their pixels; the weights stay as they are.

    It computes in float32, whatever surrounds it: autocast is off inside, and `half()` moves no weight to another
    precision. `score_range` is where scores usually lie (they are never clamped); higher is better.
    """

    score_range = (0.0, MOS_MAX)
    lower_better = False

    def __init__(self, scorer: Scorer, dimension: str) -> None:
        super().__init__()
        if dimension not in scorer.scored:
            raise UserError(f"metric {dimension}: {scorer.name} gives {', '.join(scorer.scored)}; choose from these")
        if scorer.engine.cuts.fit != Fit():
            raise UserError(f"metric {dimension}: {scorer.name}: only mgs resizes images so that gradients reach them")
        self.scorer = scorer
        self.model = scorer.model
        # an engine of its own: it computes in float32, on the caller's thread and stream
        self.engine = Engine(self.model, scorer.engine.cuts, float32(self.model), scale=scorer.engine.scale)
        self.register_load_state_dict_pre_hook(rename_backbone)
        self.dimension, self.prompt_style = dimension, scorer.prompt_style

    def forward(self, images: Tensor, prompts: Sequence[str | None] | None = None) -> Tensor:
        """Scores, (B,), float32, of images, (B, 3, H, W), floats on 0-1, on the device of the weights.

        `prompts`, one per image, are needed for correspondence and overall, and not read for the others. A shorter side
        below 512 is enlarged, bilinear. Raises `ValueError` for another shape, range or number of prompts. The check of
        the range waits for the device.
        """
        check_pixels(images)
        texts = [as_prompt(prompt) for prompt in as_prompts(prompts, len(images))]
        if self.dimension in self.model.needs_prompt and None in texts:
            raise ValueError(f"{self.dimension} is judged against a prompt; give one per image")
        if not len(images):
            return images.float().sum((1, 2, 3))
        self.scorer.refuse_fork()
        backbone, cuts = self.model.backbone, self.engine.cuts
        reading = self.model.read([Prompt(text or "", self.prompt_style) for text in texts])
        numbers = {name: value.to(images.device, non_blocking=True) for name, value in reading.numbers.items()}
        with torch.autocast(images.device.type, enabled=False), exact_products:
            embedded = self.engine.embed_texts(reading.texts)
            pixels = enlarge(images.float()) * 255
            views = cut_views(pixels, cuts, backbone.size, backbone.mean, backbone.std)
            scores = self.model.score(backbone.finish_images(backbone.start_images(views)), embedded, numbers)
            found: Tensor = self.engine.to_mos(scores)[self.dimension]
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ImageMetric:
        """Move the weights as `to`, `cuda`, `half` and the like ask, but keep their precision."""

        def keep_precision(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(keep_precision, recurse)
        self.engine.work_on(float32(self.model))
        return self


def float32(model: Method) -> Machine:
    """The device where a method's weights are, in float32."""
    return Machine(model.backbone.logit_scale.device, torch.float32)


def rename_backbone(metric: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Give weights that a host saved with an older version their names of today."""
    for name in [name for name in state if name.startswith(f"{prefix}model.clip.")]:
        state[f"{prefix}model.backbone.{name.removeprefix(f'{prefix}model.clip.')}"] = state.pop(name)


def check_pixels(images: Tensor) -> None:
    """Raise `ValueError` for anything but a batch of float images on 0-1."""
    if not isinstance(images, Tensor):
        raise ValueError(f"images: a {type(images).__name__}; give a tensor of floats on 0-1, (B, 3, H, W)")
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[1:] or not images.is_floating_point():
        raise ValueError(f"images {tuple(images.shape)}, {images.dtype}: give floats on 0-1, (B, 3, H, W)")
    if len(images):
        low, high = torch.stack(torch.aminmax(images.detach())).tolist()  # NaN where any pixel is
        if not (low >= -SLACK and high <= 1 + SLACK):
            remedy = "(images + 1) / 2 brings -1..1 there, images / 255 bytes"
            raise ValueError(f"images: pixels from {low:.3g} to {high:.3g}: give floats on 0-1; {remedy}")


def enlarge(images: Tensor) -> Tensor:
    """Images with the shorter side at least 512, as `images/decode.py` makes them."""
    height, width = images.shape[-2:]
    scale = Fit().least / min(height, width)
    if scale <= 1:
        return images
    size = (max(Fit().least, round(height * scale)), max(Fit().least, round(width * scale)))
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"images: {width}x{height} is too thin to enlarge")
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


def __getattr__(name: str) -> Any:
    """`MGSScore`, whose base class comes from a package that few need."""
    if name == "MGSScore":
        from mgs.scoring.torchmetric import MGSScore

        return MGSScore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
