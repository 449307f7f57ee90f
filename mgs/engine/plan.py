"""A batch as the host plans it and as the device gets it: parts, tensors by name, and scores on their way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mgs.backbones.packing import PackedTexts, round_up
from mgs.engine.transfer import Late, Sent
from mgs.images.cuts import Draw
from mgs.methods.method import Scores

COLUMNS_AT_ONCE = 8  # of which a batch's `numbers` have a multiple on a GPU, so that shapes repeat


@dataclass(frozen=True)
class Part:
    """Images of a batch that have as many views each, with their prompts."""

    members: list[int]  # their positions in the batch
    inputs: list[Tensor]  # pictures, uint8 (3, H, W); or what the backbone's constant part made of them, (V, L, W)
    texts: list[str]
    packed: PackedTexts | None  # the texts' tokens, where they have to be computed with gradients
    numbers: dict[str, Tensor]
    draws: list[Draw] | None = None  # in training, what decides random cuts


@dataclass(frozen=True)
class Batch:
    """B images with their prompts, perhaps with MOS, on the device or on their way there."""

    parts: list[Part]
    mos: Scores  # (B,) each, NaN where there is none
    halfway: bool  # whether inputs are what `Engine.start` made of pictures
    sent: Sent

    @property
    def order(self) -> list[int]:
        """Position in the batch of each score, and of each MOS."""
        return [member for part in self.parts for member in part.members]


class LateScores:
    """A batch's scores on their way to the host."""

    def __init__(self, batch: Batch, scores: Scores) -> None:
        self.order, self.dimensions = batch.order, list(scores)
        self.table = Late(torch.stack(list(scores.values())))

    def read(self) -> list[dict[str, float]]:
        """Each image's scores, in the order in which the batch was given."""
        columns = self.table.read()
        found: list[dict[str, float]] = [{}] * len(self.order)
        for i, position in enumerate(self.order):
            found[position] = {dimension: columns[j][i] for j, dimension in enumerate(self.dimensions)}
        return found


def flatten(parts: Sequence[Part]) -> dict[str, Tensor]:
    """The parts' tensors by name."""
    found: dict[str, Tensor] = {}
    for i, part in enumerate(parts):
        found |= {f"{i}.input.{j}": value for j, value in enumerate(part.inputs)}
        found |= {f"{i}.numbers.{name}": value for name, value in part.numbers.items()}
        found |= {f"{i}.packed.{name}": value for name, value in (part.packed.tensors() if part.packed else {}).items()}
    return found


def unflatten(part: Part, prefix: str, tensors: Mapping[str, Tensor]) -> Part:
    """A part with copies of its tensors, by the names that `flatten` gave them."""
    return replace(
        part,
        inputs=[tensors[f"{prefix}input.{j}"] for j in range(len(part.inputs))],
        numbers={name: tensors[f"{prefix}numbers.{name}"] for name in part.numbers},
        packed=part.packed
        and part.packed.with_tensors({n: tensors[f"{prefix}packed.{n}"] for n in part.packed.tensors()}),
    )


def pad_columns(numbers: Tensor) -> Tensor:
    """A table of numbers, (B, n), with columns of 0 up to a multiple; (B,) stays as it is."""
    if numbers.ndim == 1:
        return numbers
    return F.pad(numbers, (0, round_up(numbers.shape[1], COLUMNS_AT_ONCE) - numbers.shape[1]))
