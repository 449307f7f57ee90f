"""Drawings to try the server with; they are drawn when it starts, so that nothing needs to be shipped or fetched."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mgs.demo.drawing import draw
from mgs.demo.generators import GENERATORS, make_mistakes, sample_damage
from mgs.demo.prompts import sample_content, write_prompt

COUNT, SEED, JPEG_QUALITY = 6, 3, 92
MISTAKES = (0.0, 0.0, 0.0, 0.5, 0.5, 0.5)  # shares of each prompt's parts that are drawn wrong


@dataclass(frozen=True)
class Example:
    """A drawing, as a JPEG file, and its prompt."""

    name: str
    prompt: str
    data: bytes


def draw_examples() -> list[Example]:
    """Drawings by different pretend generators, the same ones each time."""
    rng = np.random.default_rng(SEED)
    examples = []
    for generator, share in zip(list(GENERATORS)[:COUNT], MISTAKES, strict=True):
        content = sample_content(rng, "test")
        pixels = draw(make_mistakes(content, share, rng), sample_damage(GENERATORS[generator], rng), rng).pixels
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY)
        examples.append(Example(f"{generator}.jpg", write_prompt(content, "sentence"), stream.getvalue()))
    return examples
