"""CLIPs of other kinds, through the open_clip package: SigLIP, Perception Encoder, MobileCLIP, EVA and the like."""

from __future__ import annotations

import contextlib
import functools
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mgs.backbones.architecture import as_channels
from mgs.backbones.backbone import Backbone
from mgs.backbones.packing import PackedTexts
from mgs.backbones.towers import RunBlock, run_block, unit_norm
from mgs.errors import UserError

NAMED, HUB, FOLDER = "open_clip:", "hf-hub:", "local-dir:"  # what names of such CLIPs begin with
PUBLISHED = (NAMED, HUB)
IMAGE_BLOCKS = ("trunk.blocks", "trunk.stages", "transformer.resblocks")  # where towers have their blocks
TEXT_BLOCKS = ("transformer.resblocks", "transformer.encoder.layer", "transformer.encoder.block")
UNUSED = ("logit_scale", "logit_bias")  # in what trains
TOKENIZING = threading.Lock()  # a tokenizer of Hugging Face's keeps the length it cuts at, so threads take turns
STEM = re.compile(  # names of what lies below the blocks
    r"(?:^|\.)(?:conv1|patch_embed|stem|pos_embed|cls_token|reg_token|class_embedding|positional_embedding|"
    r"token_embedding|cls_emb|embeddings|ln_pre|norm_pre)(?:\.|$)"
)


class OpenCLIPBackbone(Backbone):
    """A model of open_clip's, run by open_clip's own code, with its own tokenizer; nothing of it is kept between steps.

    It stays in eval mode in training too: no batch norm changes its statistics, and nothing is dropped at random. The
    bias of sigmoid losses is among its weights, and has no part in cosines.
    """

    mean: Tensor
    std: Tensor
    clip: Any
    embeddable = False

    def __init__(self, clip: Any, tokenizer: Any, name: str, sha256: str, pixels: Mapping[str, Any]) -> None:
        """`tokenizer` turns texts into (N, context) numbers; `pixels` has mean and std. Raises `UserError`."""
        super().__init__()
        self.name, self.sha256, self.clip, self.tokenizer = name, sha256, clip.eval(), tokenizer
        self.published = name.startswith(PUBLISHED)
        self.size, self.context = size_of(clip.visual, name), context_of(clip, tokenizer)
        self.padding = int(self.encode("", self.context)[-1])
        for statistic, least in (("mean", 0.0), ("std", 1e-6)):
            channels = as_channels(statistic, pixels[statistic], least)
            self.register_buffer(statistic, torch.tensor(channels)[:, None, None], persistent=False)
        self.run_block: RunBlock = run_block  # not used: open_clip runs its own

    @property
    def logit_scale(self) -> Tensor:  # type: ignore[override]
        """The logarithm of what cosines are multiplied by in pre-training, ()."""
        scale: Tensor = self.clip.logit_scale
        return scale.reshape(())

    @property
    def text(self) -> Any:
        """The text tower; in open_clip's class CLIP, the whole model, which has that tower's parts."""
        return getattr(self.clip, "text", self.clip)

    def train(self, mode: bool = True) -> OpenCLIPBackbone:
        super().train(mode)
        self.clip.eval()
        return self

    def freeze(self, share: float, *, stem: bool) -> None:
        frozen = [
            parameter for name, parameter in self.clip.named_parameters() if name in ("logit_scale", "logit_bias")
        ]
        for tower, places in ((self.clip.visual, IMAGE_BLOCKS), (self.text, TEXT_BLOCKS)):
            blocks = blocks_of(tower, places)
            frozen += [p for block in blocks[: int(share * len(blocks))] for p in block.parameters()]
            if stem:
                frozen += [parameter for name, parameter in tower.named_parameters() if is_stem(name)]
        for parameter in frozen:
            parameter.requires_grad_(False)

    def constant_weights(self) -> list[nn.Parameter]:
        return []

    def start_images(self, views: Tensor) -> Tensor:
        return views

    def finish_images(self, x: Tensor) -> Tensor:
        """Views, (..., 3, S, S), as embeddings, (..., D), float32."""
        return unit_norm(self.clip.encode_image(x.flatten(0, -4))).unflatten(0, x.shape[:-3])

    def encode(self, text: str, length: int) -> tuple[int, ...]:
        """A text's token numbers, padded or cut to that many."""
        return token_numbers(self.tokenizer, text, length)

    def tokenize(self, text: str) -> tuple[int, ...]:
        """A text's token numbers without the padding at the end; one number at least."""
        return without_padding(self.encode(text, self.context), self.padding)

    def is_too_long(self, text: str) -> bool:
        # With room for one token more, only a text that was cut gets longer.
        lengths = (self.context, self.context + 1)
        own = [len(without_end(self.encode(text, length), self.encode("", length))) for length in lengths]
        return own[0] != own[1]

    def constant_text_weights(self) -> list[nn.Parameter]:
        return []

    def text_weights(self) -> list[nn.Parameter]:
        image = set(self.clip.visual.parameters())
        return [parameter for parameter in self.clip.parameters() if parameter not in image]

    def start_text(self, numbers: Tensor) -> Tensor:
        raise UserError(f"{self.name}: nothing of its text tower is kept")

    def embed_texts(self, packed: PackedTexts, halves: Sequence[Tensor] | None = None) -> Tensor:
        # A row a text, padded on the right to the whole context: what SigLIP reads is its last place.
        count, texts = sum(packed.lengths), len(packed.lengths)
        rows = packed.numbers.new_full((texts, self.context), self.padding)
        owner = packed.owner.flatten()[packed.places[:count]]
        rows = rows.index_put((owner, packed.positions[:count]), packed.numbers[:count])
        # Spare rows repeat a text: the mean over the tokens of a row without any is NaN, and so are all gradients then.
        rows = torch.cat([rows, rows[:1].expand(len(packed.ends) - texts, -1)])
        return unit_norm(self.clip.encode_text(rows))

    def embed_padded(self, tokens: Tensor) -> Tensor:
        raise UserError(f"{self.name}: its texts are not padded with zeros")


@functools.lru_cache(maxsize=65_536)  # a prompt comes back every epoch
def token_numbers(tokenizer: Any, text: str, length: int) -> tuple[int, ...]:
    """A text's token numbers by a tokenizer of open_clip's, padded or cut to that many."""
    with TOKENIZING:
        return tuple(map(int, tokenizer([text], context_length=length)[0]))


def size_of(visual: Any, name: str) -> int:
    """Pixels a side of the square pictures that an image tower takes."""
    size = visual.image_size
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    if height != width:
        raise UserError(f"{name}: takes pictures of {height} x {width}, and views are squares; choose another model")
    return int(height)


def context_of(clip: Any, tokenizer: Any) -> int:
    """Tokens that the text tower is given: Hugging Face's towers have more places than open_clip uses, or no limit."""
    stated = (getattr(one, "context_length", None) for one in (tokenizer, clip, getattr(clip, "text", None)))
    return int(next(length for length in stated if length))


def without_padding(numbers: Sequence[int], padding: int) -> tuple[int, ...]:
    """Token numbers up to the last that is no padding; one number at least."""
    length = len(numbers)
    while length > 1 and numbers[length - 1] == padding:
        length -= 1
    return tuple(numbers[:length])


def without_end(numbers: Sequence[int], blank: Sequence[int]) -> Sequence[int]:
    """Token numbers up to where they begin to equal those of a text without words, `blank`, of the same length."""
    length = len(numbers)
    while length and numbers[length - 1] == blank[length - 1]:
        length -= 1
    return numbers[:length]


def blocks_of(tower: nn.Module, places: Sequence[str]) -> list[nn.Module]:
    """A tower's blocks, from the input; none where they are not found."""
    for place in places:
        with contextlib.suppress(AttributeError):
            return list(tower.get_submodule(place).children())
    return []


def is_stem(name: str) -> bool:
    """Whether a parameter of a tower lies below its blocks, by its name in the tower."""
    return bool(STEM.search(name)) and "blocks." not in name and "stages." not in name and "visual." not in name
