"""Images and prompts, one after the other, to scores: decoded, batched and scored at the same time."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

from torch import Tensor

from mgs.dimensions import Prompt
from mgs.engine.batcher import Batcher, Found
from mgs.images.cuts import Cuts
from mgs.images.forms import Pair
from mgs.images.inputs import load_image, load_or_reason

T = TypeVar("T")
Running: TypeAlias = "tuple[list[Loaded], Future[list[Found]]]"
DECODERS = min(max(os.cpu_count() or 1, 4), 16)  # threads; more than cores, since files take time to arrive
ON_THE_WAY = {"cuda": 2, "cpu": 1}  # batches submitted at once; a GPU gets the next before the last one is read


class Loaded(NamedTuple):
    """One image, ready to be scored, with its prompt."""

    prompt: str | None
    picture: Tensor | None  # uint8, (3, H, W); None where it could not be read
    remark: str  # on the image; if it could not be read, the reason
    item: Any = None  # what the caller wants back with the score


@dataclass(frozen=True)
class Scored:
    """What became of one image."""

    prompt: str | None
    read: bool  # whether there was an image to score
    remark: str  # on the image; if it could not be read, the reason
    found: Found = None  # its scores; None where memory doesn't hold it
    item: Any = None  # what came with it


def load_pair(pair: Pair, cuts: Cuts) -> Loaded:
    """An image and its prompt, ready to be scored."""
    image, prompt = pair
    return Loaded(prompt, *load_or_reason(partial(load_image, image, cuts)))


def score_all(
    batcher: Batcher, inputs: Iterator[T], load: Callable[[T, Cuts], Loaded], size: int, style: str
) -> Iterator[Scored]:
    """The scores of what `load` makes of inputs, in several threads; in order, at most `size` at once.

    While a batch is scored, the next one is loaded; on a GPU the next one after that. No more are taken from `inputs`.
    What was taken before an error is scored first.
    """
    running: deque[Running] = deque()
    most, caller, failed = ON_THE_WAY[batcher.engine.machine.device.type], object(), None
    try:
        with ThreadPoolExecutor(DECODERS) as pool:
            while failed is None:
                taken = []
                try:
                    for one in itertools.islice(inputs, min(size, batcher.fits)):
                        taken.append(one)  # a list would lose what came before an error
                except Exception as error:  # of whoever gives the inputs
                    failed = error
                if not taken:
                    break
                loading = pool.map(lambda one: load(one, batcher.engine.cuts), taken)
                if len(running) == most:
                    yield from gather(*running[0])
                    running.popleft()
                loaded = list(loading)
                whole = [(one.picture, Prompt(one.prompt or "", style)) for one in loaded if one.picture is not None]
                pictures, texts = [picture for picture, _ in whole], [text for _, text in whole]
                running.append((loaded, batcher.submit(pictures, texts, most=size, caller=caller)))
            while running:
                yield from gather(*running[0])
                running.popleft()
        if failed:
            raise failed
    finally:  # whoever asked may have gone
        for _, answer in running:
            answer.cancel()


def gather(loaded: list[Loaded], answer: Future[list[Found]]) -> Iterator[Scored]:
    """What became of a batch's images; waits for their scores."""
    scores = iter(answer.result())
    for one in loaded:
        read = one.picture is not None
        yield Scored(one.prompt, read, one.remark, next(scores) if read else None, one.item)
