"""MGS computed the obvious way, with gradients: what the speed of the package is measured against.

Each branch encodes all views. The prompt and fragments of each image are encoded separately. Every text takes 77
tokens, and the level sentences are encoded again at every step. A `Way` says which of this work is saved, so that the
savings can be switched on one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from mgs.backbones.clip import CLIPBackbone
from mgs.backbones.openai import openai_clip, token_numbers
from mgs.backbones.packing import PackedTexts
from mgs.dimensions import Prompt
from mgs.methods.fragments import split_prompt
from mgs.methods.method import Scores
from mgs.methods.templates import sentences
from mgs.prompts import clean_prompt

Clip: TypeAlias = Any  # clip.model.CLIP; the package ships no types
CONTEXT = 77
LEVELS = torch.tensor([0.0, 1.25, 2.5, 3.75, 5.0])


def openai_module(state: Mapping[str, Tensor]) -> Clip:
    """openai-clip's own module, in float32, of weights with its names and a vision transformer's."""
    width, _, _, patch = state["visual.conv1.weight"].shape
    grid = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
    text_width, embed = state["text_projection"].shape
    layers = [
        len({name.split(".resblocks.")[1].split(".")[0] for name in state if name.startswith(f"{tower}.resblocks.")})
        for tower in ("visual.transformer", "transformer")
    ]
    text = len(state["positional_embedding"]), len(state["token_embedding.weight"]), text_width, text_width // 64
    with torch.random.fork_rng(devices=[]):  # the weights it begins with are drawn from the process's generator
        clip = openai_clip().model.CLIP(embed, patch * grid, layers[0], width, patch, *text, layers[1])
    clip.load_state_dict(state)
    return clip.float().eval()


def plain_views(clip: Clip, views: Tensor) -> Tensor:
    """Views, (N, 3, S, S), as unit embeddings, (N, D), by openai-clip's own tower."""
    return nn.functional.normalize(clip.encode_image(views).float(), dim=-1)


def plain_texts(clip: Clip, texts: Sequence[str]) -> Tensor:
    """Texts as unit embeddings, (N, D), by openai-clip's own tower, each padded to 77 tokens."""
    rows = torch.zeros(len(texts), CONTEXT, dtype=torch.long)
    for row, text in zip(rows, texts, strict=True):
        numbers = token_numbers(text, CONTEXT)
        row[: len(numbers)] = torch.tensor(numbers)
    return nn.functional.normalize(clip.encode_text(rows.to(clip.logit_scale.device)).float(), dim=-1)


def short_texts(clip: Clip, texts: Sequence[str]) -> Tensor:
    """The same embeddings by the package's encoder: each text ends at its end token."""
    packed = PackedTexts.of([token_numbers(text, CONTEXT) for text in texts])
    device = clip.logit_scale.device
    packed = packed.with_tensors({name: tensor.to(device) for name, tensor in packed.tensors().items()})
    return CLIPBackbone(clip, "plain").embed_texts(packed)


def lean_views(clip: Clip, views: Tensor) -> Tensor:
    """The same embeddings by the package's encoder: one token through the last block, fewer passes, less stored."""
    backbone = CLIPBackbone(clip, "plain")
    return backbone.finish_images(backbone.start_images(views))


@dataclass(frozen=True)
class Way:
    """Which of the savings are on."""

    views_once: bool = False
    texts_once: bool = False
    encode_texts: Callable[[Clip, Sequence[str]], Tensor] = plain_texts
    encode_views: Callable[[Clip, Tensor], Tensor] = plain_views


class Plain(nn.Module):
    """Drives like `mgs.methods.mgs.MGS`: (B, V, 3, S, S) views and B prompts to `Scores`, at the paper's settings."""

    def __init__(self, clip: Clip, alpha: nn.Parameter, way: Way | None = None) -> None:
        super().__init__()
        self.clip, self.alpha, self.way = clip, alpha, way or Way()

    def forward(self, views: Tensor, prompts: Sequence[Prompt]) -> Scores:
        wholes = [clean_prompt(prompt.text) for prompt in prompts]
        fragments = [split_prompt(prompt.text, prompt.style) for prompt in prompts]
        known: dict[str, Tensor] = {}
        if self.way.texts_once:
            distinct = list(dict.fromkeys([*sentences("joint"), *wholes, *(f for one in fragments for f in one)]))
            known = dict(zip(distinct, self.way.encode_texts(self.clip, distinct), strict=True))

        def embed(texts: Sequence[str]) -> Tensor:
            return torch.stack([known[t] for t in texts]) if known else self.way.encode_texts(self.clip, texts)

        images = self.embed_views(views)  # (B, V, D)
        with torch.autocast(views.device.type, enabled=False):
            quality, authenticity = self.read_levels(images, embed(sentences("joint")))
        images = images if self.way.views_once else self.embed_views(views)
        correspondence = torch.stack(
            [self.correspond(images[i], embed([wholes[i]]), embed(fragments[i])) for i in range(len(prompts))]
        )
        overall = (quality + authenticity + correspondence) / 3
        return {
            "quality": quality,
            "authenticity": authenticity,
            "correspondence": correspondence,
            "overall": overall,
        }

    def embed_views(self, views: Tensor) -> Tensor:
        """(B, V, 3, S, S) to (B, V, D)."""
        return self.way.encode_views(self.clip, views.flatten(0, 1)).unflatten(0, views.shape[:2])

    def read_levels(self, images: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Quality and authenticity from (B, V, D) views and the 25 sentences."""
        similarity = images @ level.T  # (B, V, 25)
        similarity = (similarity[:, 0] + similarity[:, 1:].mean(1)) / 2
        joint = similarity.softmax(-1).reshape(-1, 5, 5)  # (B, quality, authenticity)
        levels = LEVELS.to(joint.device)
        return joint.sum(2) @ levels, joint.sum(1) @ levels

    def correspond(self, image: Tensor, whole: Tensor, fragments: Tensor) -> Tensor:
        """One image's correspondence from its (V, D) views, its whole prompt and its fragments, (F, D)."""
        with torch.autocast(image.device.type, enabled=False):
            whole_score = image[0] @ whole[0]
            if len(fragments) == 1:
                return 5 * whole_score
            shown = (fragments @ image[1:].T).topk(3, dim=1).values.mean(1)
            fragment_score = (fragments @ whole[0]).softmax(0) @ shown
            share = self.alpha.sigmoid()
            return 5 * (share * whole_score + (1 - share) * fragment_score)
