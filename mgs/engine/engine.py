"""A method on a device: `stage` brings a batch there, `score` scores it, and in between nobody waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mgs.backbones.backbone import Backbone
from mgs.backbones.packing import PackedTexts, round_up
from mgs.backbones.texts import TextEncoder
from mgs.config import Config
from mgs.dimensions import MOS_MAX, Dimension, Prompt
from mgs.engine.transfer import Late, Sender, Sent
from mgs.images.cuts import Cuts, count_views, cut_views
from mgs.machine import Machine, autocast, exact_products
from mgs.methods.method import Method, Scores
from mgs.methods.table import METHODS, choose_cuts

COLUMNS_AT_ONCE = 8  # of which a batch's `numbers` have a multiple on a GPU, so that shapes repeat


@dataclass(frozen=True)
class Part:
    """Images of a batch that have as many views each, with their prompts."""

    members: list[int]  # their positions in the batch
    inputs: list[Tensor]  # pictures, uint8 (3, H, W); or what the backbone's constant part made of them, (V, L, W)
    texts: list[str]
    packed: PackedTexts | None  # the texts' tokens, where they have to be computed with gradients
    numbers: dict[str, Tensor]


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

    def read(self) -> list[dict[Dimension, float]]:
        """Each image's scores, in the order in which the batch was given."""
        columns = self.table.read()
        found: list[dict[Dimension, float]] = [{}] * len(self.order)
        for i, position in enumerate(self.order):
            found[position] = {dimension: columns[j][i] for j, dimension in enumerate(self.dimensions)}
        return found


class Embedded(NamedTuple):
    """What a method's `score` takes."""

    images: Tensor  # (B, V, D)
    texts: Tensor  # (T, D)
    numbers: Mapping[str, Tensor]


class Engine:
    """A method on a device, with the cuts that it sees pictures through. One thread at a time may use it.

    `stage` may run in another thread than the rest: it keeps nothing.
    """

    def __init__(
        self, method: Method, cuts: Cuts, machine: Machine, *, scale: tuple[float, float] = (0.0, MOS_MAX)
    ) -> None:
        """Move `method`, its backbone included, to the machine's device. `scale` is the range of its scores."""
        self.method, self.cuts, self.scale = method.to(machine.device), cuts, scale
        self.backbone = method.backbone
        self.work_on(machine)

    def work_on(self, machine: Machine) -> None:
        """Work on another machine from now on, to whose device somebody has moved the weights."""
        self.machine, self.sender = machine, Sender(machine.device)
        self.texts = TextEncoder(self.backbone, partial(pack, self.backbone, self.sender))  # no circle: freed at once

    @property
    def fixed(self) -> bool:
        """Whether texts are padded to shapes that repeat, which a GPU needs to run ahead."""
        return self.machine.device.type == "cuda"

    def stage(
        self,
        inputs: Sequence[Tensor],
        prompts: Sequence[Prompt],
        mos: Mapping[Dimension, Sequence[float]] | None = None,
        *,
        halfway: bool = False,
    ) -> Batch:
        """Begin to bring a batch to the device: all that the host knows of it in one copy.

        `inputs` are pictures, uint8 (3, H, W), or with `halfway` what `start` made of them; one prompt each. `mos` has
        a number for each image, NaN where there is none.
        """
        counts = [len(one) if halfway else count_views(one.shape, self.cuts) for one in inputs]
        groups = [[i for i, count in enumerate(counts) if count == views] for views in dict.fromkeys(counts)]
        parts = [self.plan(members, inputs, prompts) for members in groups]
        order = [member for part in parts for member in part.members]
        wanted = {dimension: torch.tensor(list(values))[order] for dimension, values in (mos or {}).items()}
        sent = self.sender.send({f"mos.{name}": value for name, value in wanted.items()} | flatten(parts))
        parts = [unflatten(part, f"{i}.", sent.tensors) for i, part in enumerate(parts)]
        return Batch(parts, {name: sent.tensors[f"mos.{name}"] for name in wanted}, halfway, sent)

    def plan(self, members: list[int], inputs: Sequence[Tensor], prompts: Sequence[Prompt]) -> Part:
        """A part of a batch, still on the host."""
        reading = self.method.read([prompts[i] for i in members])
        packed = pack_on_host(self.backbone, reading.texts, fixed=self.fixed) if self.method.training else None
        numbers = reading.numbers
        if self.fixed:
            numbers = {name: pad_columns(value) for name, value in numbers.items()}
        return Part(members, [inputs[i] for i in members], reading.texts, packed, numbers)

    def score(self, batch: Batch) -> Scores:
        """The scores of a batch, (B,) each, on 0-5, on the device, in the batch's `order`.

        With gradients where they are on.
        """
        batch.sent.arrive()
        parts = [self.score_part(part, batch.halfway) for part in batch.parts]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if len(parts) > 1 else parts[0]

    def score_part(self, part: Part, halfway: bool) -> Scores:
        """The scores of images that have as many views each."""
        embedded = self.embed(part, halfway=halfway)
        with torch.autocast(self.machine.device.type, enabled=False), exact_products:
            return self.to_mos(self.method.score(*embedded))

    def embed(self, part: Part, *, halfway: bool = False) -> Embedded:
        """The embeddings that a part's images are scored by."""
        inputs = torch.stack(part.inputs).float() if halfway else self.cut(part.inputs)  # autocast may refuse float16
        with autocast(self.machine.device, self.machine.dtype), exact_products:
            images = self.backbone.finish_images(inputs if halfway else self.backbone.start_images(inputs))
            return Embedded(images, self.texts(part.texts, part.packed), part.numbers)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Distinct texts as embeddings, (N, D), which are kept; without gradients, but fit to meet some."""
        with torch.no_grad(), autocast(self.machine.device, self.machine.dtype), exact_products:
            return self.texts(texts)

    def start(self, picture: Tensor) -> Tensor:
        """A picture, uint8 (3, H, W), after the backbone's constant part, (V, L, W)."""
        picture = self.sender.send({"picture": picture}).arrive()["picture"]
        with autocast(self.machine.device, self.machine.dtype), exact_products:
            return self.backbone.start_images(self.cut([picture]))[0]

    def cut(self, pictures: Sequence[Tensor]) -> Tensor:
        """Pictures on the device, of any sizes that give as many views, as views, (B, V, 3, S, S)."""
        by_size: dict[torch.Size, list[int]] = {}
        for i, picture in enumerate(pictures):
            by_size.setdefault(picture.shape, []).append(i)
        views: dict[int, Tensor] = {}
        for members in by_size.values():
            together = torch.stack([pictures[i] for i in members])
            cut = cut_views(together, self.cuts, self.backbone.size, self.backbone.mean, self.backbone.std)
            if len(by_size) == 1:
                return cut
            views.update(zip(members, cut, strict=True))
        return torch.stack([views[i] for i in range(len(pictures))])

    def show_views(self, picture: Tensor) -> Tensor:
        """A picture's views as the model sees them, (V, 3, S, S), on 0-1, for people to look at."""
        picture = self.sender.send({"picture": picture}).arrive()["picture"]
        return self.cut([picture])[0] * self.backbone.std + self.backbone.mean

    def to_mos(self, scores: Scores) -> Scores:
        """Scores on the method's own scale, mapped linearly onto 0-5."""
        worst, best = self.scale
        if (worst, best) == (0.0, MOS_MAX):
            return scores
        return {name: (value - worst) * (MOS_MAX / (best - worst)) for name, value in scores.items()}


def make_engine(method: Method, config: Config, machine: Machine) -> Engine:
    """A config's method on a machine, with the config's cuts."""
    row = METHODS[config.method]
    return Engine(method, choose_cuts(config.method, config.views), machine, scale=row.scale)


def pack_on_host(backbone: Backbone, texts: Sequence[str], *, fixed: bool) -> PackedTexts:
    """Texts as rows of tokens."""
    return PackedTexts.of([backbone.tokenize(text) for text in texts], fixed=fixed)


def pack(backbone: Backbone, sender: Sender, texts: Sequence[str]) -> PackedTexts:
    """Texts as rows of tokens, on the device that `sender` sends to."""
    packed = pack_on_host(backbone, texts, fixed=sender.device.type == "cuda")
    return packed.with_tensors(sender.send(packed.tensors()).arrive())


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
