"""Explanations as the server tells them."""

from __future__ import annotations

from typing import Any

from mgs.methods.templates import AUTHENTICITY_WORDS, QUALITY_WORDS
from mgs.scoring.explanation import Explanation


def why(it: Explanation) -> dict[str, Any]:
    """An explanation, as `schemas.Explanation` has it."""
    return {
        "size": list(it.pixels.shape[1:]),
        "boxes": [list(box) for box in it.boxes],
        "joint": it.joint,
        "quality_words": list(QUALITY_WORDS),
        "authenticity_words": list(AUTHENTICITY_WORDS),
        "patch_quality": it.patch_quality,
        "patch_authenticity": it.patch_authenticity,
        "whole": it.whole,
        "whole_share": it.whole_share,
        "correspondence": it.correspondence,
        "fragments": [
            {"text": f.text, "weight": f.weight, "score": f.score, "patches": f.patches, "counted": f.counted}
            for f in it.fragments
        ],
    }
