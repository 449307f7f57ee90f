"""What a score is about, on which scale, and how a prompt may be written. Imports nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dimension = Literal["quality", "authenticity", "correspondence", "overall"]
DIMENSIONS: tuple[Dimension, ...] = ("quality", "authenticity", "correspondence", "overall")
MOS_MAX = 5.0  # scores and MOS are on 0-5, higher is better
PROMPT_STYLES = ("keywords", "hybrid", "sentence")


@dataclass(frozen=True)
class Prompt:
    """A text and the style it is written in, one of `PROMPT_STYLES`, which decides where it is cut into fragments."""

    text: str
    style: str = "sentence"
