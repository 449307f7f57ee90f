"""Texts to embeddings, each distinct text once, and not again while the weights that it passes stand still."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from mgs.model.clip_backbone import Clip, token_numbers
from mgs.model.encoders import finish_texts, start_texts

MOST_KEPT = 65_536  # texts; 128 MiB of embeddings of 512 numbers
CHUNK = 256  # texts in one call where nothing has to be kept for a backward pass


class Kept:
    """Tensors by text, forgotten when a weight that they depend on changes, or the precision they are computed in."""

    def __init__(self, weights: Iterable[nn.Parameter]) -> None:
        self.weights = list(weights)
        self.tensors: dict[str, Tensor] = {}
        self.state: tuple = ()

    def get(self, texts: Sequence[str], compute: Callable[[Sequence[str]], Iterable[Tensor]]) -> list[Tensor]:
        """One tensor per text, those that are not there yet from `compute`, without gradients."""
        device = self.weights[0].device
        half = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
        state = (half, *((weight.data_ptr(), weight._version) for weight in self.weights))
        if state != self.state or len(self.tensors) + len(texts) > MOST_KEPT:
            self.tensors, self.state = {}, state
        new = [text for text in texts if text not in self.tensors]
        # What is kept may meet a gradient later, which tensors made in inference mode refuse.
        with torch.inference_mode(False), torch.no_grad():
            for i in range(0, len(new), CHUNK):
                chunk = new[i : i + CHUNK]
                self.tensors.update(zip(chunk, compute(chunk), strict=True))
        return [self.tensors[text] for text in texts]

    def forget(self) -> None:
        """Drop everything; for changes that PyTorch doesn't count, such as a fused optimiser's."""
        self.tensors = {}


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
            return self.encode(texts)
        return torch.stack(self.embeddings.get(texts, self.encode))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """The embeddings computed now, (N, D); of the constant part only what is not known yet."""
        tokens = [token_numbers(text, self.clip.context_length) for text in texts]
        lengths = [len(text) for text in tokens]
        x = torch.cat(self.halfway.get(texts, self.start)) if self.constant else start_texts(self.clip, tokens)
        return finish_texts(self.clip, x, lengths, self.constant)

    def start(self, texts: Sequence[str]) -> Sequence[Tensor]:
        """Each text's tokens after the constant blocks, (L, W), L its own length.

        Each is computed alone: then its bits don't depend on which texts were new when, as after an interruption.
        """
        return [
            start_texts(self.clip, [token_numbers(text, self.clip.context_length)], self.constant) for text in texts
        ]
