"""Explanations as the server tells them."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

from mgs.methods.templates import AUTHENTICITY_WORDS, QUALITY_WORDS
from mgs.scoring.explanation import PARTS, Explanation
from mgs.scoring.score_maps import ScoreMap

LONGEST = 64  # pixels of a map's longer side: enough for what tokens tell, and a few kilobytes
MOST_MAPS = 64  # of fragments; a prompt of thousands would make an answer of megabytes


def why(it: Explanation) -> dict[str, Any]:
    """An explanation, as `schemas.Explanation` has it."""
    maps = it.maps
    return {
        "size": list(it.pixels.shape[1:]),
        "boxes": [list(box) for box in it.boxes],
        "joint": it.joint,
        "quality_words": list(QUALITY_WORDS),
        "authenticity_words": list(AUTHENTICITY_WORDS),
        "quality": it.quality,
        "authenticity": it.authenticity,
        "shares": dict(zip(PARTS, it.shares, strict=True)),
        "patch_quality": it.patch_quality,
        "patch_authenticity": it.patch_authenticity,
        "whole": it.whole,
        "whole_share": it.whole_share,
        "correspondence": it.correspondence,
        "fragments": [
            {"text": f.text, "weight": f.weight, "score": f.score, "patches": f.patches, "counted": f.counted}
            for f in it.fragments
        ],
        "maps": maps
        and {
            "quality": show_map(maps.quality, signed=True),
            "authenticity": show_map(maps.authenticity, signed=True),
            "whole": maps.whole and show_map(maps.whole),
            "fragments": [show_map(one) for one in maps.fragments[:MOST_MAPS]],
        },
    }


def show_map(one: ScoreMap, *, signed: bool = False) -> dict[str, Any]:
    """A map, as `schemas.Map` has it; of a signed one, 0 is in the middle of the grey levels."""
    found = one.merge(LONGEST)
    low, high = found.min().item(), found.max().item()
    if signed:
        low, high = -max(-low, high), max(-low, high)
    grey = ((found - low) / ((high - low) or 1.0) * 255).round().clamp(0, 255).byte()
    buffer = io.BytesIO()
    Image.fromarray(grey.numpy()).save(buffer, "PNG")
    return {"png": base64.b64encode(buffer.getvalue()).decode(), "low": low, "high": high}
