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

from mgs.backbones.architecture import Activation

QUICK_GELU = 1.702  # OpenAI's activation is x * sigmoid(1.702 x)


class Norm(NamedTuple):
    """A layer norm's two vectors, (W,) each, and what is added to the variance."""

    weight: Tensor
    bias: Tensor
    epsilon: float = 1e-5


class Linear(NamedTuple):
    """A linear layer: weight (out, in), bias (out,)."""

    weight: Tensor
    bias: Tensor


class Block(NamedTuple):
    """The tensors of one residual block of width W, and how they are used."""

    norm_1: Norm
    project_in: Linear  # to queries, keys and values, (3W, W)
    project_out: Linear
    norm_2: Norm
    up: Linear  # (4W, W), in some CLIPs a little more
    down: Linear
    heads: int
    activation: Activation = "quick_gelu"


RunBlock: TypeAlias = Callable[[Block, Tensor], Tensor]  # `run_block`, or that compiled


def run_block(block: Block, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """One residual block over all tokens, (N, L, W) to (N, L, W)."""
    attended = attend(*project(block, x), heads=block.heads, mask=mask)
    return feed_forward(block, x + F.linear(attended, *block.project_out))


def run_last_block_on_first(block: Block, x: Tensor) -> Tensor:
    """The last block for each sequence's first token alone, (N, L, W) to (N, W)."""
    width, y = x.shape[-1], layer_norm(block.norm_1, x)
    weight, bias = block.project_in
    q = F.linear(y[:, :1], weight[:width], bias[:width])  # (N, 1, W): the first token looks
    k, v = F.linear(y, weight[width:], bias[width:]).chunk(2, -1)  # (N, L, W) each: at all tokens
    attended = attend(q, k, v, heads=block.heads)
    return feed_forward(block, x[:, 0] + F.linear(attended[:, 0], *block.project_out))


def run_last_block_at(block: Block, x: Tensor, places: Tensor, mask: Tensor) -> Tensor:
    """The last block for the tokens at `places`, (N,), of the flattened rows, (R, P, W), alone: (N, W)."""
    attended = attend(*project(block, x), heads=block.heads, mask=mask)
    x, attended = (tokens.flatten(0, 1)[places] for tokens in (x, attended))
    return feed_forward(block, x + F.linear(attended, *block.project_out))


def project(block: Block, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A block's queries, keys and values, (N, L, W) each."""
    q, k, v = F.linear(layer_norm(block.norm_1, x), *block.project_in).chunk(3, -1)
    return q, k, v


def attend(q: Tensor, k: Tensor, v: Tensor, *, heads: int, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention in H heads, (N, L, W) each; `mask` is true where a query may look."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (N, H, L, W/H)
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:  # twice as fast as the fused kernel, forward and backward
        weights = (q * q.shape[-1] ** -0.5) @ k.contiguous().mT
        found = (weights if mask is None else weights.masked_fill(~mask, -torch.inf)).softmax(-1) @ v
    else:
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return found.transpose(1, 2).flatten(2)


def feed_forward(block: Block, x: Tensor) -> Tensor:
    """A block's second half, its MLP with the residual around it."""
    if block.activation != "quick_gelu":
        hidden = F.linear(layer_norm(block.norm_2, x), *block.up)
        hidden = F.gelu(hidden, approximate="tanh" if block.activation == "gelu_tanh" else "none")
        return x + F.linear(hidden, *block.down)
    # x * sigmoid(1.702 x) is silu(1.702 x) / 1.702. The vectors before and after the activation take the two factors.
    # So there is one pass over the hidden layer, and one activation is stored for the backward pass. The formula as
    # written would need three passes and store two.
    norm = block.norm_2
    y = layer_norm(Norm(norm.weight * QUICK_GELU, norm.bias * QUICK_GELU, norm.epsilon), x)
    hidden = F.linear(y, block.up.weight, block.up.bias * QUICK_GELU)  # (..., 4W)
    hidden = F.silu(hidden, inplace=not hidden.requires_grad)
    return torch.add(x, F.linear(hidden, block.down.weight, block.down.bias * QUICK_GELU), alpha=1 / QUICK_GELU)


def layer_norm(norm: Norm, x: Tensor) -> Tensor:
    """Layer norm; the tokens' running sum stays in float32, whatever precision the matrix products run in."""
    return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.epsilon)


def unit_norm(embeddings: Tensor) -> Tensor:
    """Embeddings of any dtype, scaled to length 1 in float32."""
    return F.normalize(embeddings.float(), dim=-1)
