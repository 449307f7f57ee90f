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
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler

from mgs.config import Config, ViewsConfig
from mgs.data.datasets import Sample
from mgs.data.image_cache import ImageCache
from mgs.data.images import BadImage, read_image
from mgs.data.views import make_views
from mgs.errors import UserError
from mgs.interrupts import ignore_interrupts, stop_if_interrupted
from mgs.machine import autocast, choose_device, choose_precision, forbid_tf32, keep_freed_memory
from mgs.model.fragments import Prompt
from mgs.model.mgs import Scores

Model = Callable[[Tensor, Sequence[Prompt]], Scores]  # (B, V, 3, S, S) views and B prompts to B scores
Batch = list[tuple[Tensor, Sample]]  # each sample's picture, uint8 (3, H, W), or what is kept of it halfway, (V, L, W)
Item = TypeVar("Item")
AHEAD = 2  # batches fetched while the device works on another
EVAL_BATCH = {"cuda": 32, "cpu": 8}  # images scored at once, at least


@dataclass(frozen=True)
class Pipeline:
    """From samples to scores; `halfway` reads what is kept of the model's constant half, where it is kept."""

    settings: ViewsConfig
    size: int
    device: torch.device
    dtype: torch.dtype
    images: ImageCache
    halfway: Callable[[Sample], Tensor] | None = None

    @classmethod
    def of(cls, config: Config, settings: ViewsConfig, size: int, images: ImageCache) -> Pipeline:
        forbid_tf32()
        keep_freed_memory()
        device = choose_device(config.device)
        return cls(settings, size, device, choose_precision(config.precision, device), images)

    def read(self, sample: Sample) -> Tensor:
        """What is kept of a sample: its picture, or the model's constant half of it."""
        return self.halfway(sample) if self.halfway else self.images.read(sample.image)

    def batches(self, loader: DataLoader) -> Iterator[Batch]:
        """The loader's batches, on the device, fetched ahead; a signal that `heed_signals` holds back ends it."""

        def move(tensor: Tensor | str) -> Tensor:
            if isinstance(tensor, str):
                raise UserError(f"{tensor}; it was whole when this began: put it back")
            if tensor.device.type == self.device.type:
                return tensor
            return tensor.pin_memory().to(self.device, non_blocking=True)

        stop_if_interrupted()
        for batch in ahead([(move(tensor), sample) for tensor, sample in batch] for batch in loader):
            yield batch
            stop_if_interrupted()  # here the caller has done with the batch

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
            with autocast(self.device, self.dtype):
                parts.append(run(stacked, [prompts[i] for i in members]))
            order += members
        back = torch.tensor(order, device=self.device).argsort()
        return {name: torch.cat([vars(part)[name] for part in parts])[back] for name in vars(parts[0])}


class SampleTensors(Dataset):
    """Samples, each with the tensor that `read` gives for it, or the reason why there is none any more."""

    def __init__(self, samples: Sequence[Sample], read: Callable[[Sample], Tensor]) -> None:
        self.samples, self.read = samples, read

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor | str, Sample]:
        sample = self.samples[index]
        try:
            return self.read(sample), sample
        except BadImage as error:  # a worker process could not raise it in one piece
            return str(error), sample


class EpochOrder(Sampler[int]):
    """Positions of samples in the order of one epoch, which seed and epoch alone decide; `start` of them left out."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self.epoch, self.start = 1, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        return iter(order[self.start :].tolist())


def make_loader(
    samples: Sequence[Sample], config: Config, pipeline: Pipeline, *, order: EpochOrder | None = None
) -> DataLoader:
    """Batches of samples, for training in an `order`, for evaluation as they come and more at once.

    Worker processes decode pictures only where the pipeline doesn't keep them.
    """
    kept = pipeline.halfway is not None or pipeline.images.holds(sample.image for sample in samples)
    workers = 0 if kept else config.data.workers
    data = SampleTensors(samples, pipeline.read if kept else decode)
    return DataLoader(
        data,
        batch_size=config.train.batch_size if order else eval_batch(config, pipeline.device),
        sampler=order or SequentialSampler(data),
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=ignore_interrupts,
        generator=torch.Generator(),  # it draws seeds for its workers, which must not move the global generator
        collate_fn=list,  # pictures differ in size, so they stay a list
    )


def decode(sample: Sample) -> Tensor:
    """A sample's picture, straight from its file."""
    return read_image(sample.image)


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
