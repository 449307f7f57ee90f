"""The one file that touches openai-clip: fetch, read and build a CLIP, and turn text into its tokens."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import torch
from torch import Tensor

from mgs.backbones.towers import HEAD_WIDTH
from mgs.backbones.weights import as_tensors, read_weights
from mgs.errors import UserError

MOST_CONTEXT, MOST_PIXELS, MOST_BLOCKS = 1024, 2048, 128  # far above any CLIP
NAMES = ("ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px")  # of what OpenAI published with a vision transformer
DOWNLOADS = Path("~/.cache/clip")  # where openai-clip keeps what it downloads
SCRIPT_CONSTANTS = (
    "input_resolution",
    "context_length",
    "vocab_size",
)  # stored in OpenAI's archives beside the weights
WRAPPERS = ("model_state_dict", "params")  # under which IPCE, LIQE and IQA-PyTorch save weights
MARK = "visual.conv1.weight"  # every CLIP with a vision transformer has it; what stands before it is a prefix
StateDict = dict[str, Tensor]
Clip: TypeAlias = Any  # clip.model.CLIP; the package ships no types


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


def is_resnet(name: str) -> bool:
    """Whether OpenAI published a CLIP of this name without a vision transformer."""
    return name in openai_clip().clip._MODELS and name not in NAMES


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


def read_state_dict(path: Path, source: str) -> StateDict:
    """A CLIP file's tensors by their OpenAI names: TorchScript, `.pt` state dict, `.safetensors`; no code in it runs.

    `source` is what errors call it.
    """
    try:
        content = read_weights(path)
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror or error}); check the file") from None
    except Exception:  # readers of zip, pickle and safetensors each raise errors of their own
        raise UserError(
            f"{source}: not readable as CLIP weights: neither a TorchScript archive, nor a .pt with nothing "
            "but a dict of tensors, nor a .safetensors file; download it again"
        ) from None
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    try:
        state = as_tensors(content)
    except ValueError as error:
        raise UserError(f"{source}: {error}; save the model's state_dict() alone") from None
    found = [key.removesuffix(MARK) for key in state if key.endswith(MARK)]
    prefix = found[0] if len(found) == 1 else ""  # other projects save their CLIP as a part of a model
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return {key: value for key, value in own.items() if key not in SCRIPT_CONSTANTS}


def build_clip(state: StateDict, source: Path | str) -> Clip:
    """An OpenAI CLIP with a vision transformer, in float32, of the architecture that the tensors' shapes give.

    `source` is what errors call it.
    """
    if "visual.layer1.0.conv1.weight" in state:
        raise UserError(f"{source}: a ResNet CLIP; MGS freezes transformer blocks, so it needs a ViT CLIP")
    try:
        width, _, _, patch = state["visual.conv1.weight"].shape
        grid = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
        text_width, embed_dim = state["text_projection"].shape
        blocks = [count_blocks(state, tower) for tower in ("visual.transformer", "transformer")]
        context = len(state["positional_embedding"])
        if context > MOST_CONTEXT or patch * grid > MOST_PIXELS:  # whose masks and pictures would fill the memory
            raise ValueError(f"{context} tokens of text and pictures of {patch * grid} pixels")
        if max(blocks) > MOST_BLOCKS:
            raise ValueError(f"{max(blocks)} blocks")
        if not grid or not all(blocks) or not all(weight.is_floating_point() for weight in state.values()):
            raise ValueError("a tower without positions or blocks, or weights that are not floating point")
        make = functools.partial(
            openai_clip().model.CLIP,
            embed_dim=embed_dim,
            image_resolution=patch * grid,
            vision_layers=blocks[0],
            vision_width=width,
            vision_patch_size=patch,
            context_length=context,
            vocab_size=len(state["token_embedding.weight"]),
            transformer_width=text_width,
            transformer_heads=text_width // HEAD_WIDTH,
            transformer_layers=blocks[1],
        )
        with torch.random.fork_rng(devices=[]):  # the weights it begins with are drawn from the process's generator
            with torch.device("meta"):  # where it takes no memory: tensors without a number in them may have any shape
                make().load_state_dict({name: value.to("meta") for name, value in state.items()})
            clip: Clip = make()
        clip.load_state_dict(state)
    except KeyError as error:
        raise UserError(f"{source}: no tensor {error} in it; expected OpenAI CLIP weights") from None
    except (RuntimeError, ValueError, TypeError, AssertionError, ZeroDivisionError, IndexError) as error:
        problem = " ".join(str(error).split())[:300]
        raise UserError(f"{source}: tensors do not make up an OpenAI CLIP: {problem}") from None
    return clip.float().eval()


def count_blocks(state: Iterable[str], tower: str) -> int:
    """How many residual blocks a tower has, from the tensors' names."""
    return len({m[1] for key in state if (m := re.match(rf"{re.escape(tower)}\.resblocks\.(\d+)\.", key))})


@functools.lru_cache(maxsize=65_536)  # byte-pair encoding is slow, and a prompt comes back every epoch
def token_numbers(text: str, context: int) -> tuple[int, ...]:
    """A text's token numbers, from start to end token, at most `context`; a text cut short keeps its end token."""
    tokenizer = openai_clip().clip._tokenizer
    start, end = tokenizer.encoder["<|startoftext|>"], tokenizer.encoder["<|endoftext|>"]
    return (start, *tokenizer.encode(text)[: context - 2], end)


def is_too_long(text: str, context: int) -> bool:
    """Whether a text has more tokens than fit between the start and end tokens, and so is cut short."""
    return len(openai_clip().clip._tokenizer.encode(text)) > context - 2
