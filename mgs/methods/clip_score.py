"""CLIPScore: the cosine of an image and its prompt, without training.

Hessel et al.: CLIPScore: A Reference-free Evaluation Metric for Image Captioning, EMNLP 2021.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mgs.backbones.backbone import Backbone
from mgs.dimensions import Dimension, Prompt
from mgs.methods.losses import squared_error
from mgs.methods.method import Method, Options, Reading, Scores

PREFIX = "A photo depicts "
WEIGHT = 2.5  # what the paper multiplies a cosine by


class CLIPScore(Method):
    """One score, which reads the prompt."""

    gives: tuple[Dimension, ...] = ("correspondence",)
    needs_prompt: frozenset[Dimension] = frozenset({"correspondence"})

    def __init__(self, backbone: Backbone, options: Options) -> None:
        super().__init__()
        self.backbone, self.options = backbone, options

    def read(self, prompts: Sequence[Prompt]) -> Reading:
        """Each distinct prompt behind the prefix, as it is given."""
        texts = list(dict.fromkeys(PREFIX + prompt.text for prompt in prompts))
        return Reading(texts, {"prompt": torch.tensor([texts.index(PREFIX + prompt.text) for prompt in prompts])})

    def score(self, images: Tensor, texts: Tensor, numbers: Mapping[str, Tensor]) -> Scores:
        """2.5 times the cosine, 0-2.5; a negative cosine counts as 0."""
        cosine = (images[:, 0] * texts[numbers["prompt"]]).sum(-1)
        return {"correspondence": WEIGHT * cosine.clamp(min=0)}

    def loss(self, scores: Scores, mos: Scores) -> Tensor:
        """The mean squared error, for whoever fine-tunes it."""
        return squared_error(scores, mos)
