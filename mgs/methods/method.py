"""What a way to score is: `Method`. It never sees pixels, files, devices, or an encoder's insides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor, nn

from mgs.backbones.backbone import Backbone
from mgs.dimensions import Dimension, Prompt
from mgs.prompts import clean_prompt

Scores: TypeAlias = dict[str, Tensor]  # by dimension, (B,) each, float32, higher is better


@dataclass
class Options:
    """A method's own options, the section `options:` of a config. A method adds fields, and rules for them."""

    def find_impossible_values(self) -> list[tuple[str, str]]:
        """Fields whose value has the right type and still cannot work, each with what it must be."""
        return []


@dataclass(frozen=True)
class Reading:
    """What a method wants to know of B prompts. It is made on the host, before the images' turn comes."""

    texts: list[str]  # distinct, perhaps none: their embeddings are what `score` gets
    numbers: dict[str, Tensor] = field(default_factory=dict)  # int64, (B,) or (B, n), such as rows of `texts`


class Method(nn.Module, ABC):
    """A way to score: a module over embeddings, which holds its backbone and perhaps weights of its own.

    Prompts are read on the host (`read`), images are scored on the device (`score`), so that neither waits for the
    other. Below, B is a number of images, V of their views, D the embeddings' width. Its state are its parameters
    alone (no batch norm), and it draws no random numbers after it is made (no dropout): so it can be resumed exactly.
    """

    backbone: Backbone
    gives: tuple[Dimension, ...]
    needs_prompt: frozenset[Dimension]  # of these, an image without a prompt has no score
    sentences: Sequence[str] = ()  # the fixed texts, which a checkpoint records
    labels: Mapping[str, Sequence[str]] = {}  # what `label` tells besides scores, with the words that it chooses from

    def begin(self) -> None:
        """Take weights from files that the options name; called of a new method, not of one from a checkpoint.

        Raises `UserError` where there is none that fits.
        """
        return

    @abstractmethod
    def read(self, prompts: Sequence[Prompt]) -> Reading:
        """What `score` needs of the prompts, one per image."""

    @abstractmethod
    def score(self, images: Tensor, texts: Tensor, numbers: Mapping[str, Tensor]) -> Scores:
        """Scores from embeddings of unit length: `images` (B, V, D), view 0 the whole image, `texts` (T, D).

        T is the number of texts that `read` gave, or more: further rows mean nothing. Neither do further columns of
        `numbers`, which hold 0. Scores are on the scale that the method's row of the table states.
        """

    def label(self, images: Tensor, texts: Tensor, numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """For each name in `labels`, which of its words fits each image: int64, (B,). It takes what `score` takes."""
        return {}

    @abstractmethod
    def loss(self, scores: Scores, mos: Scores) -> Tensor:
        """What training lowers, a scalar. `mos` has the dimensions to train; where an image has no MOS, it is NaN.

        Both are on 0-5.
        """


def find_truncated(method: Method, prompts: Sequence[Prompt]) -> list[str]:
    """The distinct prompts that give a text longer than the backbone reads, which is cut, its end token kept."""
    distinct, fixed = {clean_prompt(prompt.text): prompt for prompt in prompts}, set(method.sentences)
    return sorted(
        text
        for text, prompt in distinct.items()
        if any(method.backbone.is_too_long(part) for part in method.read([prompt]).texts if part not in fixed)
    )
