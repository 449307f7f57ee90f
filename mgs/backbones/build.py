"""A CLIP's modules from its tensors, which may be a stranger's; their shapes tell the architecture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from mgs.backbones.architecture import OPENAI, Architecture
from mgs.backbones.skeleton import Clip, ResNet, TransformerShape, VisionTransformer
from mgs.errors import UserError

MOST_CONTEXT, MOST_PIXELS, MOST_BLOCKS = 1024, 2048, 128  # far above any CLIP
RESNET = "visual.layer1.0.conv1.weight"  # every CLIP with a ResNet has it
VARIANCE = "running_var"  # of a batch norm
COUNTED = "num_batches_tracked"  # what torch's batch norms count in training


def build_clip(state: Mapping[str, Tensor], source: Path | str, architecture: Architecture = OPENAI) -> Clip:
    """A CLIP in float32, of a copy of the tensors, which have OpenAI's names.

    `architecture` says what the tensors' shapes do not. `source` is what errors call them. Raises `UserError`.
    """
    state = {name: value for name, value in state.items() if not name.endswith(COUNTED)}
    try:
        if not all(weight.is_floating_point() for weight in state.values()):
            raise ValueError("weights that are not floating point")
        if not all(weight.numel() for weight in state.values()):
            raise ValueError("weights without a number in them")
        if any(name.endswith(VARIANCE) and bool((weight < 0).any()) for name, weight in state.items()):
            raise ValueError(f"a {VARIANCE} below 0")
        with torch.device("meta"):  # where it takes no memory, whatever the shapes claim
            clip = make_skeleton(state, architecture)
        clip.load_state_dict({name: value.to("meta") for name, value in state.items()}, assign=False)
        clip.to_empty(device="cpu").load_state_dict(state)
    except KeyError as error:
        raise UserError(f"{source}: no tensor {error} in it; expected OpenAI CLIP weights") from None
    except (RuntimeError, ValueError, TypeError, AssertionError, ZeroDivisionError, IndexError) as error:
        problem = " ".join(str(error).split())[:300]
        raise UserError(f"{source}: tensors do not make up an OpenAI CLIP: {problem}") from None
    return clip.eval()


def make_skeleton(state: Mapping[str, Tensor], architecture: Architecture) -> Clip:
    """A CLIP without numbers, of the shapes that the tensors have; `KeyError` or `ValueError` where they have none."""
    make_visual = make_resnet if RESNET in state else make_transformer
    visual = make_visual(state, architecture)
    width, embed = state["text_projection"].shape
    context = len(state["positional_embedding"])
    if context > MOST_CONTEXT or visual.input_resolution > MOST_PIXELS:  # whose masks would fill the memory
        raise ValueError(f"{context} tokens of text and pictures of {visual.input_resolution} pixels")
    text = TransformerShape(width, count_blocks(state, "transformer"), hidden_width(state, "transformer"))
    vocabulary = len(state["token_embedding.weight"])
    return Clip(visual, text, architecture, vocabulary=vocabulary, context=context, embed=embed)


def make_transformer(state: Mapping[str, Tensor], architecture: Architecture) -> VisionTransformer:
    """A vision transformer without numbers."""
    width, _, _, patch = state["visual.conv1.weight"].shape
    size = patch * grid_of(state["visual.positional_embedding"])
    blocks, hidden = count_blocks(state, "visual.transformer"), hidden_width(state, "visual.transformer")
    shape = TransformerShape(width, blocks, hidden)
    return VisionTransformer(shape, architecture.image, size=size, patch=patch, embed=state["text_projection"].shape[1])


def make_resnet(state: Mapping[str, Tensor], architecture: Architecture) -> ResNet:
    """A ResNet without numbers."""
    names = (re.match(r"visual\.layer([1-4])\.(\d+)\.", name) for name in state)
    found = {(int(name[1]), name[2]) for name in names if name}
    blocks = tuple(sum(layer == i for layer, _ in found) for i in range(1, 5))
    if not all(0 < count <= MOST_BLOCKS for count in blocks):
        raise ValueError(f"a ResNet whose layers have {', '.join(map(str, blocks))} blocks")
    size = 32 * grid_of(state["visual.attnpool.positional_embedding"])
    embed = state["text_projection"].shape[1]
    return ResNet(len(state[RESNET]), blocks, architecture.image, size=size, embed=embed)


def grid_of(positions: Tensor) -> int:
    """Places a side, of as many positions as there are places and one more."""
    if len(positions) < 2:
        raise ValueError("an image tower without positions")
    return round((len(positions) - 1) ** 0.5)


def count_blocks(state: Iterable[str], tower: str) -> int:
    """How many residual blocks a tower has, from the tensors' names."""
    pattern = re.compile(rf"{re.escape(tower)}\.resblocks\.(\d+)\.")
    blocks = len({match[1] for name in state if (match := pattern.match(name))})
    if not 0 < blocks <= MOST_BLOCKS:
        raise ValueError(f"{blocks} blocks")
    return blocks


def hidden_width(state: Mapping[str, Tensor], tower: str) -> int:
    """The width of a tower's hidden layers."""
    return len(state[f"{tower}.resblocks.0.mlp.c_fc.weight"])
