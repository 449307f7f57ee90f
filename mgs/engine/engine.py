"""A method on a device: `stage` brings a batch there, `score` scores it, and in between nobody waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from mgs.backbones.backbone import Backbone
from mgs.backbones.packing import PackedTexts
from mgs.backbones.texts import TextEncoder
from mgs.backbones.token_maps import LastBlock
from mgs.config import Config
from mgs.dimensions import MOS_MAX, Dimension, Prompt
from mgs.engine.plan import Batch, Part, flatten, pad_columns, unflatten
from mgs.engine.transfer import Sender
from mgs.images.cuts import Cuts, Draw, cut_views, for_size, shape_of_views
from mgs.machine import Machine, autocast, exact_products
from mgs.methods.method import Method, Scores
from mgs.methods.table import METHODS, choose_cuts


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
        self,
        method: Method,
        cuts: Cuts,
        machine: Machine,
        *,
        scale: tuple[float, float] = (0.0, MOS_MAX),
        training_cuts: Cuts | None = None,
    ) -> None:
        """Move `method`, its backbone included, to the machine's device. `scale` is the range of its scores.

        `training_cuts` are those of training, where they are others.
        """
        self.method, self.cuts, self.scale = method.to(machine.device), cuts, scale
        self.training_cuts = training_cuts or cuts
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
        draws: Sequence[Draw] | None = None,
    ) -> Batch:
        """Begin to bring a batch to the device: all that the host knows of it in one copy.

        `inputs` are pictures, uint8 (3, H, W), or with `halfway` what `start` made of them; one prompt each. `mos` has
        a number for each image, NaN where there is none. With `draws`, one for each picture, they are cut for training.
        """
        cuts = self.cuts if draws is None else self.training_cuts
        shapes = [(len(one),) if halfway else shape_of_views(one.shape, cuts) for one in inputs]
        groups = [[i for i, one in enumerate(shapes) if one == shape] for shape in dict.fromkeys(shapes)]
        parts = [self.plan(members, inputs, prompts, draws) for members in groups]
        order = [member for part in parts for member in part.members]
        wanted = {dimension: torch.tensor(list(values))[order] for dimension, values in (mos or {}).items()}
        sent = self.sender.send({f"mos.{name}": value for name, value in wanted.items()} | flatten(parts))
        parts = [unflatten(part, f"{i}.", sent.tensors) for i, part in enumerate(parts)]
        return Batch(parts, {name: sent.tensors[f"mos.{name}"] for name in wanted}, halfway, sent)

    def plan(
        self, members: list[int], inputs: Sequence[Tensor], prompts: Sequence[Prompt], draws: Sequence[Draw] | None
    ) -> Part:
        """A part of a batch, still on the host."""
        reading = self.method.read([prompts[i] for i in members])
        packed = None
        if self.method.training and reading.texts:
            packed = pack_on_host(self.backbone, reading.texts, fixed=self.fixed)
        numbers = reading.numbers
        if self.fixed:
            numbers = {name: pad_columns(value) for name, value in numbers.items()}
        drawn = None if draws is None else [draws[i] for i in members]
        return Part(members, [inputs[i] for i in members], reading.texts, packed, numbers, drawn)

    def score(self, batch: Batch) -> Scores:
        """The scores of a batch, (B,) each, on 0-5, on the device, in the batch's `order`.

        With gradients where they are on; in evaluation with the method's labels beside them, as their places in its
        lists.
        """
        batch.sent.arrive()
        parts = [self.score_part(part, batch.halfway) for part in batch.parts]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if len(parts) > 1 else parts[0]

    def score_part(self, part: Part, halfway: bool) -> Scores:
        """The scores of images that have as many views each."""
        embedded = self.embed(part, halfway=halfway)
        with torch.autocast(self.machine.device.type, enabled=False), exact_products:
            scores = self.to_mos(self.method.score(*embedded))
            if self.method.training or not self.method.labels:
                return scores
            return scores | {name: which.float() for name, which in self.method.label(*embedded).items()}

    def embed(self, part: Part, *, halfway: bool = False) -> Embedded:
        """The embeddings that a part's images are scored by."""
        inputs = (
            torch.stack(part.inputs).float() if halfway else self.cut(part.inputs, part.draws)
        )  # autocast may refuse float16
        with autocast(self.machine.device, self.machine.dtype), exact_products:
            images = self.backbone.finish_images(inputs if halfway else self.backbone.start_images(inputs))
            return Embedded(images, self.texts(part.texts, part.packed), part.numbers)

    def embed_with_tokens(self, part: Part) -> tuple[Embedded, LastBlock | None]:
        """What `embed` gives of pictures, and what their views' patches add to it; None where the tower shows none."""
        with autocast(self.machine.device, self.machine.dtype), exact_products:
            images, last = self.backbone.finish_with_tokens(self.backbone.start_images(self.cut(part.inputs)))
            return Embedded(images, self.texts(part.texts, part.packed), part.numbers), last

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Distinct texts as embeddings, (N, D), which are kept; without gradients, but fit to meet some."""
        with torch.no_grad(), autocast(self.machine.device, self.machine.dtype), exact_products:
            return self.texts(texts)

    def start(self, picture: Tensor) -> Tensor:
        """A picture, uint8 (3, H, W), after the backbone's constant part, (V, L, W)."""
        picture = self.sender.send({"picture": picture}).arrive()["picture"]
        with autocast(self.machine.device, self.machine.dtype), exact_products:
            return self.backbone.start_images(self.cut([picture]))[0]

    def cut(self, pictures: Sequence[Tensor], draws: Sequence[Draw] | None = None) -> Tensor:
        """Pictures on the device, of any sizes that give as many views, as views, (B, V, 3, S, S)."""
        cuts, backbone = self.cuts if draws is None else self.training_cuts, self.backbone
        by_size: dict[torch.Size, list[int]] = {}
        for i, picture in enumerate(pictures):
            by_size.setdefault(picture.shape, []).append(i)
        views: dict[int, Tensor] = {}
        for members in by_size.values():
            together = torch.stack([pictures[i] for i in members])
            drawn = None if draws is None else [draws[i] for i in members]
            cut = cut_views(together, cuts, backbone.size, backbone.mean, backbone.std, drawn)
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
    row, backbone = METHODS[config.method], method.backbone
    cuts = cuts_for(backbone, config)
    training_cuts = row.training_cuts and replace(
        for_size(row.training_cuts, backbone.size, any_size=backbone.any_size), antialias=cuts.antialias
    )
    return Engine(method, cuts, machine, scale=row.scale, training_cuts=training_cuts)


def cuts_for(backbone: Backbone, config: Config) -> Cuts:
    """The cuts of a config's method, for a backbone's size."""
    return for_size(choose_cuts(config.method, config.views), backbone.size, any_size=backbone.any_size)


def pack_on_host(backbone: Backbone, texts: Sequence[str], *, fixed: bool) -> PackedTexts:
    """Texts as rows of tokens."""
    return PackedTexts.of([backbone.tokenize(text) for text in texts], fixed=fixed)


def pack(backbone: Backbone, sender: Sender, texts: Sequence[str]) -> PackedTexts:
    """Texts as rows of tokens, on the device that `sender` sends to."""
    packed = pack_on_host(backbone, texts, fixed=sender.device.type == "cuda")
    return packed.with_tensors(sender.send(packed.tensors()).arrive())
