"""A prompt cut into fragments: where it is cut depends on the prompt's style, a row of `STYLES`."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Prompt:
    """A text and the style it is written in: `keywords`, `hybrid` or `sentence`."""

    text: str
    style: str = "sentence"


@dataclass(frozen=True)
class Style:
    """Where prompts of one style are cut: at any of `separators`, and before any of `prepositions`."""

    separators: str
    prepositions: tuple[str, ...] = ()

    @cached_property
    def cut(self) -> re.Pattern[str]:
        """Matches what a prompt is split at; the match before a preposition is empty, so that the word stays."""
        marks = {
            ",": NOT_IN_NUMBER.format(","),
            ":": NOT_IN_NUMBER.format(":"),
            ".": INITIAL + LEADING_POINT + NOT_IN_NUMBER.format(r"\."),
        }
        parts = [marks[mark] for mark in self.separators]
        if self.prepositions:
            longest_first = sorted(self.prepositions, key=len, reverse=True)
            words = "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in longest_first)
            parts.append(rf"{WORD_START}(?=(?:{words}){WORD_END})")
        return re.compile("|".join(parts), re.IGNORECASE)


# A word with a hyphen ("head-on") or an apostrophe inside is one word; a quotation mark at its end is not part of it.
WORD_START, WORD_END = r"(?<![\w-])(?<!\w['’])", r"(?![\w-]|['’]\w)"
NOT_IN_NUMBER = r"(?:(?<!\d){0}|{0}(?!\d))"  # "4.5mm", "3,000" and "16:9" stay whole
INITIAL = r"(?<!\b[^\W\d_])"  # "J.R.R." stays whole
LEADING_POINT = r"(?!(?<!\w)\.\d)"  # so does ".5"

STYLES = {
    "keywords": Style(","),
    "hybrid": Style(
        ",:",
        ("in", "of", "on", "at", "from", "by", "with", "for", "across", "inside", "near", "between", "as", "to"),
    ),
    "sentence": Style(
        ",.",
        (
            *("in", "of", "on", "at", "from", "with", "for", "across", "through", "against", "over", "above", "behind"),
            *("next to", "under", "into", "onto", "without"),
        ),
    ),
}

QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`"}


def split_prompt(prompt: str, style: str) -> list[str]:
    """Cut a prompt into its fragments, in order; always at least one, the whole prompt where nothing cuts it."""
    rule = STYLES[style]
    whole = clean_prompt(prompt)
    pieces = [piece for part in rule.cut.split(whole) if (piece := strip_punctuation(part))]
    return join_lone_prepositions(pieces, rule.prepositions) or [whole]


def clean_prompt(prompt: str) -> str:
    """A prompt with white space folded and without the quotation marks wrapped around it."""
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


def strip_punctuation(text: str) -> str:
    """The text without white space and punctuation at its ends."""
    ends = [i for i, character in enumerate(text) if not (character.isspace() or is_punctuation(character))]
    return text[ends[0] : ends[-1] + 1] if ends else ""


def is_punctuation(character: str) -> bool:
    """Unicode's own word for it, in any script; symbols such as + and $ are not."""
    return unicodedata.category(character).startswith("P")


def join_lone_prepositions(pieces: list[str], prepositions: tuple[str, ...]) -> list[str]:
    """Join a fragment that is only a preposition to the next one, or to the one before where it is the last."""
    joined: list[str] = []
    waiting = ""
    for piece in pieces:
        if not waiting and " ".join(piece.casefold().split()) in prepositions:
            waiting = piece
        else:
            joined.append(f"{waiting} {piece}".strip())
            waiting = ""
    if waiting:
        joined[-1:] = [" ".join([*joined[-1:], waiting])]
    return joined
