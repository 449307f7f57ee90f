"""One thread that owns an engine. Many threads ask it for scores, and share full batches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from mgs.dimensions import Prompt
from mgs.engine.engine import Engine
from mgs.engine.plan import LateScores
from mgs.errors import is_out_of_memory

Found: TypeAlias = "dict[str, float] | None"  # an image's scores; None where memory doesn't hold even one image


@dataclass
class Request:
    """Images to score together with others, as long as they are no more than `most`."""

    pictures: Sequence[Tensor]
    prompts: Sequence[Prompt]
    most: int
    caller: object
    answer: Future[list[Found]] = field(default_factory=Future)


class Batcher:
    """Scores on a thread of its own; anything else on the engine goes through `call`.

    While the device works on a batch, requests gather, and the next batch takes as many of them as fit. No request is
    held back for others. The next batch is on its way to the device before the last one's scores are read. Requests of
    one caller never share a batch, so that a caller who is alone has the same batches every time.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="mgs-engine")  # ends with this object
        self.waiting: deque[Request] = deque()
        self.lock = threading.Lock()  # for `waiting`: a request is there only if the thread will work on it
        self.running: deque[tuple[list[Request], LateScores]] = deque()
        self.fits = 1 << 30  # images at once; lowered when memory runs out
        self.on_batch: Callable[[int], object] = lambda images: None  # is told of each batch, for statistics

    def submit(
        self, pictures: Sequence[Tensor], prompts: Sequence[Prompt], *, most: int, caller: object = None
    ) -> Future[list[Found]]:
        """Ask for the scores of pictures, uint8 (3, H, W), one prompt each, at most `most` of them at once.

        `caller` is any object that one caller's requests have in common; without it each is a caller of its own.
        """
        request = Request(pictures, prompts, most, object() if caller is None else caller)
        if not pictures:
            request.answer.set_result([])
            return request.answer
        with self.lock:
            self.begin_on_thread(self.work)  # first, since it fails where the interpreter ends
            self.waiting.append(request)
        return request.answer

    def drop_cancelled(self) -> None:
        """Let go of requests whose answers were cancelled, with their pictures; otherwise they wait for their turn."""
        with self.lock:
            self.waiting = deque(request for request in self.waiting if not request.answer.cancelled())

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """A function's result, computed on the thread, between batches."""
        return self.begin_on_thread(function, *args).result()

    def begin_on_thread(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have the thread call a function, with as many of torch's threads as the caller has."""
        return self.thread.submit(with_threads, torch.get_num_threads(), function, *args)

    def work(self) -> None:
        """Begin the next batch, and answer those before it; all of them if nothing else waits."""
        if requests := self.take():
            self.begin(requests)
        while self.running and (len(self.running) > 1 or not self.waiting):
            self.finish()

    def take(self) -> list[Request]:
        """The requests of the next batch, in their order; none if earlier batches took them all."""
        taken: list[Request] = []
        with self.lock:
            while self.waiting:
                following = [*taken, self.waiting[0]]
                count = sum(len(request.pictures) for request in following)
                callers = {id(request.caller) for request in following}
                too_many = count > min(self.fits, *(request.most for request in following))
                if taken and (too_many or len(callers) < len(following)):
                    break
                taken.append(self.waiting.popleft())
        return [request for request in taken if request.answer.set_running_or_notify_cancel()]

    def begin(self, requests: list[Request]) -> None:
        """Send a batch to the device, or score it in parts where memory is short."""
        pictures = [picture for request in requests for picture in request.pictures]
        prompts = [prompt for request in requests for prompt in request.prompts]
        self.on_batch(len(pictures))
        try:
            if len(pictures) <= min(self.fits, *(request.most for request in requests)):
                self.running.append((requests, self.launch(pictures, prompts)))
                return
        except Exception as error:
            if not is_out_of_memory(error):
                fail(requests, error)
                return
            if len(pictures) > 1:  # a lone image that does not fit says nothing of others
                self.fits = len(pictures) // 2
        # outside the handler, whose traceback would keep the tensors that did not fit
        while self.running:
            self.finish()
        try:
            answer(requests, self.score_in_parts(pictures, prompts, min(request.most for request in requests)))
        except Exception as error:
            fail(requests, error)

    def finish(self) -> None:
        """Answer the oldest batch."""
        requests, scores = self.running.popleft()
        try:
            answer(requests, scores.read())
        except Exception as error:  # a GPU fails late
            fail(requests, error)

    @torch.inference_mode()
    def launch(self, pictures: Sequence[Tensor], prompts: Sequence[Prompt]) -> LateScores:
        """Have the device score pictures."""
        batch = self.engine.stage(pictures, prompts)
        return LateScores(batch, self.engine.score(batch))

    def score_in_parts(self, pictures: Sequence[Tensor], prompts: Sequence[Prompt], most: int) -> list[Found]:
        """The scores of pictures, as many at once as fit, and `most` at most."""
        found: list[Found] = []
        while len(found) < len(pictures):
            part = slice(len(found), len(found) + min(self.fits, most))
            try:
                found += self.launch(pictures[part], prompts[part]).read()
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # outside the handler, see above
            if self.engine.machine.device.type == "cuda":
                torch.cuda.empty_cache()
            count = len(pictures[part])
            if count == 1:
                found.append(None)
            else:
                self.fits = count // 2
        return found


def with_threads(count: int, function: Callable[..., Any], *args: Any) -> Any:
    """A function's result, with that many of torch's threads, which each thread has to be told of."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
    return function(*args)


def answer(requests: Sequence[Request], found: Sequence[Found]) -> None:
    """Give each request its part of a batch's scores."""
    at = 0
    for request in requests:
        request.answer.set_result(list(found[at : at + len(request.pictures)]))
        at += len(request.pictures)


def fail(requests: Sequence[Request], error: Exception) -> None:
    """Have an error raised where each request's scores are awaited."""
    for request in requests:
        request.answer.set_exception(error)
