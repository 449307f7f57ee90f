"""CLIP-IQA: a pair of opposite sentences for each dimension, without training.

Wang et al.: Exploring CLIP for Assessing the Look and Feel of Images, AAAI 2023. This is the form with a vision
transformer and a view of the backbone's size; the paper's own uses RN50 on the picture's own size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from mgs.backbones.backbone import Backbone
from mgs.dimensions import Dimension, Prompt
from mgs.methods.losses import squared_error
from mgs.methods.method import Method, Options, Reading, Scores

PAIRS: dict[Dimension, tuple[str, str]] = {  # the better first
    "quality": ("Good photo.", "Bad photo."),
    "authenticity": ("Natural photo.", "Synthetic photo."),
}


class CLIPIQA(Method):
    """Two scores that do not read the prompt."""

    gives: tuple[Dimension, ...] = tuple(PAIRS)
    needs_prompt: frozenset[Dimension] = frozenset()

    def __init__(self, backbone: Backbone, options: Options) -> None:
        super().__init__()
        self.backbone, self.options = backbone, options
        self.sentences = [sentence for pair in PAIRS.values() for sentence in pair]

    def read(self, prompts: Sequence[Prompt]) -> Reading:
        """The pairs, whatever the prompts."""
        return Reading(list(self.sentences))

    def score(self, images: Tensor, texts: Tensor, numbers: Mapping[str, Tensor]) -> Scores:
        """The probability of each pair's better sentence, 0-1."""
        logits = self.backbone.logit_scale.exp() * images[:, 0] @ texts[: len(self.sentences)].T  # (B, 4)
        better = logits.unflatten(-1, (-1, 2)).softmax(-1)[..., 0]  # (B, 2)
        return dict(zip(self.gives, better.unbind(-1), strict=True))

    def loss(self, scores: Scores, mos: Scores) -> Tensor:
        """The mean squared error, for whoever fine-tunes it."""
        return squared_error(scores, mos)
