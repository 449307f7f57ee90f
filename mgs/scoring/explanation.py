"""Why an image gets its scores: the parts that they are made of, which add up to them exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor

from mgs.dimensions import DIMENSIONS, MOS_MAX, Dimension, Prompt
from mgs.engine.engine import Engine
from mgs.errors import UserError
from mgs.images.cuts import window_corners
from mgs.machine import exact_products
from mgs.methods.fragments import split_prompt
from mgs.methods.method import Method
from mgs.methods.mgs import MGS, TOP_PATCHES, Similarities
from mgs.methods.templates import joint_probability
from mgs.prompts import clean_prompt
from mgs.scoring.score import Score
from mgs.scoring.score_maps import Box, ScoreMaps, map_scores

PARTS = DIMENSIONS[:3]  # of overall


@dataclass(frozen=True)
class Fragment:
    """One fragment of the prompt, as the image shows it."""

    text: str
    weight: float  # its share among the fragments, 0-1; all of them sum to 1
    cosine: float  # with the patches that show it best, on average
    patches: list[float]  # its cosine with every patch
    counted: list[int]  # those patches that it was scored on, from 0

    @property
    def score(self) -> float:
        """Its cosine on MOS's scale."""
        return MOS_MAX * self.cosine


@dataclass(frozen=True)
class Explanation:
    """An image's scores and what they are made of. Patches are numbered from 0, row by row.

    - quality and authenticity are the expected levels of `joint`'s two marginals;
    - correspondence = whole_share * whole + (1 - whole_share) * the fragments' scores, weighted;
    - overall is these three, weighted by `shares`.

    The three are there whether `score` has them or not: a model gives what it was trained on; see `told`.
    """

    score: Score
    prompt: str
    pixels: Tensor  # uint8 (3, H, W), as the views were cut from it
    boxes: list[tuple[int, int, int]]  # each patch's (top, left, side) on it; without patches the whole image is one
    quality: float
    authenticity: float
    shares: list[float]  # of quality, authenticity and correspondence in overall; they sum to 1
    joint: list[list[float]] | None  # probability by quality word (rows) and authenticity word; None if separate
    patch_quality: list[float]  # the quality score if all patches were like this one
    patch_authenticity: list[float]
    whole: float  # the whole prompt against the whole image, on MOS's scale
    whole_share: float  # 0-1
    fragments: list[Fragment]
    level_cosines: Tensor  # (1 + P, T), with the level sentences: the whole image's and, where any are cut, patches'
    maps: ScoreMaps | None  # None where the image tower shows no tokens: a ResNet, or open_clip's own code

    @property
    def told(self) -> list[Dimension]:
        """Those of quality, authenticity and correspondence that are scored; all three where overall is."""
        return [d for d in PARTS if self.score.overall is not None or getattr(self.score, d) is not None]

    @property
    def told_levels(self) -> list[Dimension]:
        """Those of `told` that sentences on levels give."""
        return [d for d in self.told if d != "correspondence"]

    @property
    def told_fragments(self) -> list[Fragment]:
        """The prompt's fragments; none where no score is made of them."""
        return self.fragments if "correspondence" in self.told else []

    @property
    def correspondence(self) -> float:
        """From the whole prompt and the fragments."""
        parts = sum(fragment.weight * fragment.score for fragment in self.fragments)
        return self.whole_share * self.whole + (1 - self.whole_share) * parts


@torch.inference_mode()
def explain_picture(
    engine: Engine, pixels: Tensor, prompt: Prompt | None, word: Callable[[dict[str, float]], Score]
) -> Explanation:
    """Explain the scores of a picture, uint8 (3, H, W), which `word` turns into a `Score`; without a prompt in part.

    Raises `UserError` for a method that has no explanation.
    """
    method = engine.method
    if not can_explain(method):
        raise UserError("explain: only scores of the method mgs can be explained so far")
    batch = engine.stage([pixels], [prompt or Prompt("")])
    batch.sent.arrive()
    embedded, last = engine.embed_with_tokens(batch.parts[0])
    with exact_products:
        found = method.compare(*embedded)
    scores = {name: value.item() for name, value in method.combine(found).items()}
    templates = method.options.templates
    together = (found.levels_whole + found.levels_patches.mean(1)) / 2  # (1, T)
    alone = (found.levels_whole[:, None] + found.levels_patches)[0] / 2  # (P, T)
    quality, authenticity = method.read_levels(alone)
    if templates != "separate":
        grid = joint_probability(together, method.temperature)[0]  # (quality, authenticity)
        grid = grid.T if templates == "swapped" else grid
    boxes = [(top, left, engine.cuts.side) for top, left in window_corners(pixels.shape, engine.cuts)]
    height, width = pixels.shape[1:]
    views = [Box(0, 0, height, width), *(Box(top, left, side, side) for top, left, side in boxes)]
    return Explanation(
        score=word(scores),
        prompt=clean_prompt(prompt.text if prompt else ""),
        pixels=pixels.cpu(),
        boxes=boxes or [(0, 0, max(pixels.shape))],
        quality=scores["quality"],
        authenticity=scores["authenticity"],
        shares=method.fusion.softmax(-1).tolist(),
        joint=None if templates == "separate" else grid.tolist(),
        patch_quality=quality.tolist(),
        patch_authenticity=authenticity.tolist(),
        whole=MOS_MAX * found.whole.item(),
        whole_share=method.whole_share(found.counts).item(),
        fragments=describe_fragments(found, prompt) if prompt else [],
        level_cosines=torch.cat([found.levels_whole, found.levels_patches[0, : len(boxes)]]).cpu(),
        maps=map_scores(last, embedded, method, views, (height, width), prompted=bool(prompt)) if last else None,
    )


def can_explain(method: Method) -> TypeGuard[MGS]:
    """Whether scores of a method can be explained."""
    return isinstance(method, MGS)


def describe_fragments(found: Similarities, prompt: Prompt) -> list[Fragment]:
    """The prompt's fragments with their cosines, in order."""
    texts = split_prompt(prompt.text, prompt.style)
    patches = found.fragments[0]  # (F, P)
    top = patches.topk(min(TOP_PATCHES, patches.shape[1]), dim=-1)
    return [
        Fragment(
            text=text,
            weight=found.weights[0, i].item(),
            cosine=top.values[i].mean().item(),
            patches=patches[i].tolist(),
            counted=sorted(top.indices[i].tolist()),
        )
        for i, text in enumerate(texts)
    ]
