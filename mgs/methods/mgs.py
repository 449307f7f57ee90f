"""MGS itself: one CLIP, two branches, four scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mgs.backbones.freezing import constant_blocks, freeze
from mgs.backbones.openai import Clip, is_too_long
from mgs.backbones.texts import TextEncoder
from mgs.backbones.towers import RunBlock, finish_views, run_block, start_views
from mgs.config import ModelConfig
from mgs.dimensions import MOS_MAX, Prompt
from mgs.methods.fragments import split_prompt
from mgs.methods.templates import read_levels, sentences
from mgs.prompts import clean_prompt

TOP_PATCHES = 3  # a fragment is scored on the patches that show it best


@dataclass
class Scores:
    """Predictions for B images, each (B,), on MOS's 0-5 scale, higher is better, never clamped."""

    quality: Tensor
    authenticity: Tensor
    correspondence: Tensor
    overall: Tensor


@dataclass
class Similarities:
    """Cosines between B images, P patches each, and the texts that they are compared with; float32."""

    levels_whole: Tensor  # (B, T), the whole image with the T level sentences
    levels_patches: Tensor  # (B, P, T)
    whole: Tensor  # (B,), the whole image with the whole prompt
    fragments: Tensor  # (B, F, P), fragments with patches; the first `counts` of F are real, the rest padding
    weights: Tensor  # (B, F), each fragment's share; 0 for padding
    counts: Tensor  # (B,)


class MGS(nn.Module):
    """Scores views and prompts with a CLIP that is fine-tuned in place.

    `clip` is an OpenAI CLIP; what `config` freezes in it stops requiring gradients here. Besides the CLIP three small
    parameters train: `alpha` (whole prompt against fragments), `fusion` (the three scores' share in overall) and
    `log_temperature` where `config.temperature` is `learned`.
    """

    def __init__(self, clip: Clip, config: ModelConfig) -> None:
        super().__init__()
        self.clip = clip
        self.config = config
        self.sentences = sentences(config.templates)
        self.alpha = nn.Parameter(torch.zeros(()))
        self.fusion = nn.Parameter(torch.zeros(3))
        start = 0.0 if isinstance(config.temperature, str) else math.log(config.temperature)
        self.log_temperature = nn.Parameter(torch.tensor(start), requires_grad=config.temperature == "learned")
        freeze(clip, config.frozen_blocks, stem=config.freeze_stem)
        self.run_block: RunBlock = run_block  # what carries an image through a block; it may be compiled
        self.constant = constant_blocks(clip.visual.transformer, config)
        self.encode_texts = TextEncoder(clip, constant_blocks(clip.transformer, config))

    @property
    def temperature(self) -> Tensor:
        """What similarities are multiplied by before the softmax over level sentences."""
        return (self.clip.logit_scale if self.config.temperature == "clip" else self.log_temperature).exp()

    def train(self, mode: bool = True) -> MGS:
        """Switch between training and evaluation; either way, kept text embeddings are dropped."""
        self.encode_texts.embeddings.forget()
        return super().train(mode)

    def forward(self, views: Tensor, prompts: Sequence[Prompt]) -> Scores:
        """Score B images: `views` is (B, V, 3, S, S) as `make_views` cuts them, view 0 the whole image; B prompts."""
        return self.score_halfway(self.start(views), prompts)

    def start(self, views: Tensor) -> Tensor:
        """Views, (B, V, 3, S, S), after the image tower's constant part, (B, V, L, W).

        Where the stem trains, nothing is constant: this is then the stem's output, with its gradients.
        """
        return start_views(self.clip, views if self.config.patches else views[:, :1], self.constant, run=self.run_block)

    def score_halfway(self, halfway: Tensor, prompts: Sequence[Prompt]) -> Scores:
        """Score B images from what `start` made of their views, (B, V, L, W), and B prompts."""
        found = self.compare(halfway, prompts)
        with torch.autocast(halfway.device.type, enabled=False):
            return self.combine(found)

    def compare(self, halfway: Tensor, prompts: Sequence[Prompt]) -> Similarities:
        """All similarities from which the scores of B images are computed; the encoders finish here."""
        wholes = [clean_prompt(prompt.text) for prompt in prompts]
        fragments = [split_prompt(prompt.text, prompt.style) for prompt in prompts]
        texts = list(dict.fromkeys([*self.sentences, *wholes, *(f for one in fragments for f in one)]))  # each once
        row = {text: i for i, text in enumerate(texts)}

        images = finish_views(self.clip, halfway, self.constant, run=self.run_block)  # (B, V, D)
        embeddings = self.encode_texts(texts)
        # Without patches the whole image takes their place, in both branches.
        whole_image, patches = images[:, 0], images[:, 1:] if self.config.patches else images

        with torch.autocast(halfway.device.type, enabled=False):  # similarities and scores in float32
            level = embeddings[[row[sentence] for sentence in self.sentences]]
            whole_prompt = embeddings[[row[whole] for whole in wholes]]  # (B, D)
            counts = torch.tensor([len(one) for one in fragments], device=halfway.device)
            most = max(map(len, fragments))
            padded = torch.tensor([[row[f] for f in one] + [0] * (most - len(one)) for one in fragments])  # (B, F)
            padding = torch.arange(most, device=counts.device) >= counts[:, None]
            fragment = embeddings[padded]  # (B, F, D)
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
        quality, authenticity = read_levels(similarity, self.config.templates, self.temperature)
        correspondence = self.correspondence(found)
        three = torch.stack([quality, authenticity, correspondence], -1)  # (B, 3)
        return Scores(quality, authenticity, correspondence, three @ self.fusion.softmax(-1))

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
        if self.config.correspondence != "both":
            return torch.full_like(counts, float(self.config.correspondence == "whole"), dtype=torch.float32)
        return torch.where(counts > 1, self.alpha.sigmoid(), 1.0)


def find_truncated(prompts: Sequence[Prompt], context: int) -> list[str]:
    """The distinct prompts that are longer than a CLIP's `context` and are cut, with their end token kept."""
    return [text for text in sorted({clean_prompt(prompt.text) for prompt in prompts}) if is_too_long(text, context)]
