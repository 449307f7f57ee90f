"""The one file that touches openai-clip: fetch a CLIP's file, and turn text into its tokens."""

from __future__ import annotations

import functools
import warnings
from http.client import HTTPException
from pathlib import Path
from types import ModuleType

from mgs.errors import UserError

NAMES = ("ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px")  # of what OpenAI published with a vision transformer
RESNETS = ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64")  # and with a ResNet
DOWNLOADS = Path("~/.cache/clip")  # where openai-clip keeps what it downloads


@functools.cache
def openai_clip() -> ModuleType:
    """The openai-clip package; its absence, or another package called clip in its place, is a `UserError`."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
            import clip
    except ModuleNotFoundError as error:
        if error.name == "pkg_resources":
            raise UserError("openai-clip needs pkg_resources: run pip install 'setuptools<81'") from None
        raise UserError(f"openai-clip: {error}: run pip install openai-clip==1.0.1 'setuptools<81'") from None
    if not hasattr(clip, "tokenize"):
        raise UserError(
            f"{clip.__file__}: the installed package called clip is not OpenAI's: "
            "run pip uninstall clip, then pip install openai-clip==1.0.1"
        )
    return clip


def published_sha256() -> dict[str, str]:
    """File name -> SHA-256, of all that openai-clip can download; its addresses hold the hash."""
    return {url.split("/")[-1]: url.split("/")[-2] for url in openai_clip().clip._MODELS.values()}


def download(name: str, source: str, remedy: str) -> Path:
    """The local file of an OpenAI model, fetched by openai-clip where it is not there yet.

    Errors call it `source`, and end in `remedy`, what one can do besides.
    """
    folder, url = DOWNLOADS.expanduser(), openai_clip().clip._MODELS[name]
    try:
        return Path(openai_clip().clip._download(url, str(folder)))
    except (OSError, HTTPException, RuntimeError, TypeError) as error:  # TypeError: the server stated no length
        raise UserError(
            f"{source}: weights not on disk and not downloadable ({error}); download {url} "
            f"to {folder / Path(url).name} by other means{remedy}"
        ) from None


@functools.lru_cache(maxsize=65_536)  # byte-pair encoding is slow, and a prompt comes back every epoch
def token_numbers(text: str, context: int) -> tuple[int, ...]:
    """A text's token numbers, from start to end token, at most `context`; a text cut short keeps its end token."""
    tokenizer = openai_clip().clip._tokenizer
    start, end = tokenizer.encoder["<|startoftext|>"], tokenizer.encoder["<|endoftext|>"]
    return (start, *tokenizer.encode(text)[: context - 2], end)


def is_too_long(text: str, context: int) -> bool:
    """Whether a text has more tokens than fit between the start and end tokens, and so is cut short."""
    return len(openai_clip().clip._tokenizer.encode(text)) > context - 2
