"""Encode texts: each distinct text once, and again only when the weights that it passes through change."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from mgs.backbones.backbone import Backbone
from mgs.backbones.casts import version
from mgs.backbones.packing import PackedTexts

MOST_KEPT = 1 << 28  # bytes in one store, 256 MiB: 131,072 embeddings of 512 numbers
CHUNK = 256  # texts in one call where nothing has to be kept for a backward pass
Pack: TypeAlias = Callable[[Sequence[str]], PackedTexts]  # packs texts, and brings them to the device of the weights


class Kept:
    """Tensors by text. All are dropped when the precision changes, or a weight that they depend on.

    Beyond `MOST_KEPT` bytes, the least recently used ones are dropped.
    """

    def __init__(self, weights: Iterable[nn.Parameter]) -> None:
        self.weights = list(weights)
        self.state: tuple = ()
        self.lock = threading.Lock()  # a metric's callers may be several threads
        self.forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"weights": self.weights}  # for another process, or a copy

    def __setstate__(self, state: dict[str, Any]) -> None:
        Kept.__init__(self, state["weights"])

    def get(self, texts: Sequence[str], compute: Callable[[Sequence[str]], Iterable[Tensor]]) -> list[Tensor]:
        """One tensor per text, without gradients; `compute` makes those that are not kept yet."""
        with self.lock:
            device = self.weights[0].device
            half = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
            state = (half, *((weight.data_ptr(), version(weight)) for weight in self.weights))
            if state != self.state:
                self.forget()
                self.state = state
            new = [text for text in texts if text not in self.tensors]
            # A kept tensor may be part of a backward pass later, which tensors made in inference mode refuse.
            with torch.inference_mode(False), torch.no_grad():
                for i in range(0, len(new), CHUNK):
                    chunk = new[i : i + CHUNK]
                    for text, tensor in zip(chunk, compute(chunk), strict=True):
                        self.tensors[text] = tensor.clone()  # a view would hold all of its chunk
                        self.held += tensor.nbytes
            for text in texts:
                self.tensors.move_to_end(text)
            found = [self.tensors[text] for text in texts]
            while self.held > MOST_KEPT:
                _, tensor = self.tensors.popitem(last=False)
                self.held -= tensor.nbytes
            return found

    def forget(self) -> None:
        """Drop everything; for changes that PyTorch doesn't count, such as a fused optimiser's."""
        self.tensors: OrderedDict[str, Tensor] = OrderedDict()  # the most recently used last
        self.held = 0  # bytes


class TextEncoder:
    """A backbone's text tower as a function of texts, which `pack` turns into rows on the device of the weights."""

    def __init__(self, backbone: Backbone, pack: Pack) -> None:
        self.backbone, self.pack = backbone, pack
        constant = backbone.constant_text_weights()
        self.halves, self.embeddings = Kept(constant) if constant else None, Kept(backbone.text_weights())

    @property
    def trains(self) -> bool:
        """Whether a pass now must have gradients, so that embeddings cannot be kept."""
        return torch.is_grad_enabled() and any(weight.requires_grad for weight in self.embeddings.weights)

    def __call__(self, texts: Sequence[str], packed: PackedTexts | None = None) -> Tensor:
        """Distinct texts as unit-norm float32 embeddings, (N, D), perhaps with more rows behind them.

        `packed` are the same texts, packed and on the device, for training, where all of them are computed.
        """
        if not texts:
            return torch.empty(0, 0)
        if self.trains:
            return self.train(texts, packed or self.pack(texts))
        return torch.stack(
            self.embeddings.get(texts, lambda new: self.backbone.embed_texts(self.pack(new))[: len(new)])
        )

    def train(self, texts: Sequence[str], packed: PackedTexts) -> Tensor:
        """The embeddings computed now, with gradients, (N, D).

        What the constant part makes of each text is kept, which is twenty times as large as an embedding.
        """
        if self.halves is None:
            return self.backbone.embed_texts(packed)
        tokens = dict(zip(texts, packed.numbers.split_with_sizes([*packed.lengths, packed.padding]), strict=False))
        halves = self.halves.get(texts, lambda new: [self.backbone.start_text(tokens[text]) for text in new])
        return self.backbone.embed_texts(packed, halves)
