"""How pictures reach a model: which views, how large, on what device, in what precision, and in what batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mgs.config import Config, ViewsConfig
from mgs.datasets.samples import Sample
from mgs.dimensions import Prompt
from mgs.errors import UserError
from mgs.images.cache import ImageCache
from mgs.images.cuts import make_views
from mgs.images.decode import BadImage
from mgs.interrupts import stop_if_interrupted
from mgs.machine import autocast, choose_device, choose_precision, exact_products
from mgs.methods.mgs import Scores

Model = Callable[[Tensor, Sequence[Prompt]], Scores]  # (B, V, 3, S, S) views and B prompts to B scores
# A sample's tensor is its picture, uint8 (3, H, W); if `Pipeline.halfway` is set, its activations (V, L, W) instead.
Batch = list[tuple[Tensor, Sample]]
Item = TypeVar("Item")
AHEAD = 2  # batches fetched while the device works on another
EVAL_BATCH = {"cuda": 32, "cpu": 8}  # images scored at once, at least


@dataclass(frozen=True)
class Pipeline:
    """Turns samples into scores. `halfway`, if set, reads a sample's activations after the model's constant half."""

    settings: ViewsConfig
    size: int
    device: torch.device
    dtype: torch.dtype
    images: ImageCache
    halfway: Callable[[Sample], Tensor] | None = None
    workers: int = 1  # threads that read pictures

    @classmethod
    def of(cls, config: Config, settings: ViewsConfig, size: int, images: ImageCache) -> Pipeline:
        """A pipeline on the device and in the precision of `config`; views are as `settings` say, `size` pixels a side.

        Raises `UserError` for a device that is not there.
        """
        device = choose_device(config.device)
        dtype = choose_precision(config.precision, device)
        return cls(settings, size, device, dtype, images, workers=config.data.workers)

    def read(self, sample: Sample) -> Tensor:
        """A sample's tensor, as in `Batch`; a picture that is not kept is decoded. Raises `UserError`."""
        try:
            return self.halfway(sample) if self.halfway else self.images.read(sample.image)
        except BadImage as error:
            raise UserError(f"{error}; it was readable when this began; put it back") from None

    def batches(self, samples: Sequence[Sample], size: int) -> Iterator[Batch]:
        """Batches of `size`, on the device, fetched ahead.

        Raises `UserError` for a picture that cannot be read any more, and `Interrupted` after a signal.
        """

        def fetch() -> Iterator[Batch]:
            with ThreadPoolExecutor(max(self.workers, 1)) as pool:  # threads: Pillow decodes without the GIL
                for start in range(0, len(samples), size):
                    part = samples[start : start + size]
                    tensors = map(self.move, pool.map(self.read, part))
                    yield list(zip(tensors, part, strict=True))

        stop_if_interrupted()
        for batch in ahead(fetch()):
            yield batch
            stop_if_interrupted()  # here the caller has finished with the batch

    def move(self, tensor: Tensor) -> Tensor:
        """A tensor on the device."""
        if tensor.device.type == self.device.type:
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def views(self, pictures: Sequence[Tensor]) -> list[Tensor]:
        """Each picture's views, (V, 3, S, S), on the device; pictures of one size are cut together."""
        by_size: dict[torch.Size, list[int]] = {}
        for i, picture in enumerate(pictures):
            by_size.setdefault(picture.shape, []).append(i)
        views: dict[int, Tensor] = {}
        for members in by_size.values():
            together = torch.stack([pictures[i] for i in members]).to(self.device)
            cut = make_views(together, self.size, layout=self.settings.layout, antialias=self.settings.antialias)
            views.update(zip(members, cut, strict=True))
        return [views[i] for i in range(len(pictures))]

    def score(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """Dimension -> (B,) predictions, float32."""
        tensors = [tensor for tensor, _ in batch]
        inputs = tensors if self.halfway else self.views(tensors)
        run = model.score_halfway if self.halfway else model  # type: ignore[attr-defined]
        prompts = [Prompt(sample.prompt, sample.prompt_style) for _, sample in batch]
        by_count: dict[int, list[int]] = {}  # pictures of one batch may differ in their number of views under `cover`
        for i, one in enumerate(inputs):
            by_count.setdefault(len(one), []).append(i)
        order, parts = [], []
        for members in by_count.values():
            stacked = torch.stack([inputs[i] for i in members]).float()
            with autocast(self.device, self.dtype), exact_products:
                parts.append(run(stacked, [prompts[i] for i in members]))
            order += members
        back = torch.tensor(order, device=self.device).argsort()
        return {name: torch.cat([vars(part)[name] for part in parts])[back] for name in vars(parts[0])}


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """Positions of `count` samples in the order of one epoch, which seed and epoch alone decide."""
    order: list[int] = np.random.default_rng((seed, epoch)).permutation(count).tolist()
    return order


def eval_batch(config: Config, device: torch.device) -> int:
    """Images that are scored at once where nothing is stored for a backward pass."""
    return max(config.train.batch_size, EVAL_BATCH[device.type])


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items, fetched by a thread while the caller works on those before them."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(max_workers=1) as thread:
        waiting = deque(thread.submit(next, iterator, end) for _ in range(AHEAD))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, iterator, end))
            yield item  # type: ignore[misc]
