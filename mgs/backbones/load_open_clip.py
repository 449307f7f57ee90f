"""Load a CLIP through the open_clip package: one of its list, of the Hugging Face hub, or of a folder in its form."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import logging
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import nn

from mgs.backbones.architecture import Architecture
from mgs.backbones.backbone import Backbone
from mgs.backbones.build import build_clip
from mgs.backbones.local import make_backbone, sha256_of
from mgs.backbones.open_clip import NAMED, PUBLISHED, OpenCLIPBackbone
from mgs.backbones.open_clip_config import NotPlain, read_description
from mgs.errors import UserError

INSTALL = "pip install 'open_clip_torch>=3.3' transformers"
REMEDY = "check the name, the network, and python -c 'import open_clip; print(open_clip.list_pretrained())'"


def load_open_clip(name: str, source: str) -> Backbone:
    """A CLIP from open_clip's own list, the Hugging Face hub, or a folder in open_clip's form, in float32.

    Where the lean towers compute the same, they do. Errors call it `source`. Raises `UserError`.
    """
    open_clip = open_clip_package(source)
    model, _, tag = name.removeprefix(NAMED).partition("/") if name.startswith(NAMED) else (name, "", None)
    try:
        with quiet(), torch.random.fork_rng(devices=[]):  # the weights it begins with are drawn before they are read
            config = copy.deepcopy(open_clip.get_model_config(model))
            options = options_for(open_clip, model, tag, config, source)
            clip = open_clip.create_model(model, tag, precision="fp32", require_pretrained=True, **options).eval()
            pixels = open_clip.get_model_preprocess_cfg(clip)
            tokenizer = open_clip.get_tokenizer(model)
            if hasattr(getattr(tokenizer, "tokenizer", None), "padding_side"):
                tokenizer.tokenizer.padding_side = "right"  # as in training, whatever newer versions begin with
    except UserError:
        raise
    except Exception as error:  # of the network, the hub, the name, the files; they have no common base
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{source}: not to be had from open_clip ({type(error).__name__}: {reason}); {REMEDY}"
        ) from None
    sha256 = hash_of(clip)
    try:
        if type(clip) is open_clip.CLIP:
            config["quick_gelu"] = config.get("quick_gelu", False) or options.get("force_quick_gelu", False)
            with contextlib.suppress(NotPlain):
                architecture, _ = read_description({"model_cfg": config, "preprocess_cfg": pixels})
                return as_lean(clip, name, sha256, source, architecture)
        return OpenCLIPBackbone(clip, tokenizer, name, sha256, pixels)
    except (ValueError, TypeError, LookupError, AssertionError) as error:  # LookupError: a context without places
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{source}: {reason}; check its open_clip_config.json") from None


def as_lean(clip: nn.Module, name: str, sha256: str, source: str, architecture: Architecture) -> Backbone:
    """A model of open_clip's plain class on our towers."""
    tensors = {key: value for key, value in clip.state_dict().items() if key != "logit_bias"}
    tensors["logit_scale"] = tensors["logit_scale"].reshape(())
    backbone = make_backbone(
        build_clip(tensors, source, architecture), name, sha256_of(sha256, architecture), architecture
    )
    backbone.published = name.startswith(PUBLISHED)
    return backbone


def open_clip_package(source: str) -> ModuleType:
    """The open_clip package; its absence is a `UserError`."""
    try:
        import open_clip
    except ImportError as error:
        raise UserError(f"{source}: needs open_clip ({error}): run {INSTALL}") from None
    return open_clip


def options_for(open_clip: Any, model: str, tag: str | None, config: Any, source: str) -> dict[str, Any]:
    """What open_clip must be told besides; a `UserError` for what it has not, or would get wrong."""
    if tag is None:
        if mentions(config, "trust_remote_code"):
            raise UserError(f"{source}: wants code of its own to be run, which is never done; choose another model")
        return {}
    if config is None:
        raise UserError(f"{source}: open_clip has no model {model}; {REMEDY}")
    pretrained = open_clip.get_pretrained_cfg(model, tag)
    if not pretrained:
        tags = ", ".join(f"{NAMED}{model}/{one}" for one in open_clip.list_pretrained_tags_by_model(model))
        raise UserError(f"{source}: open_clip has no such weights; it has {tags or f'none for {model}'}")
    quick = bool(pretrained.get("quick_gelu", False))
    if config.get("quick_gelu", False) and not quick:  # open_clip would only warn
        raise UserError(f"{source}: these weights are not for QuickGELU; name the model without -quickgelu")
    return {"force_quick_gelu": True} if quick else {}


def mentions(content: Any, key: str) -> bool:
    """Whether a key occurs anywhere in nested mappings and lists."""
    if isinstance(content, dict):
        return key in content or any(mentions(value, key) for value in content.values())
    return isinstance(content, list) and any(mentions(value, key) for value in content)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep open_clip's log and warnings to itself; what matters of them is an error of ours."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def hash_of(module: nn.Module) -> str:
    """A hash of a module's weights by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
