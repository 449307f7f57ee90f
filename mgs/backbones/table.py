"""`BACKBONES`: the CLIPs that can be asked for by name; every other name is a file or folder of weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mgs.backbones.architecture import Activation
from mgs.backbones.backbone import Backbone
from mgs.backbones.load_open_clip import load_open_clip
from mgs.backbones.local import load_local, load_openai
from mgs.backbones.open_clip import FOLDER, HUB, NAMED, PUBLISHED
from mgs.backbones.openai import NAMES, RESNETS, download
from mgs.errors import UserError

DEMO_CLIP = "demo_clip.safetensors"


@dataclass(frozen=True)
class BackboneFacts:
    """One backbone's row of the table."""

    load: Callable[[str, str, str], Backbone]  # of its name, what errors call it, and the remedy that they end in
    published: bool = False  # anyone can fetch the same weights by this name


def load_published(name: str, source: str, remedy: str) -> Backbone:
    """One of OpenAI's CLIPs, downloaded once. Errors call it `source`, and end in `remedy`. Raises `UserError`."""
    return load_openai(download(name, source, remedy), source, name=name)


def load_demo(name: str, source: str, remedy: str) -> Backbone:
    """The CLIP that ships with the package, which knows drawings alone."""
    path = Path(str(resources.files("mgs") / "assets" / DEMO_CLIP))
    return load_openai(path, source, name=name)


BACKBONES = {
    **{name: BackboneFacts(load_published, published=True) for name in (*NAMES, *RESNETS)},
    "demo": BackboneFacts(load_demo),
}


def load_backbone(name: str, *, option: str | None = "model.clip", activation: Activation | None = None) -> Backbone:
    """A backbone from a name of `BACKBONES`, or from a local file or folder, in float32.

    docs/backbones.md lists the kinds; the tensors' shapes give the architecture. `activation` says what a file may
    leave open. Only what is published and not on disk yet touches the network. `option` is what errors call the
    setting that holds the name, None where nobody can set it. Raises `UserError` where nothing usable is found.
    """
    source = f"{option}={name}" if option else name
    if name in BACKBONES:
        if activation:
            raise UserError(f"{source}: its activation is known; leave model.activation={activation} out")
        remedy = f", or set {option} to a local file or to demo" if option else ""
        backbone = BACKBONES[name].load(name, source, remedy)
        backbone.published = BACKBONES[name].published
        return backbone
    if name.startswith((NAMED, HUB, FOLDER)):
        if activation:
            raise UserError(f"{source}: its activation is known; leave model.activation={activation} out")
        return load_open_clip(name, source)
    path = Path(name).expanduser()
    if not path.exists():
        raise UserError(
            f"{source}: no such file, and not a name that is known; "
            f"give a path to CLIP weights, or one of {', '.join(BACKBONES)}, {NAMED}MODEL/WEIGHTS, {HUB}ORG/NAME"
        )
    return load_local(path, source, name=name, activation=activation)


def load_for_training(name: str, *, activation: Activation | None = None, trains: bool = True) -> Backbone:
    """`load_backbone` of what `model.clip` names; a `UserError` for what no checkpoint could hold or fetch again.

    With `trains`, its own weights are to be trained, which ResNets refuse, before a download where their name tells.
    """
    refusal = f"model.clip={name}: a ResNet is not trained here; choose a ViT"
    if trains and name in RESNETS:
        raise UserError(refusal)
    backbone = load_backbone(name, activation=activation)
    if trains and not backbone.trainable:
        raise UserError(refusal)
    if not (backbone.published or backbone.embeddable):
        remedy = "put it on the Hugging Face hub, and say hf-hub:ORG/NAME"
        raise UserError(f"model.clip={name}: checkpoints cannot hold a CLIP of this kind; {remedy}")
    return backbone


def is_published(name: str) -> bool:
    """Whether anyone can fetch a backbone of this name."""
    return name.startswith(PUBLISHED) or (name in BACKBONES and BACKBONES[name].published)
