"""A prompt cut into fragments: where it is cut depends on the prompt's style, a row of `STYLES`."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

from mgs.prompts import clean_prompt


@dataclass(frozen=True)
class Style:
    """Where prompts of one style are cut: at any of `separators`, and before any of `prepositions`.

    `,` `.` and `:` stand also for the marks that other scripts write in their place.
    """

    separators: str
    prepositions: tuple[str, ...] = ()

    @cached_property
    def cut(self) -> re.Pattern[str]:
        """Matches what a prompt is split at; the match before a preposition is empty, so that the word stays."""
        marks = {
            ",": NOT_IN_NUMBER.format(f"[{COMMAS}]") + f"|[{LISTING}]",
            ":": NOT_IN_NUMBER.format(f"[{COLONS}]"),
            ".": INITIAL + LEADING_POINT + NOT_IN_NUMBER.format(r"\.") + f"|[{STOPS}]",
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

# The same marks in other scripts. Those in `LISTING` and `STOPS` never stand in a number or behind an initial.
COMMAS, COLONS = ",，،", ":："
LISTING = "、､；؛"  # Chinese and Japanese list marks, and semicolons where they part a list: full-width and Arabic
STOPS = "。｡．۔।"  # of Chinese, Japanese, Urdu and Hindi

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


def split_prompt(prompt: str, style: str) -> list[str]:
    """Cut a prompt into its fragments, in order; always at least one, the whole prompt where nothing cuts it."""
    rule = STYLES[style]
    whole = clean_prompt(prompt)
    pieces = [piece for part in rule.cut.split(whole) if (piece := strip_punctuation(part))]
    return join_lone_prepositions(pieces, rule.prepositions) or [whole]


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
