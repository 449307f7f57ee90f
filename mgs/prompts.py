"""What makes two prompts the same prompt: for the model, for folds and for the audit alike."""

from __future__ import annotations

import html
import re

import ftfy
import regex

WORD = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")  # what CLIP's tokenizer takes as one
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
    """Equal for exactly the prompts that the model reads alike.

    CLIP's tokenizer repairs the text's Unicode, resolves HTML's entities, does not see case, and reads words, single
    digits and runs of other characters, however white space parts them.
    """
    text = clean_prompt(prompt)
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(WORD.findall(text.lower()))
