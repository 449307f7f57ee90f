"""IPCE: the prompt inside five sentences on how well an image matches it; one model for one target.

Peng et al.: AIGC Image Quality Assessment via Image-Prompt Correspondence, CVPRW 2024; github.com/pf0607/IPCE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mgs.backbones.backbone import Backbone
from mgs.dimensions import Dimension, Prompt
from mgs.methods.losses import absolute_error
from mgs.methods.method import Method, Options, Reading, Scores
from mgs.methods.templates import LEVELS

WORDS = ("badly", "poorly", "fairly", "well", "perfectly")  # worst first


@dataclass
class TargetOptions(Options):
    """Of a method that has one score: which dimension it is trained on."""

    target: Dimension = "quality"


class IPCE(Method):
    """Every score quotes the prompt, whatever its dimension."""

    levels: Tensor

    def __init__(self, backbone: Backbone, options: TargetOptions) -> None:
        super().__init__()
        self.backbone, self.options = backbone, options
        self.gives: tuple[Dimension, ...] = (options.target,)
        self.needs_prompt = frozenset(self.gives)
        self.register_buffer("levels", torch.tensor(LEVELS), persistent=False)

    def read(self, prompts: Sequence[Prompt]) -> Reading:
        """Five sentences a prompt, which is quoted as it is given."""
        sentences = [[f"a photo that {word} matches '{prompt.text}'" for word in WORDS] for prompt in prompts]
        texts = list(dict.fromkeys(text for five in sentences for text in five))
        row = {text: i for i, text in enumerate(texts)}
        return Reading(texts, {"levels": torch.tensor([[row[text] for text in five] for five in sentences])})  # (B, 5)

    def score(self, images: Tensor, texts: Tensor, numbers: Mapping[str, Tensor]) -> Scores:
        """The expected level, 0-5: the mean of the windows' and the whole image's probabilities."""
        five = texts[numbers["levels"][:, : len(WORDS)]]  # (B, 5, D)
        logits = self.backbone.logit_scale.exp() * images @ five.mT  # (B, V, 5)
        probability = (logits[:, 1:].mean(1).softmax(-1) + logits[:, 0].softmax(-1)) / 2  # (B, 5)
        return {self.options.target: probability @ self.levels}

    def loss(self, scores: Scores, mos: Scores) -> Tensor:
        """The mean absolute error."""
        return absolute_error(scores, mos)
