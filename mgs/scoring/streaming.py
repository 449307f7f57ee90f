"""Images and prompts, one after the other, to scores: decoded, batched and scored at the same time."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from torch import Tensor

from mgs.dimensions import Prompt
from mgs.engine.batcher import Batcher, Found
from mgs.images.inputs import Pair, as_prompt, load_or_reason

Loaded: TypeAlias = "list[tuple[Tensor | None, str]]"  # images with remarks; None with the reason where unreadable
Running: TypeAlias = "tuple[Loaded, list[str | None], Future[list[Found]]]"
DECODERS = 4  # threads
ON_THE_WAY = {"cuda": 2, "cpu": 1}  # batches submitted at once; a GPU gets the next before the last one is read


@dataclass(frozen=True)
class Scored:
    """What became of one image."""

    prompt: str | None
    read: bool  # whether there was an image to score
    remark: str  # on the image; if it could not be read, the reason
    found: Found = None  # its scores; None where memory doesn't hold it


def score_pairs(batcher: Batcher, pairs: Iterator[Pair], size: int, style: str) -> Iterator[Scored]:
    """The scores of images with their prompts, in order, at most `size` at once.

    While a batch is scored, the next one is decoded; on a GPU the next one after that. No more are taken from `pairs`.
    What was taken before an error is scored first.
    """
    running: deque[Running] = deque()
    most, caller, failed = ON_THE_WAY[batcher.engine.machine.device.type], object(), None
    try:
        with ThreadPoolExecutor(DECODERS) as pool:
            while failed is None:
                try:
                    taken = itertools.islice(pairs, min(size, batcher.fits))
                    batch = [(image, as_prompt(prompt)) for image, prompt in taken]
                except Exception as error:  # of whoever gives the pairs
                    failed = error
                    continue
                if not batch:
                    break
                loading = pool.map(partial(load_or_reason, cuts=batcher.engine.cuts), [image for image, _ in batch])
                if len(running) == most:
                    yield from gather(*running[0])
                    running.popleft()
                loaded, prompts = list(loading), [prompt for _, prompt in batch]
                whole = [(picture, i) for i, (picture, _) in enumerate(loaded) if picture is not None]
                texts = [Prompt(prompts[i] or "", style) for _, i in whole]
                pictures = [picture for picture, _ in whole]
                running.append((loaded, prompts, batcher.submit(pictures, texts, most=size, caller=caller)))
            while running:
                yield from gather(*running[0])
                running.popleft()
        if failed:
            raise failed
    finally:  # whoever asked may have gone
        for _, _, answer in running:
            answer.cancel()


def gather(loaded: Loaded, prompts: list[str | None], answer: Future[list[Found]]) -> Iterator[Scored]:
    """What became of a batch's images; waits for their scores."""
    scores = iter(answer.result())
    for (picture, remark), prompt in zip(loaded, prompts, strict=True):
        read = picture is not None
        yield Scored(prompt, read, remark, next(scores) if read else None)
