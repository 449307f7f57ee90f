"""A CLIP from a file or folder of this machine: whose it is, what stands beside it, and what it leaves open."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from mgs.backbones import huggingface, open_clip_config
from mgs.backbones.architecture import OPENAI, Activation, Architecture, Tower
from mgs.backbones.build import RESNET, build_clip
from mgs.backbones.clip import CLIPBackbone
from mgs.backbones.resnet import ResNetBackbone
from mgs.backbones.skeleton import Clip
from mgs.backbones.state import StateDict, Weights, read_file, read_json, weights_sha256
from mgs.backbones.text import TextBackbone
from mgs.errors import UserError

IN_FOLDERS = (  # the weights that a folder may hold, those that are taken first in front
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104}  # of open_clip's widest image towers, H/14, g/14 and bigG/14, by width
# How state dicts of their modules list the parts of a block. What was saved from a .safetensors has neither order.
OPENAIS_ORDER = ["attn.in_proj_weight", "ln_1.weight", "mlp.c_fc.weight", "ln_2.weight"]
OPEN_CLIPS_ORDER = ["ln_1.weight", "attn.in_proj_weight", "ln_2.weight", "mlp.c_fc.weight"]
WHICH = "gelu for most of open_clip's, quick_gelu for OpenAI's, DFN's and MetaCLIP's first"
UNNAMED = {"logit_bias"}  # of sigmoid losses, which no cosine has a use for


@dataclass(frozen=True)
class Facts:
    """What is known of a file's CLIP besides its tensors, and where from."""

    architecture: Architecture
    sizes: Mapping[str, Any]
    source: Path | None = None


def load_local(path: Path, source: str, *, name: str, activation: Activation | None = None) -> TextBackbone:
    """A CLIP from a file, or from a folder with weights and their JSON, in OpenAI's or Hugging Face's names.

    `activation` is what the user says of it, which counts more than what the files say. Errors call the file `source`.
    Raises `UserError`, also where a file may be of several kinds that would give different embeddings.
    """
    path = find_weights(path, source) if path.is_dir() else path
    weights = read_file(path, source)
    if huggingface.MARK in weights.tensors:
        facts = describe_huggingface(path, weights.tensors, source, activation)
        tensors = renamed(weights.tensors, source)
    else:
        tensors = with_plain_names(weights.tensors)
        facts = describe_openai(path, weights, tensors, source, activation)
    architecture = facts.architecture.with_activation(activation) if activation else facts.architecture
    clip = build_clip(tensors, source, architecture)
    try:
        open_clip_config.refuse_other_sizes(facts.sizes, clip)
    except ValueError as error:
        raise UserError(f"{facts.source}: {error}; put the file beside it that it is about") from None
    return make_backbone(clip, name, sha256_of(weights_sha256(path), architecture), architecture)


def load_openai(path: Path, source: str, *, name: str) -> TextBackbone:
    """A CLIP from a file that is known to be OpenAI's, or built like them. Raises `UserError`."""
    clip = build_clip(with_plain_names(read_file(path, source).tensors), source)
    return make_backbone(clip, name, weights_sha256(path))


def make_backbone(clip: Clip, name: str, sha256: str, architecture: Architecture = OPENAI) -> TextBackbone:
    """A backbone of either kind of image tower."""
    kind = ResNetBackbone if hasattr(clip.visual, "attnpool") else CLIPBackbone
    return kind(clip, name, sha256, architecture)


def sha256_of(sha256: str, architecture: Architecture) -> str:
    """A hash of all that decides embeddings: the file's own, if the rest is OpenAI's, or of both."""
    if architecture == OPENAI:
        return sha256
    return hashlib.sha256(f"{sha256} {architecture}".encode()).hexdigest()


def find_weights(folder: Path, source: str) -> Path:
    """The weights in a folder."""
    for name in IN_FOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{source}: no weights in this folder; it must hold one of {', '.join(IN_FOLDERS)}")


def describe_openai(
    path: Path, weights: Weights, tensors: StateDict, source: str, activation: Activation | None
) -> Facts:
    """What is known of a file with OpenAI's names. `tensors` are its, under these names."""
    parts = [f"transformer.resblocks.0.{part}" for part in OPENAIS_ORDER]
    if not tensors.keys() >= set(parts):  # no CLIP; building it will say what is missing
        return Facts(OPENAI, {})
    beside = path.with_name(open_clip_config.CONFIG)
    if beside.is_file() and not weights.script:
        content = read_json(beside)
        try:
            with as_user_error(beside):
                return Facts(*open_clip_config.read_description(content), beside)
        except open_clip_config.NotPlain as error:
            problem = f"{error}: is what the towers here do not compute"
            raise UserError(f"{beside}: {problem}; say local-dir:{path.parent}, which needs open_clip") from None
    if activation:
        return Facts(guess(tensors), {})
    remedy = f"put its {open_clip_config.CONFIG} beside it, or say model.activation: {WHICH}"
    width = len(tensors.get("visual.class_embedding", ()))
    if width in HEAD_WIDTHS and RESNET not in tensors:
        remedy = f"say model.activation: {WHICH}" if weights.script else remedy
        raise UserError(f"{source}: an image tower of width {width}, which OpenAI has none of; {remedy}")
    if weights.script:
        return Facts(OPENAI, {})
    order = [name.split(".", 3)[-1] for name in tensors if name in parts] if weights.in_order else []
    if order == OPEN_CLIPS_ORDER or path.name.startswith("open_clip_"):
        raise UserError(f"{source}: saved by open_clip, so its activation is not known; {remedy}")
    if order != OPENAIS_ORDER:
        say_once(f"{source}: does not say its activation, read as OpenAI's, quick_gelu; if it is not, {remedy}")
    return Facts(OPENAI, {})


def describe_huggingface(path: Path, tensors: StateDict, source: str, activation: Activation | None) -> Facts:
    """What is known of a file with Hugging Face's names."""
    config, pixels = path.with_name(huggingface.CONFIG), path.with_name(huggingface.PIXELS)
    content = read_json(config) if config.is_file() else {}
    if not huggingface.is_silent(content):
        about = read_json(pixels) if pixels.is_file() else {}
        with as_user_error(config):
            architecture, sizes = huggingface.read_description(content)
        with as_user_error(pixels):
            return Facts(huggingface.with_pixels(architecture, about), sizes, config)
    if activation:
        return Facts(guess(renamed(tensors, source)), {})
    remedy = f"put its whole {huggingface.CONFIG} beside it, or say model.activation: {WHICH}"
    raise UserError(f"{source}: from Hugging Face, and does not say its activation; {remedy}")


@contextlib.contextmanager
def as_user_error(file: Path) -> Iterator[None]:
    """What a JSON file says and no CLIP here has, as a `UserError`; `NotPlain` stays what it is."""
    try:
        yield
    except open_clip_config.NotPlain:
        raise
    except ValueError as error:
        problem = " ".join(str(error).split())[:200]
        raise UserError(f"{file}: {problem}; choose another model, or correct what was changed in the file") from None


def guess(tensors: Mapping[str, Tensor]) -> Architecture:
    """What is likely of a CLIP of these sizes."""
    width = len(tensors.get("visual.class_embedding", ()))
    return Architecture(image=Tower(head_width=HEAD_WIDTHS.get(width, 64)))


def renamed(tensors: StateDict, source: str) -> StateDict:
    """Tensors of Hugging Face's by OpenAI's names."""
    try:
        return huggingface.with_openai_names(tensors)
    except KeyError as error:
        raise UserError(f"{source}: no tensor {error} in it; expected Hugging Face's CLIPModel") from None
    except (ValueError, RuntimeError) as error:
        problem = " ".join(str(error).split())[:300]
        raise UserError(f"{source}: not a CLIPModel of Hugging Face's: {problem}") from None


def with_plain_names(tensors: StateDict) -> StateDict:
    """Tensors with open_clip's other forms of OpenAI's names undone."""
    own = {name: value for name, value in tensors.items() if name not in UNNAMED}
    if "text.token_embedding.weight" in own and "token_embedding.weight" not in own:  # its custom text models
        own = {name.removeprefix("text."): value for name, value in own.items()}
    if "logit_scale" in own and own["logit_scale"].numel() == 1:
        own["logit_scale"] = own["logit_scale"].reshape(())
    return own


@functools.cache
def say_once(text: str) -> None:
    """Tell the user, once in this process."""
    tqdm.write(text, file=sys.stderr)
