"""Encode texts: each distinct text once, and again only when the weights that it passes through change."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mgs.backbones.openai import Clip, token_numbers
from mgs.backbones.towers import finish_texts, start_texts

MOST_KEPT = 1 << 28  # bytes in one store, 256 MiB: 131,072 embeddings of 512 numbers
CHUNK = 256  # texts in one call where nothing has to be kept for a backward pass


class Kept:
    """Tensors by text. All are dropped when the precision changes, or a weight that they depend on.

    Beyond `MOST_KEPT` bytes, the least recently used ones are dropped.
    """

    def __init__(self, weights: Iterable[nn.Parameter]) -> None:
        self.weights = list(weights)
        self.state: tuple = ()
        self.forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"weights": self.weights, "state": (), "tensors": OrderedDict(), "held": 0}  # for another process

    def get(self, texts: Sequence[str], compute: Callable[[Sequence[str]], Iterable[Tensor]]) -> list[Tensor]:
        """One tensor per text, without gradients; `compute` makes those that are not kept yet."""
        device = self.weights[0].device
        half = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
        state = (half, *((weight.data_ptr(), weight._version) for weight in self.weights))
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
    """A CLIP's text tower as a function of texts; its first `constant` blocks, and the stem, never change."""

    def __init__(self, clip: Clip, constant: int) -> None:
        self.clip, self.constant = clip, constant
        blocks = clip.transformer.resblocks
        below = [clip.token_embedding.weight, clip.positional_embedding, *blocks[:constant].parameters()]
        above = [*blocks[constant:].parameters(), *clip.ln_final.parameters(), clip.text_projection]
        self.halfway, self.embeddings = Kept(below), Kept([*below, *above])

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Distinct texts as unit-norm float32 embeddings, (N, D)."""
        trains = any(weight.requires_grad for weight in self.embeddings.weights)
        if torch.is_grad_enabled() and trains:
            return self.encode(texts, keep_halves=True)
        return torch.stack(self.embeddings.get(texts, self.encode))

    def encode(self, texts: Sequence[str], *, keep_halves: bool = False) -> Tensor:
        """The embeddings computed now, (N, D).

        `keep_halves` is for training, where weights change too often to keep embeddings. It keeps what the constant
        part makes of each text, which is twenty times as large as an embedding.
        """
        tokens = [token_numbers(text, self.clip.context_length) for text in texts]
        if keep_halves and self.constant:
            x = torch.cat(self.halfway.get(texts, self.start))
        else:
            x = start_texts(self.clip, tokens, self.constant)
        return finish_texts(self.clip, x, [len(text) for text in tokens], self.constant)

    def start(self, texts: Sequence[str]) -> Sequence[Tensor]:
        """Each text's tokens after the constant blocks, (L, W), L its own length.

        Each text is computed alone. So its bits do not depend on which other texts were new at the time; that may
        differ in a resumed run.
        """
        return [
            start_texts(self.clip, [token_numbers(text, self.clip.context_length)], self.constant) for text in texts
        ]
