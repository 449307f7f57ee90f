"""The sentences that stand for levels of quality and authenticity: one place makes the 5x5 grid and reads it back."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

QUALITY_WORDS = ("bad", "poor", "fair", "good", "perfect")
AUTHENTICITY_WORDS = ("unrealistic", "slightly unrealistic", "fairly realistic", "realistic", "highly realistic")
LEVELS = (0.0, 1.25, 2.5, 3.75, 5.0)  # the MOS that each word stands for, worst first
QUALITY_AXIS, AUTHENTICITY_AXIS = -2, -1  # of the joint probability (..., quality, authenticity)

Templates = Literal["joint", "separate", "swapped"]


def sentences(templates: Templates) -> list[str]:
    """The level sentences in the order that `read_levels` expects.

    `joint`: 25, the quality word changing slowest. `separate`: 5 on quality, then 5 on authenticity. `swapped`: the
    joint ones, for weights of the original project, which read quality off the authenticity words' axis.
    """
    if templates != "separate":
        return [f"A photo of {q} quality that appears {r}." for q in QUALITY_WORDS for r in AUTHENTICITY_WORDS]
    return [f"A photo of {q} quality." for q in QUALITY_WORDS] + [
        f"A photo that appears {r}." for r in AUTHENTICITY_WORDS
    ]


def joint_probability(similarity: Tensor, temperature: Tensor) -> Tensor:
    """Similarities to the 25 joint sentences, (B, 25), as one probability over (B, quality, authenticity)."""
    probability = (temperature * similarity).softmax(-1)
    return probability.unflatten(-1, (len(QUALITY_WORDS), len(AUTHENTICITY_WORDS)))  # (B, 5, 5)


def read_levels(similarity: Tensor, templates: Templates, temperature: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Similarities to the sentences, (B, 25) or (B, 10), as expected quality and authenticity, each (B,), 0-5.

    `levels` are `LEVELS` on the similarities' device.
    """
    if templates != "separate":
        joint = joint_probability(similarity, temperature)
        quality, authenticity = joint.sum(AUTHENTICITY_AXIS), joint.sum(QUALITY_AXIS)  # marginals, (B, 5) each
        if templates == "swapped":
            quality, authenticity = authenticity, quality
    else:
        halves = (temperature * similarity).unflatten(-1, (2, len(LEVELS))).softmax(-1)  # (B, 2, 5)
        quality, authenticity = halves.unbind(1)
    return quality @ levels, authenticity @ levels
