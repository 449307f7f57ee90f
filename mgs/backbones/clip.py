"""CLIP as OpenAI built it: a vision transformer and a causal text transformer, under OpenAI's names for the weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgs.backbones.backbone import Backbone
from mgs.backbones.casts import Casts
from mgs.backbones.openai import build_clip, download, is_too_long, read_state_dict, token_numbers
from mgs.backbones.packing import PackedTexts
from mgs.backbones.towers import (
    Block,
    Linear,
    Norm,
    RunBlock,
    layer_norm,
    run_block,
    run_last_block_at,
    run_last_block_on_first,
    unit_norm,
)
from mgs.files import file_sha256

DEMO_CLIP = "demo_clip.safetensors"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class CLIPBackbone(Backbone):
    """An OpenAI CLIP; its `state_dict` has OpenAI's names."""

    def __init__(self, clip: Any, name: str, sha256: str = "") -> None:
        """`clip` is openai-clip's module, whose parts, not copies of them, become this one's."""
        super().__init__()
        self.name, self.sha256 = name, sha256
        self.size, self.context = int(clip.visual.input_resolution), int(clip.context_length)
        self.visual, self.transformer = clip.visual, clip.transformer
        self.token_embedding, self.ln_final = clip.token_embedding, clip.ln_final
        self.positional_embedding, self.text_projection = clip.positional_embedding, clip.text_projection
        self.logit_scale = clip.logit_scale
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)
        self.constant_image_blocks = self.constant_text_blocks = 0
        self.run_block: RunBlock = run_block
        self.casts = Casts()

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
            x = self.run_block(self.tensors_of(block), x)
        return x.unflatten(0, views.shape[:-3])

    def finish_images(self, x: Tensor) -> Tensor:
        visual, batch = self.visual, x.shape[:-2]
        *blocks, last = visual.transformer.resblocks[self.constant_image_blocks :]
        x = x.flatten(0, -3)
        for block in blocks:
            x = self.run_block(self.tensors_of(block), x)
        x = run_last_block_on_first(self.tensors_of(last), x)  # (N, W)
        return unit_norm(layer_norm(norm_of(visual.ln_post), x) @ self.casts(visual.proj)).unflatten(0, batch)

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
        length = len(numbers)
        mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=numbers.device).tril()
        x = (F.embedding(numbers, self.token_embedding.weight) + self.positional_embedding[:length])[None]
        for block in self.transformer.resblocks[: self.constant_text_blocks]:
            x = run_block(self.tensors_of(block), x, mask)
        return x[0]

    def embed_texts(self, packed: PackedTexts, halves: Sequence[Tensor] | None = None) -> Tensor:
        if halves is None:
            stem = F.embedding(packed.numbers, self.token_embedding.weight)
            x, start = stem + self.positional_embedding[packed.positions], 0
        else:
            x, start = torch.cat(list(halves)), self.constant_text_blocks
        *blocks, last = self.transformer.resblocks[start:]
        x, mask = packed.lay(x), packed.mask()
        for block in blocks:
            x = run_block(self.tensors_of(block), x, mask)
        x = run_last_block_at(self.tensors_of(last), x, packed.ends, mask)  # (N, W), the end tokens
        return unit_norm(layer_norm(norm_of(self.ln_final), x) @ self.casts(self.text_projection))

    def embed_padded(self, tokens: Tensor) -> Tensor:
        x = F.embedding(tokens, self.token_embedding.weight) + self.positional_embedding[: tokens.shape[1]]
        mask = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=tokens.device).tril()
        for block in self.transformer.resblocks:
            x = run_block(self.tensors_of(block), x, mask)
        ends = tokens.argmax(1)[:, None, None].expand(-1, 1, x.shape[2])  # the end token has the highest number
        return unit_norm(layer_norm(norm_of(self.ln_final), x.gather(1, ends)[:, 0]) @ self.text_projection)

    def tensors_of(self, block: Any) -> Block:
        """One of openai-clip's residual blocks as its tensors, matrices cast where they are frozen."""
        attn, mlp = block.attn, block.mlp
        return Block(
            norm_of(block.ln_1),
            Linear(self.casts(attn.in_proj_weight), attn.in_proj_bias),
            Linear(self.casts(attn.out_proj.weight), attn.out_proj.bias),
            norm_of(block.ln_2),
            Linear(self.casts(mlp.c_fc.weight), mlp.c_fc.bias),
            Linear(self.casts(mlp.c_proj.weight), mlp.c_proj.bias),
        )


def norm_of(norm: nn.LayerNorm) -> Norm:
    """A layer norm's tensors."""
    return Norm(norm.weight, norm.bias)


def stem_of(visual: Any) -> Iterable[nn.Parameter]:
    """What lies below the image tower's first block."""
    return [
        *visual.conv1.parameters(),
        *visual.ln_pre.parameters(),
        visual.class_embedding,
        visual.positional_embedding,
    ]


def load_published(name: str, source: str, remedy: str) -> CLIPBackbone:
    """One of OpenAI's CLIPs, downloaded once. Errors call it `source`, and end in `remedy`. Raises `UserError`."""
    return load_file(download(name, source, remedy), source, name=name)


def load_demo(name: str, source: str, remedy: str) -> CLIPBackbone:
    """The CLIP that ships with the package, which knows drawings alone."""
    return load_file(Path(str(resources.files("mgs") / "assets" / DEMO_CLIP)), source, name=name)


def load_file(path: Path, source: str, *, name: str) -> CLIPBackbone:
    """A CLIP from an OpenAI JIT archive, or a state dict in OpenAI's names, `.pt` or `.safetensors`.

    The tensors' shapes give the architecture. Errors call the file `source`. Raises `UserError`.
    """
    clip = build_clip(read_state_dict(path, source), source)
    return CLIPBackbone(clip, name, file_sha256(path))
