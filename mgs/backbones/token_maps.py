"""What the patches of a view show, and what they add to its embedding, read off a vision transformer's last block.

The class token becomes the embedding. In the last block it takes a weighted sum of all tokens' values. Two readings:

- `embed_patches`: each patch's own value as if the class token had taken nothing else, in the space of the texts. It
  says what is where (Zhou, Loy, Dai: Extract Free Dense Labels from CLIP, ECCV 2022).
- `read`: the class token's change is a sum of parts, one a token, exactly. A part times a score's slope is what it adds
  to the score, to first order; it is the gradient times the attention, summed over heads. It says what counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mgs.backbones.towers import Block, Linear, Norm, feed_forward, layer_norm, project, unit_norm


@dataclass(frozen=True)
class LastBlock:
    """The last block of N views with what enters it, and what makes embeddings of what leaves it."""

    block: Block
    norm: Norm
    proj: Tensor  # (W, D)
    tokens: Tensor  # (N, L, W), the class token first, then the patches row by row

    @property
    def side(self) -> int:
        """Patches a side of a view."""
        return math.isqrt(self.tokens.shape[1] - 1)

    @torch.no_grad()
    def embed_patches(self) -> Tensor:
        """Each patch's value as an embedding, (N, side, side, D), float32, of length 1."""
        with torch.autocast(self.tokens.device.type, enabled=False):
            block = in_float32(self.block)
            *_, values = project(block, self.tokens.float())
            found = self.project(F.linear(values[:, 1:], *block.project_out))  # (N, L - 1, D)
        return found.unflatten(1, (self.side, self.side))

    @torch.inference_mode(False)
    def read(self, judge: Callable[[Tensor], Tensor]) -> Tensor:
        """What each patch adds to each of K scores of each view, to first order, (K, N, side, side), float32.

        `judge` makes of embeddings, (N, D), scores, (N, K), each view's from its own embedding. Tensors that it brings
        along must not be inference tensors.
        """
        with torch.autocast(self.tokens.device.type, enabled=False), torch.enable_grad():
            kept = LastBlock(self.block, self.norm, self.proj, self.tokens.detach().clone())
            parts = kept.parts().detach()
            change = (parts.sum(1) + kept.block.project_out.bias.detach()).requires_grad_()
            scores = judge(kept.embed(change)).unbind(-1)
            slopes = [torch.autograd.grad(one.sum(), change, retain_graph=True)[0] for one in scores]
            found = torch.einsum("knw,nlw->knl", torch.stack(slopes), parts[:, 1:])
        return found.unflatten(-1, (self.side, self.side))

    def parts(self) -> Tensor:
        """What the class token takes from each token, (N, L, W): with `project_out`'s bias they sum to its change."""
        block = in_float32(self.block)
        heads = (x.unflatten(-1, (block.heads, -1)).transpose(1, 2) for x in project(block, self.tokens.float()))
        q, k, v = heads  # (N, H, L, W/H) each
        weights = ((q[:, :, :1] * q.shape[-1] ** -0.5) @ k.mT).softmax(-1)  # (N, H, 1, L)
        taken = (weights.mT * v).transpose(1, 2).flatten(2)  # (N, L, W)
        return F.linear(taken, block.project_out.weight)

    def embed(self, change: Tensor) -> Tensor:
        """The views' embeddings, (N, D), if attention changed the class token so, (N, W)."""
        return self.project(feed_forward(in_float32(self.block), self.tokens[:, 0].float() + change))

    def project(self, x: Tensor) -> Tensor:
        """Tokens that leave the block, (..., W), as embeddings, (..., D)."""
        return unit_norm(layer_norm(self.norm, x) @ self.proj.float())


def in_float32(block: Block) -> Block:
    """A block whose matrices may be cast for products in another precision, in float32."""
    inner, outer, up, down = (
        Linear(linear.weight.float(), linear.bias.float())
        for linear in (block.project_in, block.project_out, block.up, block.down)
    )
    return block._replace(project_in=inner, project_out=outer, up=up, down=down)
