"""Batches of samples, read and staged ahead of the device."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from mgs.datasets.samples import Sample, dimensions_of
from mgs.dimensions import Prompt
from mgs.engine.engine import Engine
from mgs.engine.halves import KeptHalves
from mgs.engine.plan import Batch
from mgs.errors import UserError
from mgs.images.cache import ImageCache
from mgs.images.cuts import Draw
from mgs.images.decode import BadImage
from mgs.interrupts import stop_if_interrupted

Item = TypeVar("Item")
AHEAD = 2  # batches fetched while the device works on another


@dataclass(frozen=True)
class Loader:
    """Reads samples' pictures, or their kept activations, and stages them on an engine."""

    engine: Engine
    images: ImageCache
    halves: KeptHalves | None = None  # where the backbone's constant part is kept
    workers: int = 1  # threads that read pictures

    def read(self, sample: Sample) -> Tensor:
        """A sample's picture or activations; a picture that is not kept is decoded. Raises `UserError`."""
        try:
            return self.halves.read(sample) if self.halves else self.images.read(sample.image)
        except BadImage as error:
            raise UserError(f"{error}; it was readable when this began; put it back") from None

    def stage(self, samples: Sequence[Sample], tensors: Sequence[Tensor], draws: Sequence[Draw] | None = None) -> Batch:
        """Samples and what was read of them, on the engine's device; with `draws`, cut for training."""
        prompts = [Prompt(sample.prompt, sample.prompt_style) for sample in samples]
        trained = [d for d in dimensions_of(samples) if d in self.engine.method.gives]
        mos = {d: [sample.targets.get(d, math.nan) for sample in samples] for d in trained}
        return self.engine.stage(tensors, prompts, mos, halfway=self.halves is not None, draws=draws)

    def batches(
        self, samples: Sequence[Sample], size: int, draws: Sequence[Draw] | None = None
    ) -> Iterator[tuple[Sequence[Sample], Batch]]:
        """The samples, `size` at a time, each time with their batch, which a thread read, planned and sent ahead.

        With `draws`, one for each sample, their pictures are cut for training.

        Raises `UserError` for a picture that cannot be read any more, and `Interrupted` after a signal.
        """

        def fetch() -> Iterator[tuple[Sequence[Sample], Batch]]:
            with ThreadPoolExecutor(max(self.workers, 1)) as pool:  # threads: Pillow decodes without the GIL
                for start in range(0, len(samples), size):
                    place = slice(start, start + size)
                    part, drawn = samples[place], None if draws is None else draws[place]
                    yield part, self.stage(part, list(pool.map(self.read, part)), drawn)

        stop_if_interrupted()
        for batch in ahead(fetch()):
            yield batch
            stop_if_interrupted()  # here the caller has finished with the batch


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """Positions of `count` samples in the order of one epoch, which seed and epoch alone decide."""
    order: list[int] = np.random.default_rng((seed, epoch)).permutation(count).tolist()
    return order


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items, fetched by a thread while the caller works on those before them."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(max_workers=1) as thread:
        waiting = deque(thread.submit(next, iterator, end) for _ in range(AHEAD))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, iterator, end))
            yield item  # type: ignore[misc]
