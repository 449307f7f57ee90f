"""CLIP with OpenAI's ResNets for images. They are only ever frozen: their batch norms never train."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgs.backbones.architecture import OPENAI, Architecture
from mgs.backbones.text import TextBackbone
from mgs.backbones.towers import attend, unit_norm


class ResNetBackbone(TextBackbone):
    """A CLIP with a ResNet; its `state_dict` has OpenAI's names, less what batch norms count."""

    trainable = False

    def __init__(self, clip: Any, name: str, sha256: str = "", architecture: Architecture = OPENAI) -> None:
        """`clip` is a module with OpenAI's parts, which become this one's; they are not copied."""
        super().__init__(clip, name, sha256, architecture)
        self.positions = True
        self.requires_grad_(False)

    def freeze(self, share: float, *, stem: bool) -> None:
        """Freeze all of it, whatever is asked for."""
        self.requires_grad_(False)

    def allow_any_size(self) -> None:
        self.positions, self.any_size = False, True

    def constant_weights(self) -> list[nn.Parameter]:
        return []

    def start_images(self, views: Tensor) -> Tensor:
        return views

    def finish_images(self, x: Tensor) -> Tensor:
        """Views, (..., 3, H, W), as embeddings, (..., D), float32. H and W are `size`, or any without positions."""
        visual, batch = self.visual, x.shape[:-3]
        x = x.flatten(0, -4)
        for i, stride in ((1, 2), (2, 1), (3, 1)):
            x = self.convolve(x, getattr(visual, f"conv{i}"), getattr(visual, f"bn{i}"), stride=stride, padding=1)
            x = F.relu(x)
        x = F.avg_pool2d(x, 2)  # (N, C, H/4, W/4)
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            for block in layer:
                x = self.run_bottleneck(block, x)
        return unit_norm(self.pool(x)).unflatten(0, batch)

    def run_bottleneck(self, block: Any, x: Tensor) -> Tensor:
        """One residual block, (N, C, H, W) to (N, C', H/s, W/s)."""
        y = F.relu(self.convolve(x, block.conv1, block.bn1))
        y = F.relu(self.convolve(y, block.conv2, block.bn2, padding=1))
        if block.stride > 1:  # strided convolutions are pools first, against aliasing
            x, y = F.avg_pool2d(x, block.stride), F.avg_pool2d(y, block.stride)
        y = self.convolve(y, block.conv3, block.bn3)
        if block.downsample is not None:
            convolution, norm = (part for part in block.downsample if not isinstance(part, nn.AvgPool2d))
            x = self.convolve(x, convolution, norm)
        return F.relu(x + y)

    def convolve(self, x: Tensor, convolution: Any, norm: Any, *, stride: int = 1, padding: int = 0) -> Tensor:
        """A convolution and its batch norm, by the statistics of pre-training."""
        x = F.conv2d(x, self.casts(convolution.weight), stride=stride, padding=padding)
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False)

    def pool(self, x: Tensor) -> Tensor:
        """A map, (N, C, H, W), as embeddings, (N, D): the mean place looks at all places and itself."""
        head = self.visual.attnpool
        x = x.flatten(2).mT  # (N, HW, C)
        x = torch.cat([x.mean(1, keepdim=True), x], 1)
        if self.positions:
            x = x + head.positional_embedding
        q, k, v = (
            F.linear(tokens, self.casts(linear.weight), linear.bias)
            for tokens, linear in ((x[:, :1], head.q_proj), (x, head.k_proj), (x, head.v_proj))
        )
        attended = attend(q, k, v, heads=head.num_heads)[:, 0]  # (N, C)
        return F.linear(attended, self.casts(head.c_proj.weight), head.c_proj.bias)
