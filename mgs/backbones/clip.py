"""CLIP with a vision transformer, as OpenAI built it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgs.backbones.architecture import OPENAI, Architecture
from mgs.backbones.text import TextBackbone, norm_of
from mgs.backbones.token_maps import LastBlock
from mgs.backbones.towers import layer_norm, run_last_block_on_first, unit_norm


class CLIPBackbone(TextBackbone):
    """A CLIP with a vision transformer; its `state_dict` has OpenAI's names."""

    def __init__(self, clip: Any, name: str, sha256: str = "", architecture: Architecture = OPENAI) -> None:
        """`clip` is a module with OpenAI's parts, which become this one's; they are not copied."""
        super().__init__(clip, name, sha256, architecture)
        self.constant_image_blocks = 0

    def freeze(self, share: float, *, stem: bool) -> None:
        """Freeze `logit_scale`, the first `share` of each tower's blocks, and with `stem` all that lies below them."""
        towers = [self.visual.transformer.resblocks, self.transformer.resblocks]
        frozen = [self.logit_scale, *(p for blocks in towers for p in blocks[: int(share * len(blocks))].parameters())]
        if stem:
            frozen += [*stem_of(self.visual), *self.text_stem()]
        for parameter in frozen:
            parameter.requires_grad_(False)
        # The last block never counts, even if it is frozen: it runs on one token only, so its output is not worth
        # keeping. Above a stem that trains nothing is constant.
        counts = [min(int(share * len(blocks)), len(blocks) - 1) if stem else 0 for blocks in towers]
        self.constant_image_blocks, self.constant_text_blocks = counts

    def constant_weights(self) -> list[nn.Parameter]:
        if not self.constant_image_blocks:
            return []
        blocks = self.visual.transformer.resblocks[: self.constant_image_blocks]
        return [*stem_of(self.visual), *blocks.parameters()]

    def start_images(self, views: Tensor) -> Tensor:
        """Views, (..., 3, S, S), through the constant part, (..., L, W); where all trains, the stem's output."""
        visual = self.visual
        x = F.conv2d(
            views.flatten(0, -4), self.casts(visual.conv1.weight), stride=visual.conv1.stride
        )  # (N, W, S/p, S/p)
        x = x.flatten(2).mT + visual.positional_embedding[1:]  # (N, L - 1, W), float32 from here on
        first = (visual.class_embedding + visual.positional_embedding[0]).expand(x.shape[0], 1, -1)
        x = layer_norm(norm_of(visual.ln_pre), torch.cat([first, x], 1))  # (N, L, W)
        for block in visual.transformer.resblocks[: self.constant_image_blocks]:
            x = self.run_block(self.tensors_of(block, self.architecture.image), x)
        return x.unflatten(0, views.shape[:-3])

    def finish_images(self, x: Tensor) -> Tensor:
        return self.finish_with_tokens(x)[0]

    def finish_with_tokens(self, x: Tensor) -> tuple[Tensor, LastBlock]:
        visual, batch = self.visual, x.shape[:-2]
        *blocks, last = visual.transformer.resblocks[self.constant_image_blocks :]
        x = x.flatten(0, -3)
        for block in blocks:
            x = self.run_block(self.tensors_of(block, self.architecture.image), x)
        block, norm, proj = self.tensors_of(last, self.architecture.image), norm_of(visual.ln_post), visual.proj
        first = run_last_block_on_first(block, x)  # (N, W)
        embeddings = unit_norm(layer_norm(norm, first) @ self.casts(proj)).unflatten(0, batch)
        return embeddings, LastBlock(block, norm, proj, x)


def stem_of(visual: Any) -> Iterable[nn.Parameter]:
    """What lies below the image tower's first block."""
    return [
        *visual.conv1.parameters(),
        *visual.ln_pre.parameters(),
        visual.class_embedding,
        visual.positional_embedding,
    ]
