"""What a status says about a prompt, and about the checkpoint. Remarks only; the prompt is scored unchanged."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from mgs.backbones.openai import is_too_long
from mgs.prompts import clean_prompt

GREEK_SIGNS = 2  # up to this many Greek letters are signs in a Latin prompt
GENERATOR_SYNTAX = re.compile(  # commands of Stable Diffusion's programs, NovelAI and Midjourney
    r"[(\[][^()\[\]]*[^\d\s()\[\]]\s*:\s*\d{0,3}(?:\.\d{1,4})?\s*[)\]]|\(\(|\[\[|\{\{|<\w+:[^<>]+>|\bembedding:\S"
    r"|(?:^|\s)--[a-z]+\b|::-?\d|\bBREAK\b"
)


def remark_on_checkpoint(metadata: Mapping[str, Any]) -> str:
    """A remark on a checkpoint whose model knows no real images, by its metadata; "" for others."""
    if metadata["config"]["data"]["dataset"] == "demo":
        return "trained on drawings"
    return "its CLIP knows drawings only" if metadata["backbone"]["name"] == "demo" else ""


def remarks_on_prompt(prompt: str | None, context: int) -> list[str]:
    """Remarks on a prompt for a CLIP that reads `context` tokens; None means that there is no prompt."""
    if prompt is None:
        return ["no prompt, so nothing to correspond to"]
    found = {
        "prompt longer than CLIP reads, cut": is_too_long(clean_prompt(prompt), context),
        "prompt not in Latin letters: CLIP reads it poorly": has_other_letters(prompt),
        "prompt holds generator syntax, which moves correspondence": has_generator_syntax(prompt),
    }
    return [remark for remark, applies in found.items() if applies]


def has_other_letters(text: str) -> bool:
    """Whether a text has letters that are not Latin, such as Chinese, Arabic or Cyrillic ones.

    Styled and full-width Latin letters count as Latin; a few Greek ones are signs (µm, π).
    """
    names = (unicodedata.name(c, "") for c in unicodedata.normalize("NFKC", text) if c.isalpha())
    others = [name for name in names if not name.startswith(("LATIN", "MODIFIER"))]
    return len(others) > GREEK_SIGNS or not all(name.startswith("GREEK") for name in others)


def has_generator_syntax(text: str) -> bool:
    """Whether a text holds what image generators read as commands, such as weights and parameters."""
    return bool(GENERATOR_SYNTAX.search(text))
