"""What makes two prompts the same prompt: for the model, for folds and for the audit alike."""

from __future__ import annotations

import re

QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`"}


def clean_prompt(prompt: str) -> str:
    """A prompt as the model reads it: white space folded, and without the quotation marks wrapped around it."""
    text = " ".join(prompt.split())
    while len(text) > 1 and QUOTES.get(text[0]) == text[-1] and not closes_early(text):
        text = text[1:-1].strip()
    return text


def closes_early(text: str) -> bool:
    """Whether the opening quotation mark ends before the text does, as in `"one" and "two"`."""
    opening, closing = text[0], QUOTES[text[0]]
    inner = text[1:-1]
    marks = f"[{re.escape(opening + closing)}]"
    first = re.search(rf"(?<!\w){marks}|{marks}(?!\w)", inner)  # an apostrophe has letters on both sides
    if first is None:
        return False
    if opening != closing:
        return first[0] == closing
    return first.start() > 0 and not inner[first.start() - 1].isspace()  # a straight mark opens after white space


def prompt_key(prompt: str) -> str:
    """Equal for prompts that the model reads alike: CLIP's tokenizer does not see case."""
    return clean_prompt(prompt).casefold()
