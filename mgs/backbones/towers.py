"""CLIP's two towers, computing only what their embeddings need; the embeddings are the same.

- The last block's MLP runs on one token alone: an image's class token, or a text's end token.
- Texts stop at their end token, since the causal mask hides what follows it.
- Texts are packed into rows, without padding between them.
- Activations that the backward pass does not need are not stored.

Each tower runs in two parts, so that the first can be computed once if its weights are frozen.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgs.backbones.openai import HEAD_WIDTH, Clip

Block: TypeAlias = Any  # clip.model.ResidualAttentionBlock; the package ships no types
RunBlock: TypeAlias = Callable[[Block, Tensor], Tensor]  # `run_block`, or that compiled
QUICK_GELU = 1.702  # CLIP's activation is x * sigmoid(1.702 x)
# The usual number of tokens in a row of packed texts. Longer rows cost more attention; shorter rows waste more padding.
ROW_TOKENS = 256


def run_block(block: Block, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """One residual block over all tokens, (N, L, W) to (N, L, W)."""
    attended = attend(*project(block, x), mask=mask)
    return feed_forward(block, x + F.linear(attended, block.attn.out_proj.weight, block.attn.out_proj.bias))


def start_views(clip: Clip, views: Tensor, stop: int = 0, *, run: RunBlock = run_block) -> Tensor:
    """Views, (..., 3, S, S), through the stem and the first `stop` blocks, never the last: (..., L, W).

    `run` may be a compiled `run_block`.
    """
    visual = clip.visual
    x = F.conv2d(views.flatten(0, -4), visual.conv1.weight, stride=visual.conv1.stride)  # (N, W, S/p, S/p)
    x = x.flatten(2).mT + visual.positional_embedding[1:]  # (N, L - 1, W), float32 from here on
    first = (visual.class_embedding + visual.positional_embedding[0]).expand(x.shape[0], 1, -1)
    x = layer_norm(visual.ln_pre, torch.cat([first, x], 1))  # (N, L, W)
    for block in visual.transformer.resblocks[:stop]:
        x = run(block, x)
    return x.unflatten(0, views.shape[:-3])


def finish_views(clip: Clip, x: Tensor, start: int = 0, *, run: RunBlock = run_block) -> Tensor:
    """What `start_views` left before block `start`, (..., L, W), as unit-norm float32 embeddings, (..., D)."""
    visual, batch = clip.visual, x.shape[:-2]
    *blocks, last = visual.transformer.resblocks[start:]
    x = x.flatten(0, -3)
    for block in blocks:
        x = run(block, x)
    attn, width, y = last.attn, x.shape[-1], layer_norm(last.ln_1, x)
    q = F.linear(y[:, :1], attn.in_proj_weight[:width], attn.in_proj_bias[:width])  # (N, 1, W): the class token looks
    kv = F.linear(y, attn.in_proj_weight[width:], attn.in_proj_bias[width:])  # (N, L, 2W): at all tokens
    k, v = kv.chunk(2, -1)
    attended = attend(q, k, v)
    x = feed_forward(last, x[:, 0] + F.linear(attended[:, 0], attn.out_proj.weight, attn.out_proj.bias))  # (N, W)
    return unit_norm(layer_norm(visual.ln_post, x) @ visual.proj).unflatten(0, batch)


@dataclass(frozen=True)
class Rows:
    """How texts of given lengths lie in R rows of P tokens: T tokens in all, of N texts, end to end."""

    shape: tuple[int, int]  # (R, P)
    places: Tensor  # (T,), where each token lies in the flattened rows
    ends: Tensor  # (N,), where each text's end token lies
    mask: Tensor  # (R, 1, P, P), true where a token may look: at those of its own text up to itself

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Rows:
        """Pack texts of these `lengths`, in tokens with start and end token, into rows of nearly equal fill.

        `places` and `ends` follow the order of `lengths`, which may be any order but not empty.
        """
        fill = [(0, row) for row in range(-(-sum(lengths) // ROW_TOKENS))]
        begins: list[tuple[int, int]] = [(0, 0)] * len(lengths)
        for text in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
            used, row = heapq.heappop(fill)
            begins[text] = (row, used)
            heapq.heappush(fill, (used + lengths[text], row))
        longest = max(used for used, _ in fill)
        starts = torch.tensor([row * longest + used for row, used in begins])
        counts = torch.tensor(lengths)
        within = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        places = starts.repeat_interleave(counts) + within
        owner = torch.full((len(fill) * longest,), -1)  # the text that a place belongs to; -1: padding
        owner[places] = torch.arange(len(lengths)).repeat_interleave(counts)
        owner = owner.view(len(fill), longest)
        mask = (owner[:, :, None] == owner[:, None, :]).tril()[:, None]
        return cls((len(fill), longest), places.to(device), (starts + counts - 1).to(device), mask.to(device))

    def lay(self, tokens: Tensor) -> Tensor:
        """Tokens one after the other, (T, W), laid into rows, (R, P, W)."""
        rows, longest = self.shape
        laid = tokens.new_zeros(rows * longest, tokens.shape[-1]).index_copy(0, self.places, tokens)
        return laid.unflatten(0, self.shape)


def start_texts(clip: Clip, tokens: Sequence[Sequence[int]], stop: int = 0) -> Tensor:
    """Texts, each a list of token numbers up to its end token, through the first `stop` blocks: (T, W), end to end.

    T counts all texts' tokens. The last block is never among the first.
    """
    device = clip.token_embedding.weight.device
    numbers = torch.tensor([number for text in tokens for number in text], device=device)
    positions = torch.tensor([i for text in tokens for i in range(len(text))], device=device)
    x = F.embedding(numbers, clip.token_embedding.weight) + clip.positional_embedding[positions]
    if not stop:
        return x
    rows = Rows.of([len(text) for text in tokens], device)
    x = rows.lay(x)
    for block in clip.transformer.resblocks[:stop]:
        x = run_block(block, x, rows.mask)
    return x.flatten(0, 1)[rows.places]


def finish_texts(clip: Clip, x: Tensor, lengths: Sequence[int], start: int = 0) -> Tensor:
    """What `start_texts` left of N texts of these `lengths`, (T, W), as unit-norm float32 embeddings, (N, D)."""
    *blocks, last = clip.transformer.resblocks[start:]
    rows = Rows.of(lengths, x.device)
    x = rows.lay(x)
    for block in blocks:
        x = run_block(block, x, rows.mask)
    attended = attend(*project(last, x), mask=rows.mask)
    x, attended = (tokens.flatten(0, 1)[rows.ends] for tokens in (x, attended))  # (N, W), the end tokens
    x = feed_forward(last, x + F.linear(attended, last.attn.out_proj.weight, last.attn.out_proj.bias))
    return unit_norm(layer_norm(clip.ln_final, x) @ clip.text_projection)


def project(block: Block, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A block's queries, keys and values, (N, L, W) each."""
    q, k, v = F.linear(layer_norm(block.ln_1, x), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, -1)
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
    norm, first, second = block.ln_2, block.mlp.c_fc, block.mlp.c_proj
    y = F.layer_norm(x, norm.normalized_shape, norm.weight * QUICK_GELU, norm.bias * QUICK_GELU, norm.eps)
    hidden = F.linear(y, first.weight, first.bias * QUICK_GELU)  # (..., 4W)
    hidden = F.silu(hidden, inplace=not hidden.requires_grad)
    return torch.add(x, F.linear(hidden, second.weight, second.bias * QUICK_GELU), alpha=1 / QUICK_GELU)


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Layer norm; the tokens' running sum stays in float32, whatever precision the matrix products run in."""
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def unit_norm(embeddings: Tensor) -> Tensor:
    """Embeddings of any dtype, scaled to length 1 in float32."""
    return F.normalize(embeddings.float(), dim=-1)
