"""CLIP-IQA+: CLIP-IQA's pair of sentences around 16 learned word vectors, all that trains; one model for one target.

Wang et al.: Exploring CLIP for Assessing the Look and Feel of Images, AAAI 2023, after Zhou et al.: CoOp, IJCV 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mgs.backbones.backbone import Backbone
from mgs.backbones.weights import as_tensors, read_weights
from mgs.dimensions import Dimension, Prompt
from mgs.errors import UserError
from mgs.methods.ipce import TargetOptions
from mgs.methods.losses import squared_error
from mgs.methods.method import Method, Reading, Scores

PAIR = ("Good photo..", "Bad photo..")  # the better first; the authors' code adds a full stop to one that is there
LENGTH, SPREAD = 16, 0.02  # of the context: vectors, and their standard deviation at first
NAME = "ctx"  # of the context in files that hold more


@dataclass
class CLIPIQAPlusOptions(TargetOptions):
    context: str | None = None  # a file with a context, (16, W), to start from, such as the published one


class CLIPIQAPlus(Method):
    """A score that does not read the prompt; both sentences share the context."""

    needs_prompt: frozenset[Dimension] = frozenset()
    words: Tensor

    def __init__(self, backbone: Backbone, options: CLIPIQAPlusOptions) -> None:
        super().__init__()
        self.backbone, self.options = backbone, options
        backbone.allow_any_size()  # its authors score pictures at their own size
        self.gives: tuple[Dimension, ...] = (options.target,)
        self.sentences = list(PAIR)
        numbers = torch.tensor([backbone.tokenize(sentence) for sentence in PAIR])  # (2, 5), with start and end
        self.register_buffer("words", numbers, persistent=False)
        width = backbone.word_vectors(numbers).shape[-1]
        self.context = nn.Parameter(torch.randn(LENGTH, width) * SPREAD)

    def begin(self) -> None:
        """Start from the context in the file that `options.context` names."""
        if self.options.context:
            self.context.data.copy_(read_context(Path(self.options.context), tuple(self.context.shape)))

    def read(self, prompts: Sequence[Prompt]) -> Reading:
        """Nothing: the sentences change in training, so `score` embeds them."""
        return Reading([])

    def score(self, images: Tensor, texts: Tensor, numbers: Mapping[str, Tensor]) -> Scores:
        """The probability of the better sentence, 0-1."""
        start, name, end = self.backbone.word_vectors(self.words).split([1, self.words.shape[1] - 2, 1], 1)
        before, after = self.context.expand(len(PAIR), -1, -1).chunk(2, 1)  # (2, 8, W) each
        pair = self.backbone.embed_words(torch.cat([start, before, name, after, end], 1))  # (2, D)
        logits = self.backbone.logit_scale.exp() * images[:, 0] @ pair.T  # (B, 2)
        return {self.options.target: logits.softmax(-1)[:, 0]}

    def loss(self, scores: Scores, mos: Scores) -> Tensor:
        """The mean squared error."""
        return squared_error(scores, mos)


def read_context(path: Path, shape: tuple[int, ...]) -> Tensor:
    """A learned context from a file that holds it alone, or under a name that ends in `ctx`. Raises `UserError`."""
    try:
        found = find_context(read_weights(path))
        tensor = as_tensors({NAME: found})[NAME].float()
    except FileNotFoundError:
        raise UserError(f"options.context={path}: no such file") from None
    except Exception as error:  # readers of zip and pickle raise errors of their own
        reason = f" ({error})" if isinstance(error, ValueError) else ""
        raise UserError(
            f"options.context={path}: holds no context as a tensor{reason}; save the tensor alone"
        ) from None
    if tuple(tensor.shape) != shape:
        wanted = f"{shape[0]} vectors of this backbone's width {shape[1]}"
        raise UserError(f"options.context={path}: shape {tuple(tensor.shape)}, not {wanted}; choose its own model.clip")
    return tensor


def find_context(content: Any) -> Any:
    """The tensor itself, or the first below a name that ends in `ctx`, in nested dicts; None if there is none."""
    if not isinstance(content, dict):
        return content
    for name, value in content.items():
        found = value if str(name).split(".")[-1] == NAME else find_context(value) if isinstance(value, dict) else None
        if found is not None:
            return found
    return None
