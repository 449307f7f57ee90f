"""Take out of a prompt what image generators read as commands: weights, models, parameters. The words stay."""

from __future__ import annotations

import re

# What no prose has. A prompt with one of these is written for Stable Diffusion's programs, which read every bracket.
SIGNS = re.compile(
    r"[^\d\s()\[\]]\s?:\s?\d{0,3}(?:\.\d{1,4})?\s?[)\]]"  # (fox:1.2)
    r"|:\d{0,3}\.\d{1,4}\s?[)\]]"
    r"|\(\(|\[\[|\{\{|\\[()\[\]]"  # ((fox)), fox \(animal\)
    r"|\[[^\[\]\"\n]{1,400}\]|\{[^{}\"\n]{1,400}\}"  # [fox], {fox}
    r"|<\w+(?:\[[^\[\]<>]*\])?:[^<>]+>|<break>"  # <lora:fox:0.8>
    r"|\bembedding:\S|(?<!\S)BREAK(?![^\s,])|__\w[\w/*-]*__"
)
MIDJOURNEY = re.compile(
    r"(?:^|\s)(?:--|—)(?:ar|aspect|bs|c|chaos|cref|cw|draft|end|exp|fast|hd|iw|loop|motion|niji|no|oref|ow|p|personalize"
    r"|profile|public|q|quality|r|raw|relax|repeat|s|sameseed|seed|sref|stealth|stop|style|stylize|sv|sw|test|testp"
    r"|tile|turbo|upbeta|uplight|v|version|video|vibe|w|weird)(?![\w-])[\s\S]*"
)
IMAGE_URLS = re.compile(r"\A\s*(?:<?https?://\S+\s+)+")
PART_WEIGHT = re.compile(r"(?<=\w)::-?\d{0,3}(?:\.\d{1,4})?(?=[\s,]|\Z)")  # Midjourney's
SPAN_WEIGHT = re.compile(r"(?<![\w.])-?\d{1,3}(?:\.\d{1,4})?::([^:]*)(?:::|\Z)")  # NovelAI's
AND = re.compile(r"(?::\d{0,3}(?:\.\d{1,4})?)?\sAND\s(?![A-Z]{2})")  # of parts; in capital letters it is a word
CAPITALS = re.compile(r"[A-Z]{2}\sAND\s\Z")
TAGS = re.compile(r"<\w+(?:\[[^\[\]<>]*\])?:[^<>]+>|<(?:break|trigger|base|refiner|video)>")
NESTED_TAGS = 8  # innermost first
WITHOUT_TRACE = re.compile(
    r"\bembedding:[^\s,()\[\]:]+(?::\d{0,3}(?:\.\d{1,4})?)?"
    r"|__\w[\w/*-]*?__|\{[^{}|\"]*\|[^{}\"]*\}"  # wildcards and choices: nobody knows what they gave
)
BREAK = re.compile(r"(?<!\S)BREAK(?![^\s,])")
TOKENS = re.compile(
    r"\\[()\[\]{}\\]"  # an escaped bracket is text
    r"|(?:(?<!\d):\s?\d{1,3}(?:\.\d{0,4})?|:\s?\d{0,3}\.\d{1,4})\s?(?=[)\]])"  # a weight, or a schedule's step
    r"|[()\[\]{}:|]"
)
CLOSES = {")": "(", "]": "[", "}": "{"}


def clean_generator_syntax(prompt: str) -> str:
    """A prompt as an image-text model shall read it; one without generators' commands comes back as it is.

    Brackets of a prompt that has none of `SIGNS`, such as "a man (smiling)", are prose, and stay.
    """
    text = IMAGE_URLS.sub("", MIDJOURNEY.sub("", prompt))
    text = PART_WEIGHT.sub(",", SPAN_WEIGHT.sub(r"\1,", text))
    text = AND.sub(lambda found: found[0] if is_word(found) else ", ", text)
    if SIGNS.search(text):
        for _ in range(NESTED_TAGS):
            text, count = TAGS.subn(" ", text)
            if not count:
                break
        text = BREAK.sub(",", WITHOUT_TRACE.sub(" ", text))
        text = drop_brackets(text)
    return prompt if text == prompt else squeeze(text)


def is_word(found: re.Match[str]) -> bool:
    """Whether an AND stands behind a word in capital letters."""
    return bool(CAPITALS.search(found.string, max(found.start() - 2, 0), found.end()))


def drop_brackets(text: str) -> str:
    """The text without its pairs of brackets and their weights; what an escape guards stays, and so does half a pair.

    The alternatives in square brackets, [cat:dog:0.5] and [cat|dog], all stay: the image may show any of them.
    """
    tokens = list(TOKENS.finditer(text))
    dropped, opened = set(), list[int]()
    inside: dict[int, list[int]] = {}  # opening token -> the separators directly in it
    for i, token in enumerate(tokens):
        mark = token[0]
        if mark in "([{":
            opened.append(i)
        elif mark in CLOSES and opened and tokens[opened[-1]][0] == CLOSES[mark]:
            first = opened.pop()
            dropped |= {first, i, *(inside.pop(first, []) if mark == "]" else [])}
        elif opened and mark[0] in ":|":
            (dropped.add(i) if len(mark) > 1 else inside.setdefault(opened[-1], []).append(i))
    parts, end = [], 0
    for i, token in enumerate(tokens):
        kept = token[0][1] if token[0][0] == "\\" else token[0]
        gap = " " if token[0] in (":", "|") else ""
        parts += [text[end : token.start()], gap if i in dropped else kept]
        end = token.end()
    return "".join([*parts, text[end:]])


def squeeze(text: str) -> str:
    """The text with single spaces, and without the commas that now part nothing."""
    text = re.sub(r" ?,(?: ?,)*", ",", " ".join(text.split()))
    return re.sub(r" ([.;!?])(?= |\Z)", r"\1", text).strip(" ,")
