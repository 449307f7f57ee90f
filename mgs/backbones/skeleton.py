"""Modules that hold a CLIP's weights under OpenAI's names and in OpenAI's order; nothing but that.

The arithmetic is in towers.py and resnet.py. A skeleton is made on torch's meta device, where it takes no memory.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mgs.backbones.architecture import Architecture, Tower


@dataclass(frozen=True)
class TransformerShape:
    """What the tensors of one transformer show."""

    width: int
    blocks: int
    hidden: int  # of each block's MLP


class Attention(nn.Module):
    """The four tensors of multi-head attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.in_proj_weight = empty(3 * width, width)
        self.in_proj_bias = empty(3 * width)
        self.out_proj = nn.Linear(width, width)


class ResidualBlock(nn.Module):
    """One residual block. Optimizers and gradient norms go through its tensors in this order."""

    def __init__(self, shape: TransformerShape, tower: Tower) -> None:
        super().__init__()
        self.attn = Attention(shape.width, shape.width // tower.head_width)
        self.ln_1 = nn.LayerNorm(shape.width, eps=tower.epsilon)
        up, down = nn.Linear(shape.width, shape.hidden), nn.Linear(shape.hidden, shape.width)
        self.mlp = nn.Sequential(OrderedDict([("c_fc", up), ("c_proj", down)]))
        self.ln_2 = nn.LayerNorm(shape.width, eps=tower.epsilon)


class Transformer(nn.Module):
    """A tower's residual blocks."""

    def __init__(self, shape: TransformerShape, tower: Tower) -> None:
        super().__init__()
        if shape.width % tower.head_width:
            raise ValueError(f"a width of {shape.width} is no multiple of its heads' width, {tower.head_width}")
        self.resblocks = nn.ModuleList(ResidualBlock(shape, tower) for _ in range(shape.blocks))


class VisionTransformer(nn.Module):
    """The image tower."""

    def __init__(self, shape: TransformerShape, tower: Tower, *, size: int, patch: int, embed: int) -> None:
        super().__init__()
        self.input_resolution = size
        self.conv1 = nn.Conv2d(3, shape.width, patch, stride=patch, bias=False)
        self.class_embedding = empty(shape.width)
        self.positional_embedding = empty((size // patch) ** 2 + 1, shape.width)
        self.ln_pre = nn.LayerNorm(shape.width, eps=tower.epsilon)
        self.transformer = Transformer(shape, tower)
        self.ln_post = nn.LayerNorm(shape.width, eps=tower.epsilon)
        self.proj = empty(shape.width, embed)


class BatchNorm(nn.Module):
    """A batch norm that never trains: its four vectors, (C,) each."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = empty(channels), empty(channels)
        self.register_buffer("running_mean", torch.empty(channels))
        self.register_buffer("running_var", torch.empty(channels))


class Bottleneck(nn.Module):
    """One block of a ResNet."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1, self.bn1 = nn.Conv2d(before, width, 1, bias=False), BatchNorm(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), BatchNorm(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), BatchNorm(4 * width)
        self.downsample: nn.Module | None = None
        if stride > 1 or before != 4 * width:
            parts = [("0", nn.Conv2d(before, 4 * width, 1, bias=False)), ("1", BatchNorm(4 * width))]
            self.downsample = nn.Sequential(OrderedDict(parts))


class AttentionPool(nn.Module):
    """What turns a ResNet's map into one embedding."""

    def __init__(self, width: int, embed: int, *, places: int, heads: int) -> None:
        super().__init__()
        self.positional_embedding = empty(places + 1, width)
        self.k_proj, self.q_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, embed)
        self.num_heads = heads


class ResNet(nn.Module):
    """The image tower of OpenAI's ResNets: three convolutions, four layers of blocks, and an attention pool."""

    def __init__(self, width: int, blocks: tuple[int, ...], tower: Tower, *, size: int, embed: int) -> None:
        super().__init__()
        self.input_resolution = size
        half = width // 2
        self.conv1, self.bn1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False), BatchNorm(half)
        self.conv2, self.bn2 = nn.Conv2d(half, half, 3, padding=1, bias=False), BatchNorm(half)
        self.conv3, self.bn3 = nn.Conv2d(half, width, 3, padding=1, bias=False), BatchNorm(width)
        before = width
        for i, count in enumerate(blocks):
            inner = width * 2**i
            first = Bottleneck(before, inner, stride=2 if i else 1)
            before = 4 * inner
            layer = nn.Sequential(first, *(Bottleneck(before, inner, 1) for _ in range(count - 1)))
            self.add_module(f"layer{i + 1}", layer)
        self.attnpool = AttentionPool(before, embed, places=(size // 32) ** 2, heads=before // tower.head_width)


class Clip(nn.Module):
    """Both towers. What OpenAI's checkpoints hold besides, plain numbers, is not in it."""

    def __init__(
        self, visual: nn.Module, text: TransformerShape, architecture: Architecture, *, vocabulary: int, context: int,
        embed: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.context_length = context
        self.visual = visual
        self.transformer = Transformer(text, architecture.text)
        self.token_embedding = nn.Embedding(vocabulary, text.width)
        self.positional_embedding = empty(context, text.width)
        self.ln_final = nn.LayerNorm(text.width, eps=architecture.text.epsilon)
        self.text_projection = empty(text.width, embed)
        self.logit_scale = empty()


def empty(*shape: int) -> nn.Parameter:
    """A weight of that shape, whose numbers are still to come."""
    return nn.Parameter(torch.empty(shape))
