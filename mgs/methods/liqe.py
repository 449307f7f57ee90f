"""LIQE: fixed sentences on quality against windows of the image, trained to rank; one model for one target.

Zhang et al.: Blind Image Quality Assessment via Vision-Language Correspondence, CVPR 2023; github.com/zwx8981/LIQE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from mgs.backbones.backbone import Backbone
from mgs.dimensions import MOS_MAX, Dimension, Prompt
from mgs.methods.ipce import TargetOptions
from mgs.methods.losses import fidelity
from mgs.methods.method import Method, Reading, Scores
from mgs.methods.templates import QUALITY_WORDS

SCENES = ("animal", "cityscape", "human", "indoor", "landscape", "night", "plant", "still_life", "others")
DISTORTIONS = (
    *("jpeg2000 compression", "jpeg compression", "noise", "blur", "color", "contrast", "overexposure"),
    *("underexposure", "spatial", "quantization", "other"),
)
SCALE = (1.0, 5.0)  # of its scores


@dataclass
class LIQEOptions(TargetOptions):
    form: Literal["quality", "full"] = "quality"  # full: 495 sentences on scenes and distortions too, as published


class LIQE(Method):
    """A score that does not read the prompt."""

    needs_prompt: frozenset[Dimension] = frozenset()
    levels: Tensor

    def __init__(self, backbone: Backbone, options: LIQEOptions) -> None:
        super().__init__()
        self.backbone, self.options = backbone, options
        self.gives: tuple[Dimension, ...] = (options.target,)
        self.sentences = [f"a photo with {quality} quality" for quality in QUALITY_WORDS]
        if options.form == "full":
            self.sentences = [
                f"a photo of a {scene} with {distortion} artifacts, which is of {quality} quality"
                for quality, scene, distortion in product(QUALITY_WORDS, SCENES, DISTORTIONS)
            ]
            self.labels = {"scene": SCENES, "distortion": DISTORTIONS}
        self.register_buffer("levels", torch.arange(1.0, 6.0), persistent=False)

    def read(self, prompts: Sequence[Prompt]) -> Reading:
        """The sentences, whatever the prompts."""
        return Reading(list(self.sentences))

    def score(self, images: Tensor, texts: Tensor, numbers: Mapping[str, Tensor]) -> Scores:
        """The expected quality word, 1-5."""
        quality = self.probabilities(images, texts).unflatten(-1, (len(QUALITY_WORDS), -1)).sum(-1)  # (B, 5)
        return {self.options.target: quality @ self.levels}

    def label(self, images: Tensor, texts: Tensor, numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The likeliest scene and distortion, in the full form."""
        if not self.labels:
            return {}
        joint = self.probabilities(images, texts).unflatten(-1, (-1, len(SCENES), len(DISTORTIONS)))  # (B, 5, 9, 11)
        return {"scene": joint.sum((1, 3)).argmax(-1), "distortion": joint.sum((1, 2)).argmax(-1)}

    def probabilities(self, images: Tensor, texts: Tensor) -> Tensor:
        """One softmax over all sentences, (B, T), of the windows' mean similarity; quality is the slowest axis."""
        logits = (self.backbone.logit_scale.exp() * images @ texts[: len(self.sentences)].T).mean(1)
        return logits.softmax(-1)

    def loss(self, scores: Scores, mos: Scores) -> Tensor:
        """The fidelity of the ranking, in which a quality word counts as one."""
        return fidelity(scores, mos, unit=MOS_MAX / (SCALE[1] - SCALE[0]))
