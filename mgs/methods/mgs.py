"""MGS: joint sentences for quality and authenticity; the whole prompt and its fragments for correspondence.

Wu, Luo, Liang: MGA: Multi-Granularity Alignment for AI Generated Image Quality Assessment, IEEE SPL, 2025.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mgs.backbones.backbone import Backbone
from mgs.dimensions import DIMENSIONS, MOS_MAX, Dimension, Prompt
from mgs.methods.fragments import split_prompt
from mgs.methods.losses import squared_error
from mgs.methods.method import Method, Options, Reading, Scores
from mgs.methods.templates import LEVELS, Templates, read_levels, sentences
from mgs.prompts import clean_prompt

TOP_PATCHES = 3  # a fragment is scored on the patches that show it best


@dataclass
class MGSOptions(Options):
    """What of MGS an ablation changes."""

    templates: Templates = "joint"  # swapped: for imported weights, see templates.py
    correspondence: Literal["both", "whole", "fragments"] = "both"
    temperature: int | float | str = 1.0  # a number, learned, or clip (CLIP's own logit scale)

    def find_impossible_values(self) -> list[tuple[str, str]]:
        if isinstance(self.temperature, str):
            fits = self.temperature in ("learned", "clip")
        else:
            fits = math.isfinite(self.temperature) and self.temperature > 0
        return [] if fits else [("temperature", "a number above 0, learned, or clip")]


@dataclass
class Similarities:
    """Cosines between B images, P patches each, and the texts that they are compared with; float32."""

    levels_whole: Tensor  # (B, T), the whole image with the T level sentences
    levels_patches: Tensor  # (B, P, T)
    whole: Tensor  # (B,), the whole image with the whole prompt
    fragments: Tensor  # (B, F, P), fragments with patches; the first `counts` of F are real, the rest padding
    weights: Tensor  # (B, F), each fragment's share; 0 for padding
    counts: Tensor  # (B,)


class MGS(Method):
    """The method, whose backbone is fine-tuned in place.

    Besides the backbone three small parameters train: `alpha` (whole prompt against fragments), `fusion` (the three
    scores' share in overall) and `log_temperature` where `options.temperature` is `learned`.
    """

    gives = DIMENSIONS
    needs_prompt: frozenset[Dimension] = frozenset({"correspondence", "overall"})
    levels: Tensor

    def __init__(self, backbone: Backbone, options: MGSOptions) -> None:
        super().__init__()
        self.backbone = backbone
        self.options = options
        self.sentences: list[str] = sentences(options.templates)
        self.alpha = nn.Parameter(torch.zeros(()))
        self.fusion = nn.Parameter(torch.zeros(3))
        start = 0.0 if isinstance(options.temperature, str) else math.log(options.temperature)
        self.log_temperature = nn.Parameter(torch.tensor(start), requires_grad=options.temperature == "learned")
        self.register_buffer("levels", torch.tensor(LEVELS), persistent=False)

    @property
    def temperature(self) -> Tensor:
        """What similarities are multiplied by before the softmax over level sentences."""
        return (self.backbone.logit_scale if self.options.temperature == "clip" else self.log_temperature).exp()

    def read(self, prompts: Sequence[Prompt]) -> Reading:
        """The level sentences first, then each distinct prompt and fragment once."""
        wholes = [clean_prompt(prompt.text) for prompt in prompts]
        fragments = [split_prompt(prompt.text, prompt.style) for prompt in prompts]
        texts = list(dict.fromkeys([*self.sentences, *wholes, *(f for one in fragments for f in one)]))
        row, most = {text: i for i, text in enumerate(texts)}, max(map(len, fragments))
        numbers = {
            "whole": torch.tensor([row[whole] for whole in wholes]),  # (B,)
            "fragments": torch.tensor([[row[f] for f in one] + [0] * (most - len(one)) for one in fragments]),  # (B, F)
            "counts": torch.tensor([len(one) for one in fragments]),  # (B,), of fragments
        }
        return Reading(texts, numbers)

    def score(self, images: Tensor, texts: Tensor, numbers: Mapping[str, Tensor]) -> Scores:
        """The four scores, on 0-5, never clamped."""
        return self.combine(self.compare(images, texts, numbers))

    def loss(self, scores: Scores, mos: Scores) -> Tensor:
        """The sum of the dimensions' mean squared errors."""
        return squared_error(scores, mos)

    def compare(self, images: Tensor, texts: Tensor, numbers: Mapping[str, Tensor]) -> Similarities:
        """All similarities from which the scores of B images are computed."""
        # Where only the whole image was cut, it takes the patches' place, in both branches.
        whole_image, patches = images[:, 0], images[:, 1:] if images.shape[1] > 1 else images
        level, counts = texts[: len(self.sentences)], numbers["counts"]
        whole_prompt, fragment = texts[numbers["whole"]], texts[numbers["fragments"]]  # (B, D), (B, F, D)
        padding = torch.arange(fragment.shape[1], device=counts.device) >= counts[:, None]
        relevance = (fragment @ whole_prompt[..., None]).squeeze(-1).masked_fill(padding, -torch.inf)
        return Similarities(
            levels_whole=whole_image @ level.T,
            levels_patches=patches @ level.T,
            whole=(whole_image * whole_prompt).sum(-1),
            fragments=fragment @ patches.mT,
            weights=relevance.softmax(-1),
            counts=counts,
        )

    def combine(self, found: Similarities) -> Scores:
        """The four scores that follow from the similarities, in float32."""
        similarity = (found.levels_whole + found.levels_patches.mean(1)) / 2  # (B, 25)
        quality, authenticity = self.read_levels(similarity)
        correspondence = self.correspondence(found)
        three = torch.stack([quality, authenticity, correspondence], -1)  # (B, 3)
        overall = three @ self.fusion.softmax(-1)
        return {
            "quality": quality,
            "authenticity": authenticity,
            "correspondence": correspondence,
            "overall": overall,
        }

    def read_levels(self, similarity: Tensor) -> tuple[Tensor, Tensor]:
        """Quality and authenticity, each (B,), 0-5, of similarities to the level sentences, (B, T)."""
        return read_levels(similarity, self.options.templates, self.temperature, self.levels)

    def correspondence(self, found: Similarities) -> Tensor:
        """How well the images show what their prompts say, (B,), float32.

        It is 5 times a weighted mean of cosines, so from -5 to 5 and never clamped; higher is better.
        """
        nearest = found.fragments.topk(min(TOP_PATCHES, found.fragments.shape[2]), dim=-1).values.mean(-1)  # (B, F)
        parts = (found.weights * nearest).sum(-1)  # f, (B,)
        share = self.whole_share(found.counts)
        return MOS_MAX * (share * found.whole + (1 - share) * parts)

    def whole_share(self, counts: Tensor) -> Tensor:
        """The whole prompt's share in correspondence, (B,), 0-1; the rest is the fragments'.

        Where both count, a prompt of one fragment has share 1, since the fragment is the whole prompt.
        """
        if self.options.correspondence != "both":
            return torch.full_like(counts, float(self.options.correspondence == "whole"), dtype=torch.float32)
        return torch.where(counts > 1, self.alpha.sigmoid(), 1.0)
