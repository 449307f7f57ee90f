"""`BACKBONES`: the CLIPs that can be asked for by name; every other name is a file of weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mgs.backbones.backbone import Backbone
from mgs.backbones.clip import load_demo, load_file, load_published
from mgs.backbones.openai import NAMES, is_resnet
from mgs.errors import UserError


@dataclass(frozen=True)
class BackboneFacts:
    """One backbone's row of the table."""

    load: Callable[[str, str, str], Backbone]  # of its name, what errors call it, and the remedy that they end in
    published: bool = False  # anyone can fetch the same weights by this name


BACKBONES = {
    **{name: BackboneFacts(load_published, published=True) for name in NAMES},
    "demo": BackboneFacts(load_demo),
}


def load_backbone(name: str, *, option: str | None = "model.clip") -> Backbone:
    """A backbone from a name of `BACKBONES`, or from a local file, in float32.

    A file is an OpenAI JIT archive, a state dict `.pt` or `.safetensors`; the tensors' shapes give the architecture. A
    published one is downloaded once and its SHA-256 checked. Raises `UserError` where nothing usable is found; only a
    published one that is not on disk yet touches the network. `option` is what errors call the setting that holds the
    name, None where nobody can set it.
    """
    source = f"{option}={name}" if option else name
    if name in BACKBONES:
        remedy = f", or set {option} to a local file or to demo" if option else ""
        backbone = BACKBONES[name].load(name, source, remedy)
        backbone.published = BACKBONES[name].published
        return backbone
    if is_resnet(name):
        raise UserError(f"{source}: a ResNet CLIP; MGS freezes transformer blocks, so it needs a ViT CLIP")
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(
            f"{source}: no such file, and not a name that is known; "
            f"give a path to CLIP weights, or one of {', '.join(BACKBONES)}"
        )
    return load_file(path, source, name=name)


def is_published(name: str) -> bool:
    """Whether anyone can fetch a backbone of this name."""
    return name in BACKBONES and BACKBONES[name].published
