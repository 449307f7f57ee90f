"""Scores in words: statuses with remarks on image, prompt and checkpoint, and the names of levels."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from mgs.dimensions import DIMENSIONS, Prompt
from mgs.methods.method import Method, find_truncated
from mgs.methods.templates import AUTHENTICITY_WORDS, LEVELS, QUALITY_WORDS
from mgs.safe_text import one_line, printable
from mgs.scoring.score import OK, Score, failure
from mgs.scoring.streaming import Scored
from mgs.sources.item import Item

UNTRAINED = "zero-shot, never trained on MOS"
GREEK_SIGNS = 2  # up to this many Greek letters are signs in a Latin prompt
GENERATOR_SYNTAX = re.compile(  # commands of Stable Diffusion's programs, NovelAI and Midjourney
    r"[(\[][^()\[\]]*[^\d\s()\[\]]\s*:\s*\d{0,3}(?:\.\d{1,4})?\s*[)\]]|\(\(|\[\[|\{\{|<\w+:[^<>]+>|\bembedding:\S"
    r"|(?:^|\s)--[a-z]+\b|::-?\d|\bBREAK\b"
)


LEVEL_WORDS = {  # what the five levels are called, worst first
    "quality": QUALITY_WORDS,
    "authenticity": AUTHENTICITY_WORDS,
    "correspondence": ("not shown", "hardly shown", "partly shown", "mostly shown", "fully shown"),
    "overall": QUALITY_WORDS,
}


def describe(found: Scored, method: Method, scored: Sequence[str], remarks: str) -> Score:
    """An image's score with its remarks; `scored` are the dimensions to tell, `remarks` what is said of every image."""
    if not found.read:
        return failure(found.remark)
    if found.found is None:
        return failure("out of memory for a single image; use a smaller image, or another device")
    told = {
        dimension: value
        for dimension, value in found.found.items()
        if dimension in scored and (found.prompt is not None or dimension not in method.needs_prompt)
    }
    if not told:
        return failure(f"no prompt, and {', '.join(scored)} cannot be judged without one; give a prompt")
    if wrong := [dimension for dimension, value in told.items() if not math.isfinite(value)]:
        return failure(f"{', '.join(wrong)} not finite; score with precision=fp32, or use another checkpoint")
    said = "; ".join(filter(None, [found.remark, *remarks_on_prompt(found.prompt, method), remarks]))
    labels = {name: words[int(found.found[name])] for name, words in method.labels.items()}
    return Score(**{d: told.get(d) for d in DIMENSIONS}, status=f"{OK}: {said}" if said else OK, labels=labels)


def show_score(item: Item, score: Score, scored_by: str) -> str:
    """One image's scores for people to read: a line per score, with the word that stands for that level."""
    lines = [f"{'image':<16}{printable(item.image)}", f"{'prompt':<16}{printable(one_line(item.prompt or '-'))}"]
    if item.origin and item.text != item.prompt:
        lines.append(f"{'prompt read':<16}{printable(one_line(item.text or '-'))}")
    score = told_origin(item, score)
    for dimension in DIMENSIONS:
        value = getattr(score, dimension)
        if value is not None:
            lines.append(f"{dimension:<16}{value:.2f}  {level_word(dimension, value)}")
    lines += [f"{name:<16}{word}" for name, word in score.labels.items()]
    return "\n".join([*lines, f"{'status':<16}{score.status}", f"{'scored by':<16}{printable(scored_by)}"])


def told_origin(item: Item, score: Score) -> Score:
    """The score with a remark on where the prompt is from."""
    return score.with_remark(f"prompt from {item.origin.place}") if item.origin else score


def level_word(dimension: str, value: float) -> str:
    """What the level nearest to a score is called."""
    return LEVEL_WORDS[dimension][min(range(len(LEVELS)), key=lambda i: abs(LEVELS[i] - value))]


def remark_on_checkpoint(metadata: Mapping[str, Any]) -> str:
    """A remark on a checkpoint whose model knows no real images, by its metadata; "" for others."""
    if not metadata["config"].get("train", {}).get("epochs", 1):
        return "not trained on MOS here"
    if metadata["config"]["data"]["dataset"] == "demo":
        return "trained on drawings"
    return "its CLIP knows drawings only" if metadata["backbone"]["name"] == "demo" else ""


def remarks_on_prompt(prompt: str | None, method: Method) -> list[str]:
    """Remarks on a prompt, which is scored unchanged; None means that there is no prompt.

    None for a method that does not read it.
    """
    if not method.needs_prompt:
        return []
    if prompt is None:
        return ["no prompt, so nothing to correspond to"]
    found = {
        "prompt longer than CLIP reads, cut": bool(find_truncated(method, [Prompt(prompt)])),
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
