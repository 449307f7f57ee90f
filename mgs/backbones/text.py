"""The causal text transformer that all of OpenAI's CLIPs share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgs.backbones.architecture import OPENAI, Architecture, Tower
from mgs.backbones.backbone import Backbone
from mgs.backbones.casts import Casts
from mgs.backbones.openai import is_too_long, token_numbers
from mgs.backbones.packing import PackedTexts
from mgs.backbones.towers import (
    Block,
    Linear,
    Norm,
    RunBlock,
    layer_norm,
    run_block,
    run_last_block_at,
    unit_norm,
)


class TextBackbone(Backbone):
    """A CLIP with OpenAI's text tower, and with parts of any kind for images; its `state_dict` has OpenAI's names."""

    mean: Tensor
    std: Tensor

    def __init__(self, clip: Any, name: str, sha256: str = "", architecture: Architecture = OPENAI) -> None:
        """`clip` is a module with OpenAI's parts, which become this one's; they are not copied."""
        super().__init__()
        self.name, self.sha256, self.architecture = name, sha256, architecture
        self.size, self.context = int(clip.visual.input_resolution), int(clip.context_length)
        self.visual, self.transformer = clip.visual, clip.transformer
        self.token_embedding, self.ln_final = clip.token_embedding, clip.ln_final
        self.positional_embedding, self.text_projection = clip.positional_embedding, clip.text_projection
        self.logit_scale = clip.logit_scale
        for statistic in ("mean", "std"):
            values = torch.tensor(getattr(architecture, statistic))[:, None, None]
            self.register_buffer(statistic, values, persistent=False)
        self.constant_text_blocks = 0
        self.run_block: RunBlock = run_block
        self.casts = Casts()

    def tokenize(self, text: str) -> tuple[int, ...]:
        return token_numbers(text, self.context)

    def is_too_long(self, text: str) -> bool:
        return is_too_long(text, self.context)

    def constant_text_weights(self) -> list[nn.Parameter]:
        if not self.constant_text_blocks:
            return []
        return [*self.text_stem(), *self.transformer.resblocks[: self.constant_text_blocks].parameters()]

    def text_weights(self) -> list[nn.Parameter]:
        ends = [*self.ln_final.parameters(), self.text_projection]
        return [*self.text_stem(), *self.transformer.parameters(), *ends]

    def text_stem(self) -> list[nn.Parameter]:
        """What lies below the text tower's first block."""
        return [self.token_embedding.weight, self.positional_embedding]

    def start_text(self, numbers: Tensor) -> Tensor:
        # Each text runs alone. So its bits do not depend on which other texts were new at the time; that may differ in
        # a resumed run.
        mask = causal_mask(len(numbers), numbers.device)[None, None]
        x = (F.embedding(numbers, self.token_embedding.weight) + self.positional_embedding[: len(numbers)])[None]
        for block in self.transformer.resblocks[: self.constant_text_blocks]:
            x = run_block(self.text_block(block), x, mask)
        return x[0]

    def embed_texts(self, packed: PackedTexts, halves: Sequence[Tensor] | None = None) -> Tensor:
        if halves is None:
            stem = F.embedding(packed.numbers, self.token_embedding.weight)
            x, start = stem + self.positional_embedding[packed.positions], 0
        else:
            x, start = torch.cat(list(halves)), self.constant_text_blocks
        return self.finish_text(packed.lay(x), packed.ends, packed.mask(), start)

    def word_vectors(self, numbers: Tensor) -> Tensor:
        return F.embedding(numbers, self.token_embedding.weight)

    def embed_words(self, words: Tensor) -> Tensor:
        count, length = words.shape[:2]
        ends = torch.arange(length - 1, count * length, length, device=words.device)
        return self.finish_text(words + self.positional_embedding[:length], ends, causal_mask(length, words.device), 0)

    def finish_text(self, x: Tensor, ends: Tensor, mask: Tensor, start: int) -> Tensor:
        """Rows, (R, P, W), through the blocks from `start` on, as embeddings, (N, D), of the tokens at `ends`, (N,)."""
        *blocks, last = self.transformer.resblocks[start:]
        for block in blocks:
            x = run_block(self.text_block(block), x, mask)
        x = run_last_block_at(self.text_block(last), x, ends, mask)  # (N, W), the end tokens
        return unit_norm(layer_norm(norm_of(self.ln_final), x) @ self.casts(self.text_projection))

    def embed_padded(self, tokens: Tensor) -> Tensor:
        x = F.embedding(tokens, self.token_embedding.weight) + self.positional_embedding[: tokens.shape[1]]
        mask = causal_mask(tokens.shape[1], tokens.device)
        for block in self.transformer.resblocks:
            x = run_block(self.text_block(block), x, mask)
        ends = tokens.argmax(1)[:, None, None].expand(-1, 1, x.shape[2])  # the end token has the highest number
        return unit_norm(layer_norm(norm_of(self.ln_final), x.gather(1, ends)[:, 0]) @ self.text_projection)

    def text_block(self, block: Any) -> Block:
        """One of the text tower's blocks as its tensors."""
        return self.tensors_of(block, self.architecture.text)

    def tensors_of(self, block: Any, tower: Tower) -> Block:
        """A residual block as its tensors, matrices cast where they are frozen."""
        attn, mlp = block.attn, block.mlp
        return Block(
            norm_of(block.ln_1),
            Linear(self.casts(attn.in_proj_weight), attn.in_proj_bias),
            Linear(self.casts(attn.out_proj.weight), attn.out_proj.bias),
            norm_of(block.ln_2),
            Linear(self.casts(mlp.c_fc.weight), mlp.c_fc.bias),
            Linear(self.casts(mlp.c_proj.weight), mlp.c_proj.bias),
            attn.num_heads,
            tower.activation,
        )


def norm_of(norm: nn.LayerNorm) -> Norm:
    """A layer norm's tensors."""
    return Norm(norm.weight, norm.bias, norm.eps)


def causal_mask(length: int, device: torch.device) -> Tensor:
    """(L, L), true where a token may look: at itself and those before it."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
