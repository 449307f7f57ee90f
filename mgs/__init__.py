"""MGS: quality, authenticity and text-image correspondence of AI-generated images, scored with a fine-tuned CLIP."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["Reward", "Scorer", "__version__"]


def __getattr__(name: str) -> Any:
    """`from mgs import Scorer, Reward`, without loading torch for those who only ask the version."""
    if name == "Scorer":
        from mgs.scoring.scorer import Scorer

        return Scorer
    if name == "Reward":
        from mgs.scoring.reward import Reward

        return Reward
    raise AttributeError(f"module 'mgs' has no attribute {name!r}")
