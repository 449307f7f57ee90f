"""MGS as a reward: what those who train image generators by reinforcement learning call with a batch of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mgs.errors import UserError
from mgs.images.forms import Images, as_batch, as_prompt, as_prompts
from mgs.scoring.mix import Mix, as_share, choose_mix
from mgs.scoring.score import raise_bad
from mgs.scoring.scorer import Scorer


class Reward:
    """A function from images and prompts to one number each, higher is better.

    `weights` mix the dimensions, as in `{"quality": 0.5, "correspondence": 0.5}`; by default all that the scorer gives
    count alike. The number is their weighted mean, on 0-1: MOS's 0-5 divided by five, never clamped, so that a bare
    CLIP may leave that range. With `standardize`, each dimension is first brought to mean 0 and standard deviation 1
    within the call's images, so that a weight means the same for a dimension that varies little.

    No gradients are kept, and the images are not changed. Any number of threads may call it. Raises `UserError` for
    weights that the scorer does not give.
    """

    def __init__(
        self,
        scorer: Scorer | str | Path,
        weights: Mapping[str, float] | None = None,
        *,
        standardize: bool = False,
        on_bad: Literal["raise", "nan"] = "raise",
    ) -> None:
        """`scorer` may be a checkpoint, a fold's or a run's folder. `on_bad` is for images that cannot be scored."""
        self.scorer = scorer if isinstance(scorer, Scorer) else Scorer.load(scorer)
        self.mix, self.on_bad = mix_for(self.scorer, weights, standardize=standardize), on_bad
        if on_bad not in ("raise", "nan"):
            raise UserError(f"on_bad={on_bad!r}: say raise, or nan")

    def __call__(
        self, images: Images, prompts: Sequence[str | None] | None = None, metadata: Any = None
    ) -> list[float]:
        """A reward for each image, in order; `metadata`, which trainers pass along, is not read.

        Images are a list of Pillow images, arrays, tensors, files or files' contents; or a batch, uint8 or floats on
        0-1, (N, C, H, W) or (N, H, W, C), on any device. There is one prompt for each. Raises `ValueError` for another
        number of prompts, for a missing one that a dimension needs, and for an image that cannot be scored, unless
        `on_bad` is nan: then its reward is NaN.
        """
        return self.mix.total(self.score(images, prompts))

    def score(self, images: Images, prompts: Sequence[str | None] | None = None) -> dict[str, list[float]]:
        """Each weighted dimension's scores on 0-1, of images and prompts as in a call; not standardized."""
        batch = as_batch(images)
        texts = [as_prompt(prompt) for prompt in as_prompts(prompts, len(batch))]
        self.mix.refuse_missing(texts, self.scorer.model.needs_prompt)
        scores = list(self.scorer.score_stream(zip(batch, texts, strict=True)))
        if self.on_bad == "raise":
            raise_bad(scores)
        return {name: [as_share(getattr(score, name)) for score in scores] for name in self.mix.weights}


def mix_for(scorer: Scorer, weights: Mapping[str, float] | None = None, *, standardize: bool = False) -> Mix:
    """A mix of dimensions that the scorer gives, by default all of them alike. Raises `UserError` for others."""
    return choose_mix(weights, scorer.scored, scorer.name, standardize=standardize)
