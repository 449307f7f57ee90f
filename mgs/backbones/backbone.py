"""What the rest of the package knows of a CLIP: `Backbone`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from mgs.backbones.architecture import OPENAI, Architecture
from mgs.backbones.packing import PackedTexts
from mgs.backbones.token_maps import LastBlock
from mgs.backbones.towers import RunBlock
from mgs.errors import UserError


class Backbone(nn.Module, ABC):
    """A CLIP in float32: a module with two towers, which give unit-norm embeddings of one width D.

    Each tower runs in two parts: `freeze` says how much of it never changes, and the `start_...` methods run that
    part, so that its output can be kept. Below, L is a number of tokens, and W a tower's width.
    """

    name: str  # as it was asked for: a row of BACKBONES, or a file
    sha256: str  # of the file that it was read from; where `architecture` is not OpenAI's, of both
    architecture: Architecture = OPENAI  # what the tensors do not show
    embeddable: bool = True  # a checkpoint can hold all of it, so it need not be published
    trainable: bool = True  # False: it is only ever frozen
    any_size: bool = False  # it takes views of any size, not only size x size
    published: bool = False  # anyone can fetch the same weights by `name`, as its row says
    size: int  # pixels a side of the square views that the image tower takes
    mean: Tensor  # (3, 1, 1), subtracted from pixels on 0-1
    std: Tensor  # (3, 1, 1), by which they are divided then
    context: int  # tokens that a text is cut to, with start and end token
    logit_scale: Tensor  # (), the logarithm of what cosines are multiplied by in pre-training
    run_block: RunBlock  # what carries an image through a block; it may be replaced by a compiled one

    @abstractmethod
    def freeze(self, share: float, *, stem: bool) -> None:
        """Freeze `logit_scale`, the first `share` of each tower's blocks, and with `stem` all that lies below them."""

    @abstractmethod
    def constant_weights(self) -> list[nn.Parameter]:
        """The weights of the image tower's constant part; none where all of it trains."""

    @abstractmethod
    def start_images(self, views: Tensor) -> Tensor:
        """Views, (..., 3, S, S), through the constant part of the image tower, (..., L, W)."""

    @abstractmethod
    def finish_images(self, x: Tensor) -> Tensor:
        """What `start_images` gave, (..., L, W), as embeddings, (..., D), float32."""

    def finish_with_tokens(self, x: Tensor) -> tuple[Tensor, LastBlock | None]:
        """What `finish_images` gives, and the last block with its tokens; None where the tower shows none."""
        return self.finish_images(x), None

    @abstractmethod
    def tokenize(self, text: str) -> tuple[int, ...]:
        """A text's token numbers, from start to end token, at most `context`."""

    @abstractmethod
    def is_too_long(self, text: str) -> bool:
        """Whether a text has more tokens than the towers read, and so is cut short."""

    @abstractmethod
    def constant_text_weights(self) -> list[nn.Parameter]:
        """The weights of the text tower's constant part; none where all of it trains."""

    @abstractmethod
    def text_weights(self) -> list[nn.Parameter]:
        """All weights of the text tower."""

    @abstractmethod
    def start_text(self, numbers: Tensor) -> Tensor:
        """One text's token numbers, (L,), through the constant part of the text tower, (L, W)."""

    @abstractmethod
    def embed_texts(self, packed: PackedTexts, halves: Sequence[Tensor] | None = None) -> Tensor:
        """Packed texts, on the device of the weights, as embeddings, float32, (N, D), or more rows after those.

        `halves` are what `start_text` gave for each text, to continue from there.
        """

    @abstractmethod
    def embed_padded(self, tokens: Tensor) -> Tensor:
        """Texts as token numbers, (N, L), zeros behind the end token, as embeddings, (N, D), float32; the plain way."""

    def allow_any_size(self) -> None:
        """Take views of any size from now on, where the image tower can without position embeddings: see `any_size`."""
        return

    def word_vectors(self, numbers: Tensor) -> Tensor:
        """Token numbers, (..., L), as the vectors that the text tower begins with, (..., L, W).

        Raises `UserError` where the text tower cannot begin with learned vectors.
        """
        raise UserError(f"{self.name}: its text tower cannot learn prompts; choose one of OpenAI's CLIPs")

    def embed_words(self, words: Tensor) -> Tensor:
        """Texts as word vectors, (N, L, W), without positions, from start to end token, as embeddings, (N, D), float32.

        All are of one length, and read at their last place. Gradients flow to `words`. Raises `UserError` as
        `word_vectors` does.
        """
        raise UserError(f"{self.name}: its text tower cannot learn prompts; choose one of OpenAI's CLIPs")
