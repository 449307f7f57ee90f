"""Scorers behind a server: images of all clients are decoded in threads, and share full batches."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor

from mgs.dimensions import DIMENSIONS, Prompt
from mgs.engine.batcher import Found
from mgs.engine.predict import EVAL_BATCH
from mgs.errors import UserError, explain_failure
from mgs.images.decode import BadImage
from mgs.images.metadata import as_text
from mgs.scoring.explanation import can_explain
from mgs.scoring.score import Score, failure
from mgs.scoring.scorer import Scorer
from mgs.scoring.shards import load_item
from mgs.scoring.streaming import Loaded, Scored
from mgs.scoring.wording import told_origin
from mgs.serve.limits import Limits, Refused, slowness
from mgs.serve.metrics import Metrics
from mgs.serve.pixel_budget import SLOWER, PixelBudget, count_pixels
from mgs.serve.reasons import why
from mgs.serve.threads import Threads
from mgs.sources.find_prompt import FINDERS, fill_prompt
from mgs.sources.item import Item

MOST_WAIT = 60  # seconds that a client is asked to wait
log = logging.getLogger("mgs.serve")


class Taken(NamedTuple):
    """An image that was decoded, and how many pixels of the budget it holds."""

    loaded: Loaded
    pixels: int


@dataclass(frozen=True)
class Answer:
    """What became of an image: the item with its prompt, its score, and the explanation if one was asked for."""

    item: Item
    score: Score
    explanation: dict[str, Any] | None = None  # as `schemas.Explanation` has it


class Service:
    """Scores the images of many requests at once, from a server's event loop.

    `scorers` are by name; the first is the default. Each has one model, and one thread that scores: while it works on
    a batch, images of all requests gather, and the next batch takes as many of them as fit, `batch_size` at most.
    """

    def __init__(
        self, scorers: Mapping[str, Scorer], limits: Limits, *, style: str | None = None, batch_size: int | None = None
    ) -> None:
        self.scorers, self.limits = dict(scorers), limits
        self.styles = {name: scorer.check_style(style) for name, scorer in self.scorers.items()}
        self.sizes = {
            name: batch_size or EVAL_BATCH[one.engine.machine.device.type] for name, one in self.scorers.items()
        }
        self.threads = Threads()
        self.budget = PixelBudget(limits.decoded)
        self.metrics = Metrics()
        for name, scorer in self.scorers.items():
            scorer.batcher.on_batch = self.metrics.batches.labels(name).observe
        self.inside = 0  # images that were admitted and are not answered yet
        self.held = 0  # bytes of bodies in memory, which the guard counts
        self.answered, self.since, self.rate = 0, time.monotonic(), 0.0  # images, in which time, and a second of late
        self.doubtful, self.checking = True, asyncio.Lock()  # whether the models may not work

    def choose(self, name: str | None = None, dimensions: Iterable[str] | None = None, *, explain: bool = False) -> str:
        """The name of the scorer that a request asks for. Raises `Refused` if none of that name gives what is asked."""
        name = next(iter(self.scorers)) if name is None else name
        if name not in self.scorers:
            raise Refused(422, f"checkpoint {as_text(name)}: not here; choose from {', '.join(self.scorers)}")
        scorer = self.scorers[name]
        if unknown := [dimension for dimension in dimensions or () if dimension not in scorer.scored]:
            raise Refused(422, f"{', '.join(unknown)}: checkpoint {name} gives {', '.join(scorer.scored)}")
        if explain and not can_explain(scorer.model):
            raise Refused(422, f"explain: checkpoint {name} cannot; only scores of the method mgs can be explained")
        return name

    async def check(self) -> None:
        """Score a grey picture with each model, if they have not worked yet, or one has failed since.

        What is made once is then made before the first request. Raises `Refused` with the reason for the failure.
        """
        async with self.checking:  # those who ask meanwhile wait for the same
            if not self.doubtful:
                return
            grey = Image.new("RGB", (512, 512), "grey")
            try:
                for scorer in self.scorers.values():
                    await asyncio.get_running_loop().run_in_executor(
                        self.threads.read, scorer.score, grey, "a grey picture"
                    )
            except Exception as error:  # of the model, its libraries or the device
                reason = explain_failure(error) or f"the model failed: {type(error).__name__}: {error}"
                raise Refused(503, reason, MOST_WAIT) from error
            self.doubtful = False

    def check_room(self, count: int = 1) -> None:
        """Raise `Refused` unless there are places for so many images."""
        if self.inside + count > self.limits.queue:
            told = f"{self.inside} of {self.limits.queue} places are taken by images that wait; try again later"
            raise Refused(503, told, self.seconds_to_wait())

    def seconds_to_wait(self) -> int:
        """How long the images that are inside now will take, as far as one can tell; at least 1."""
        return max(1, min(MOST_WAIT, math.ceil(self.inside / self.rate))) if self.rate else 1

    async def score(self, items: Sequence[Item], name: str, *, explain: bool = False) -> list[Answer]:
        """The answers for a request's images, in order. Raises `Refused` where there is no room, or no time.

        If the caller is cancelled, images that wait are dropped.
        """
        try:
            self.check_room(len(items))
        except Refused:
            self.metrics.refused.inc()
            raise
        if not self.inside:
            self.answered, self.since = 0, time.monotonic()  # what was before it was idle says nothing
        tasks = [asyncio.ensure_future(self.score_one(item, name, explain=explain)) for item in items]
        for task in tasks:
            self.inside += 1
            task.add_done_callback(self.leave)
        self.metrics.inside.set(self.inside)
        try:
            async with asyncio.timeout(self.limits.seconds):
                return list(await asyncio.gather(*tasks))
        except TimeoutError:
            told = f"not scored within {self.limits.seconds:g} s; send fewer images at once, or try again later"
            raise Refused(503, told, self.seconds_to_wait()) from None
        finally:
            for task in tasks:
                task.cancel()

    def leave(self, task: asyncio.Task[Answer]) -> None:
        """Give back an image's place, and keep the rate."""
        self.inside -= 1
        self.metrics.inside.set(self.inside)
        self.answered += not task.cancelled()
        passed = time.monotonic() - self.since
        if passed >= 1:
            self.rate = self.answered / passed
            self.answered, self.since = 0, time.monotonic()

    async def score_one(self, item: Item, name: str, *, explain: bool) -> Answer:
        """One image's answer. Whatever goes wrong with it is told there, since it concerns no other image."""
        scorer = self.scorers[name]
        loading = self.threads.decode.submit(self.load, item, scorer)
        try:
            loaded = (await asyncio.wrap_future(loading)).loaded
            if explain and loaded.picture is not None:
                answer = await self.explain(loaded, loaded.picture, name)
            else:
                found = None if loaded.picture is None else await self.find(loaded, loaded.picture, name)
                scored = Scored(loaded.prompt, loaded.picture is not None, loaded.remark, found)
                described = asyncio.get_running_loop().run_in_executor(self.threads.write, scorer.describe, scored)
                answer = Answer(loaded.item, await described)
        except UserError as error:
            answer = Answer(item, failure(str(error)))
        except Exception as error:
            self.doubtful = True
            reason = explain_failure(error)
            if reason is None:  # a fault of ours: the request's other images are answered, and the log has the rest
                log.exception("%s: not scored", item.label)
            answer = Answer(item, failure(reason or "not scored, by a fault of the server, whose log says more"))
        finally:  # also if nobody waits any more; a thread that still decodes gives its pixels back at its end
            loading.cancel()
            loading.add_done_callback(self.give_back)
        answer = Answer(replace(answer.item, data=None), told_origin(answer.item, answer.score), answer.explanation)
        told = [(dimension, getattr(answer.score, dimension)) for dimension in DIMENSIONS]
        self.metrics.count_scores(name, [(dimension, value) for dimension, value in told if value is not None])
        return answer

    def load(self, item: Item, scorer: Scorer) -> Taken:
        """An image, decoded in a thread, once there is room for its pixels."""
        pixels, in_python = count_pixels(item.data or b"", scorer.engine.cuts.fit)
        most = self.limits.pixels // (SLOWER if in_python else 1)
        if pixels > most:
            remedy = f"this server takes {most:,} of this format; make it smaller"
            error = BadImage(f"{item.label}: {pixels:,} pixels as the model sees it, and {remedy}")
            return Taken(Loaded(None, None, str(error), replace(item, data=None)), 0)
        self.budget.take(pixels)
        try:
            find = FINDERS["metadata"] if scorer.model.needs_prompt else None
            loaded = load_item(item, scorer.engine.cuts, find)
            if told := slowness(loaded.prompt or ""):
                loaded = loaded._replace(picture=None, remark=f"{item.label}: {told}")
            return Taken(loaded, pixels)
        except BaseException:
            self.budget.give(pixels)
            raise

    def give_back(self, loading: Future[Taken]) -> None:
        """Give back the pixels that a decoded image held."""
        if not loading.cancelled() and not loading.exception():
            self.budget.give(loading.result().pixels)

    async def find(self, loaded: Loaded, picture: Tensor, name: str) -> Found:
        """An image's scores, in a batch with others; where that fails, perhaps by another's fault, alone."""
        prompt = Prompt(loaded.prompt or "", self.styles[name])
        batcher = self.scorers[name].batcher
        try:
            try:
                (found,) = await asyncio.wrap_future(batcher.submit([picture], [prompt], most=self.sizes[name]))
            except Exception:  # which the second attempt raises again, if it is not another's
                (found,) = await asyncio.wrap_future(batcher.submit([picture], [prompt], most=1))
        except asyncio.CancelledError:
            batcher.drop_cancelled()
            raise
        return found

    async def explain(self, loaded: Loaded, picture: Tensor, name: str) -> Answer:
        """An image's answer with its explanation. Raises `UserError` where there is none."""
        begun = self.scorers[name].begin_explanation(picture, loaded.prompt, loaded.remark, self.styles[name])
        explanation = await asyncio.wrap_future(begun)
        told = await asyncio.get_running_loop().run_in_executor(self.threads.write, why, explanation)
        return Answer(loaded.item, explanation.score, told)

    async def find_prompts(self, items: Sequence[Item]) -> list[Item]:
        """The items with the prompts that their files hold."""
        loop = asyncio.get_running_loop()
        find = FINDERS["metadata"]
        found = [loop.run_in_executor(self.threads.read, fill_prompt, item, find, item.data) for item in items]
        try:
            async with asyncio.timeout(self.limits.seconds):
                return list(await asyncio.gather(*found))
        except TimeoutError:
            raise Refused(503, f"not read within {self.limits.seconds:g} s; try again later", 1) from None
