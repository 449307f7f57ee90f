"""A transformer's residual blocks, computing only what an embedding needs; pure functions of tensors.

- The last block's MLP runs on one token alone: an image's class token, or a text's end token.
- Activations that the backward pass does not need are not stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

QUICK_GELU = 1.702  # CLIP's activation is x * sigmoid(1.702 x)
HEAD_WIDTH = 64  # OpenAI's CLIPs infer the number of attention heads as width / 64
EPSILON = 1e-5  # of every layer norm


class Norm(NamedTuple):
    """A layer norm's two vectors, (W,) each."""

    weight: Tensor
    bias: Tensor


class Linear(NamedTuple):
    """A linear layer: weight (out, in), bias (out,)."""

    weight: Tensor
    bias: Tensor


class Block(NamedTuple):
    """The tensors of one residual block of width W."""

    norm_1: Norm
    project_in: Linear  # to queries, keys and values, (3W, W)
    project_out: Linear
    norm_2: Norm
    up: Linear  # (4W, W)
    down: Linear


RunBlock: TypeAlias = Callable[[Block, Tensor], Tensor]  # `run_block`, or that compiled


def run_block(block: Block, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """One residual block over all tokens, (N, L, W) to (N, L, W)."""
    attended = attend(*project(block, x), mask=mask)
    return feed_forward(block, x + F.linear(attended, *block.project_out))


def run_last_block_on_first(block: Block, x: Tensor) -> Tensor:
    """The last block for each sequence's first token alone, (N, L, W) to (N, W)."""
    width, y = x.shape[-1], layer_norm(block.norm_1, x)
    weight, bias = block.project_in
    q = F.linear(y[:, :1], weight[:width], bias[:width])  # (N, 1, W): the first token looks
    k, v = F.linear(y, weight[width:], bias[width:]).chunk(2, -1)  # (N, L, W) each: at all tokens
    attended = attend(q, k, v)
    return feed_forward(block, x[:, 0] + F.linear(attended[:, 0], *block.project_out))


def run_last_block_at(block: Block, x: Tensor, places: Tensor, mask: Tensor) -> Tensor:
    """The last block for the tokens at `places`, (N,), of the flattened rows, (R, P, W), alone: (N, W)."""
    attended = attend(*project(block, x), mask=mask)
    x, attended = (tokens.flatten(0, 1)[places] for tokens in (x, attended))
    return feed_forward(block, x + F.linear(attended, *block.project_out))


def project(block: Block, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A block's queries, keys and values, (N, L, W) each."""
    q, k, v = F.linear(layer_norm(block.norm_1, x), *block.project_in).chunk(3, -1)
    return q, k, v


def attend(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention in heads of 64, (N, L, W) each; `mask` is true where a query may look."""
    q, k, v = (x.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2) for x in (q, k, v))  # (N, H, L, 64)
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:  # twice as fast as the fused kernel, forward and backward
        weights = (q * HEAD_WIDTH**-0.5) @ k.contiguous().mT
        heads = (weights if mask is None else weights.masked_fill(~mask, -torch.inf)).softmax(-1) @ v
    else:
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return heads.transpose(1, 2).flatten(2)


def feed_forward(block: Block, x: Tensor) -> Tensor:
    """A block's second half, its MLP with the residual around it."""
    # x * sigmoid(1.702 x) is silu(1.702 x) / 1.702. The vectors before and after the activation take the two factors.
    # So there is one pass over the hidden layer, and one activation is stored for the backward pass. The formula as
    # written would need three passes and store two.
    y = layer_norm(Norm(block.norm_2.weight * QUICK_GELU, block.norm_2.bias * QUICK_GELU), x)
    hidden = F.linear(y, block.up.weight, block.up.bias * QUICK_GELU)  # (..., 4W)
    hidden = F.silu(hidden, inplace=not hidden.requires_grad)
    return torch.add(x, F.linear(hidden, block.down.weight, block.down.bias * QUICK_GELU), alpha=1 / QUICK_GELU)


def layer_norm(norm: Norm, x: Tensor) -> Tensor:
    """Layer norm; the tokens' running sum stays in float32, whatever precision the matrix products run in."""
    return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, EPSILON)


def unit_norm(embeddings: Tensor) -> Tensor:
    """Embeddings of any dtype, scaled to length 1 in float32."""
    return F.normalize(embeddings.float(), dim=-1)
