"""CLIP-IQA: a pair of opposite sentences for each dimension, without training.

Wang et al.: Exploring CLIP for Assessing the Look and Feel of Images, AAAI 2023. The paper's own form is with RN50, on
a picture of its own size. A vision transformer sees the centre, as torchmetrics has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from mgs.backbones.backbone import Backbone
from mgs.dimensions import Dimension, Prompt
from mgs.methods.losses import squared_error
from mgs.methods.method import Method, Options, Reading, Scores

QUALITY, AUTHENTICITY = ("Good photo.", "Bad photo."), ("Natural photo.", "Synthetic photo.")  # the better first


class CLIPIQA(Method):
    """Scores that do not read the prompt."""

    gives: tuple[Dimension, ...] = ("quality", "authenticity", "overall")
    needs_prompt: frozenset[Dimension] = frozenset()

    def __init__(self, backbone: Backbone, options: Options) -> None:
        super().__init__()
        self.backbone, self.options = backbone, options
        backbone.allow_any_size()  # its authors score pictures at their own size
        self.sentences = [*QUALITY, *AUTHENTICITY]

    def read(self, prompts: Sequence[Prompt]) -> Reading:
        """The pairs, whatever the prompts."""
        return Reading(list(self.sentences))

    def score(self, images: Tensor, texts: Tensor, numbers: Mapping[str, Tensor]) -> Scores:
        """The probability of each pair's better sentence, 0-1.

        Quality stands for overall too, as in published comparisons on AGIQA-1K.
        """
        logits = self.backbone.logit_scale.exp() * images[:, 0] @ texts[: len(self.sentences)].T  # (B, 4)
        quality, authenticity = logits.unflatten(-1, (-1, 2)).softmax(-1)[..., 0].unbind(-1)
        return {"quality": quality, "authenticity": authenticity, "overall": quality}

    def loss(self, scores: Scores, mos: Scores) -> Tensor:
        """The mean squared error, for whoever fine-tunes it."""
        return squared_error(scores, mos)
