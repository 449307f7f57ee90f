"""Texts packed into rows, end to end, without padding between them. All of it is made on the host, for one copy."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# The usual number of tokens in a row of packed texts. Longer rows cost more attention; shorter rows waste more padding.
ROW_TOKENS = 256
ROWS_AT_ONCE, TEXTS_AT_ONCE = 4, 64  # of which `fixed` shapes have a multiple


@dataclass(frozen=True)
class PackedTexts:
    """N texts in R rows of P tokens. The tokens are listed text by text, then padding: R * P in all."""

    lengths: tuple[int, ...]  # in tokens, of each text
    shape: tuple[int, int]  # (R, P)
    numbers: Tensor  # (R * P,), each token's number; padding has 0
    positions: Tensor  # (R * P,), its position in its text
    places: Tensor  # (R * P,), where it lies in the flattened rows: each place once
    owner: Tensor  # (R, P), the text that a place belongs to; -1: padding
    ends: Tensor  # (N,) or more, where each text's end token lies

    @classmethod
    def of(cls, tokens: Sequence[Sequence[int]], *, fixed: bool = False) -> PackedTexts:
        """Pack texts, at least one, each given as token numbers, into rows of nearly equal fill.

        With `fixed`, rows have 256 places, or more if a text has, and rows and ends are padded to multiples, so that
        successive batches have equal shapes, as a GPU likes them. Otherwise rows are as long as the fullest one.
        """
        lengths = tuple(map(len, tokens))
        most = round_up(max(lengths), ROW_TOKENS)
        rows, ends = -(-sum(lengths) // most), len(lengths)
        if fixed:
            rows, ends = round_up(rows, ROWS_AT_ONCE), round_up(ends, TEXTS_AT_ONCE)
        begins, longest = spread(lengths, rows)
        while fixed and longest > most:
            rows += ROWS_AT_ONCE
            begins, longest = spread(lengths, rows)
        longest = most if fixed else longest
        starts = torch.tensor([row * longest + used for row, used in begins])
        counts = torch.tensor(lengths)
        text_of = torch.arange(len(lengths)).repeat_interleave(counts)  # (T,)
        within = torch.arange(len(text_of)) - (counts.cumsum(0) - counts)[text_of]
        taken = starts[text_of] + within
        owner = torch.full((rows * longest,), -1)
        owner[taken] = text_of
        free = (owner < 0).nonzero().squeeze(1)
        padding = torch.zeros_like(free)
        return cls(
            lengths=lengths,
            shape=(rows, longest),
            numbers=torch.cat([torch.tensor([number for text in tokens for number in text]), padding]),
            positions=torch.cat([within, padding]),
            places=torch.cat([taken, free]),
            owner=owner.view(rows, longest),
            ends=torch.cat([starts + counts - 1, torch.zeros(ends - len(lengths), dtype=torch.int64)]),
        )

    @property
    def padding(self) -> int:
        """How many of the places hold no token."""
        return len(self.numbers) - sum(self.lengths)

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by field, to be copied to a device."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> PackedTexts:
        """The same texts with copies of the tensors that `tensors` gave."""
        return PackedTexts(self.lengths, self.shape, **tensors)

    def mask(self) -> Tensor:
        """(R, 1, P, P), true where a token may look: at those of its own text up to itself."""
        return (self.owner[:, :, None] == self.owner[:, None, :]).tril()[:, None]

    def lay(self, tokens: Tensor) -> Tensor:
        """Tokens text by text, (T, W) or with padding (R * P, W), laid into rows, (R, P, W)."""
        rows, longest = self.shape
        laid = tokens.new_zeros(rows * longest, tokens.shape[-1])
        return laid.index_copy(0, self.places[: len(tokens)], tokens).unflatten(0, self.shape)


def spread(lengths: Sequence[int], rows: int) -> tuple[list[tuple[int, int]], int]:
    """Row and first place of each text, so that rows are filled nearly equally; and the fullest row's fill."""
    fill = [(0, row) for row in range(rows)]
    begins: list[tuple[int, int]] = [(0, 0)] * len(lengths)
    for text in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        used, row = heapq.heappop(fill)
        begins[text] = (row, used)
        heapq.heappush(fill, (used + lengths[text], row))
    return begins, max(used for used, _ in fill)


def round_up(count: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-count // step) * step
