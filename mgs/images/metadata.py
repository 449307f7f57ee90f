"""Find the prompt that an image generator left in its file; nothing of what is found is obeyed, run or fetched."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from mgs.images.comfyui import Graph
from mgs.images.text_fields import read_fields

Fields: TypeAlias = "Mapping[str, str]"  # of `read_fields`
Found: TypeAlias = "tuple[Any, Any] | None"  # prompt and negative prompt, of any type where the file is odd
MAX_PROMPT = 1 << 17  # characters, as in tables; a longer text is no prompt
NEGATIVE = re.compile(r"^Negative prompt:", re.MULTILINE)
SETTING = re.compile(r'(\w[\w \-/]{0,60}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
SETTINGS = 3  # of them make a last line one of settings
GRAPH = re.compile(r"\s*(?:prompt|workflow)\s*:\s*(?=\{)", re.IGNORECASE)  # before a graph in EXIF
BROKEN = re.compile(r'\{\s*"|\[\s*\{\s*"')  # JSON that does not end, where it is no object
JOB = re.compile(r"Job ID:[\s\w-]*\Z")
DREAM = re.compile(r'\s*"((?:\\.|[^\\"])*)"\s+-\w')
BRACKETED = re.compile(r"\[([^\[\]]*)\]")
PROMPT_KEYS = ("prompt", "Prompt", "positive_prompt", "PositivePrompt", "Positive prompt")
NEGATIVE_KEYS = ("negative_prompt", "negativePrompt", "Negative Prompt", "NegativePrompt", "Negative", "negative")
JSON_FIELDS = ("parameters", "parameters-json", "generation_data", "Comment", "exif:UserComment", "smproj", "comment")
DESCRIPTIONS = ("Description", "exif:ImageDescription", "xmp:description")


@dataclass(frozen=True)
class Metadata:
    """A prompt as it was found, the negative one ("" where there is none), and the row of `READERS` that knew it."""

    prompt: str
    negative: str
    tool: str


def read_metadata(file: Path | bytes) -> Metadata | None:
    """The prompt in an image file, or in its content; None where there is none, also for what cannot be read."""
    fields = read_fields(file)
    return find_prompt(fields) if fields else None


def find_prompt(fields: Fields) -> Metadata | None:
    """The prompt among a file's texts, by the first reader that finds one."""
    try:
        for tool, reader in READERS.items():
            prompt, negative = map(as_text, reader(fields) or ("", ""))
            if prompt and len(prompt) <= MAX_PROMPT:
                return Metadata(prompt, negative[:MAX_PROMPT], tool)
        return None
    finally:
        parse.cache_clear()


def as_text(value: Any) -> str:
    """A text without what is no character, such as half of one; "" for anything else."""
    if not isinstance(value, str):
        return ""
    return value.encode("utf-8", "replace").decode().replace("\0", "").replace("\r\n", "\n").strip()


@functools.lru_cache(maxsize=16)  # several readers look into a text; `find_prompt` forgets them
def parse(text: str | None) -> dict[str, Any]:
    """A text's JSON object; empty for other texts."""
    if not text or not text.startswith("{"):
        return {}
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def at(content: Any, *path: str) -> Any:
    """What lies in objects in objects; None if there is no such place."""
    for key in path:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def read_swarm(fields: Fields) -> Found:
    """SwarmUI's JSON."""
    for name in ("parameters", "exif:UserComment", "exif:Model"):
        if found := at(parse(fields.get(name)), "sui_image_params"):
            return at(found, "prompt"), at(found, "negativeprompt")
    return None


def read_fooocus(fields: Fields) -> Found:
    """Fooocus's JSON; its other form is AUTOMATIC1111's."""
    for name in ("parameters", "exif:UserComment", "Comment"):
        content = parse(fields.get(name))
        if "base_model" in content or "full_prompt" in content or "Base Model" in content:
            return first(content, PROMPT_KEYS), first(content, NEGATIVE_KEYS)
    return None


def read_invoke(fields: Fields) -> Found:
    """InvokeAI's JSON, of versions 2 and 3, and the command line of before."""
    if content := parse(fields.get("invokeai_metadata")):
        return at(content, "positive_prompt"), at(content, "negative_prompt")
    if text := at(parse(fields.get("sd-metadata")), "image", "prompt"):
        parts = [as_text(at(part, "prompt")) for part in text] if isinstance(text, list) else [as_text(text)]
        return split_bracketed(", ".join(filter(None, parts)))
    dream = DREAM.match(fields.get("Dream", ""))
    return split_bracketed(dream[1]) if dream else None


def split_bracketed(text: str) -> tuple[str, str]:
    """A prompt, and what it has in square brackets, which was InvokeAI's negative prompt."""
    return " ".join(BRACKETED.sub(" ", text).split()), ", ".join(BRACKETED.findall(text))


def read_novelai(fields: Fields) -> Found:
    """NovelAI's JSON, in WebP within another one; version 4 has a text of its own for each character."""
    outer = parse(fields.get("exif:UserComment"))
    inner = at(outer, "Comment")
    content = parse(inner if isinstance(inner, str) else fields.get("Comment"))
    if "NovelAI" not in fields.get("Software", fields.get("exif:Software", "")) and "uc" not in content:
        return None
    sides = []
    for side, plain in (("v4_prompt", "prompt"), ("v4_negative_prompt", "uc")):
        caption = at(content, side, "caption")
        characters = at(caption, "char_captions")
        parts = [at(one, "char_caption") for one in characters] if isinstance(characters, list) else []
        texts = [as_text(text) for text in [at(caption, "base_caption"), *parts]]
        sides.append(", ".join(filter(None, texts)) or at(content, plain))
    return sides[0] or fields.get("Description") or fields.get("exif:ImageDescription"), sides[1]


def read_draw_things(fields: Fields) -> Found:
    """Draw Things' JSON in XMP."""
    content = parse(fields.get("xmp:UserComment"))
    return (content.get("c"), content.get("uc")) if "c" in content else None


def read_parameters(fields: Fields) -> Found:
    """The text of AUTOMATIC1111's program and of those made from it: prompt, negative prompt, settings.

    In EXIF, where any comment may stand, it must have one of the two latter.
    """
    text = fields.get("parameters")
    if text and not parse(text):
        prompt, negative, known = split_parameters(text)
        return (prompt, negative) if known or not BROKEN.match(text) else None
    for name in ("exif:UserComment", "comment", "xmp:description"):
        text = fields.get(name, "")
        prompt, negative, known = split_parameters(text)
        if known and not parse(text):
            return prompt, negative
    return None


def split_parameters(text: str) -> tuple[str, str, bool]:
    """A prompt and its negative one from AUTOMATIC1111's form of text, and whether it has that form."""
    body, _, last = text.rstrip().rpartition("\n")
    has_settings = len(SETTING.findall(last)) >= SETTINGS
    body = body if has_settings else text
    negative = NEGATIVE.search(body)
    if not negative:
        return body, "", has_settings
    return body[: negative.start()], body[negative.end() :], True


def read_comfyui(fields: Fields) -> Found:
    """ComfyUI's graphs: what was run, else what was edited; in WebP within EXIF, and by the name of any tag."""
    exif = [text[start.end() :] for text in fields.values() if (start := GRAPH.match(text))]
    texts = [fields.get("prompt", ""), fields.get("workflow", ""), *sorted(exif, key=lambda text: '"nodes"' in text)]
    comment = parse(fields.get("exif:UserComment"))
    contents = [*map(parse, texts), comment.get("prompt"), comment.get("workflow"), comment]
    graphs = (Graph(content) for content in contents if content and isinstance(content, dict))
    return next((found for graph in graphs if (found := graph.prompts())), None)


def read_midjourney(fields: Fields) -> Found:
    """Midjourney's description; its parameters are a part of the prompt."""
    for name in DESCRIPTIONS:
        if JOB.search(text := fields.get(name, "")):
            return JOB.sub("", text), ""
    return None


def read_prompt_field(fields: Fields) -> Found:
    """A text called prompt, or in JSON: Easy Diffusion, RuinedFooocus, TensorArt, mflux, and scripts for diffusers."""
    plain = {name: text for name, text in fields.items() if not parse(text) and not BROKEN.match(text)}
    contents = [plain, *(parse(fields.get(name)) for name in JSON_FIELDS)]
    return next(
        ((text, first(content, NEGATIVE_KEYS)) for content in contents if (text := first(content, PROMPT_KEYS))), None
    )


def first(content: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    """The first text that one of the keys has."""
    return next((text for key in keys if (text := as_text(content.get(key)))), "")


def read_description(fields: Fields) -> Found:
    """A description of several words; not a camera's, which names its maker and describes no picture."""
    if "exif:Make" in fields:
        return None
    texts = (fields.get(name, "") for name in DESCRIPTIONS)
    return next(((text, "") for text in texts if " " in text and not parse(text)), None)


READERS: dict[str, Callable[[Fields], Found]] = {  # in this order: the first ones know their own files
    "SwarmUI": read_swarm,
    "Fooocus": read_fooocus,
    "InvokeAI": read_invoke,
    "NovelAI": read_novelai,
    "Draw Things": read_draw_things,
    "AUTOMATIC1111": read_parameters,
    "ComfyUI": read_comfyui,
    "Midjourney": read_midjourney,
    "prompt field": read_prompt_field,
    "image description": read_description,
}
