"""`RemoteReward`: a server's scores as a reward, over HTTP. Imports no torch; needs aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mgs.ask_server import Field, Server
from mgs.dimensions import DIMENSIONS
from mgs.errors import UserError
from mgs.images.decode import BadImage
from mgs.images.forms import ImageInput, Images, as_batch, as_file, as_prompt, as_prompts
from mgs.scoring.mix import Mix, as_share, choose_mix
from mgs.scoring.score import ERROR, Score, failure, raise_bad

if TYPE_CHECKING:
    import aiohttp

BESIDES = 1024  # bytes of a form for each image, at most, besides its content and its prompt


@dataclass(frozen=True)
class Facts:
    """What a server says of one of its checkpoints, and how much it takes in one request."""

    checkpoint: str
    dimensions: tuple[str, ...]
    needs_prompt: frozenset[str]
    images: int
    bytes: int


@dataclass(frozen=True)
class Line:
    """Open connections, which work in one event loop only."""

    session: aiohttp.ClientSession
    free: asyncio.Semaphore  # a place for each request in flight
    loop: asyncio.AbstractEventLoop


class RemoteReward:
    """The function that `Reward` is, but awaited, and scored by the server (`mgs serve`) at an address.

    `weights`, `standardize` and `on_bad` are those of `Reward`, and so are the numbers, to 1e-5. `checkpoint` is one of
    the server's, by default its first. Files and their contents are sent unchanged, pixels as PNG. Images are read and
    encoded as their requests are sent, so memory does not grow with their number. A request is repeated up to `retries`
    times if the server cannot be reached, is busy, or takes longer than `timeout` seconds.

    With `async with` it keeps its connections open between calls. Otherwise each call opens its own.
    """

    def __init__(
        self,
        address: str,
        weights: Mapping[str, float] | None = None,
        *,
        token: str | None = None,
        checkpoint: str | None = None,
        standardize: bool = False,
        on_bad: Literal["raise", "nan"] = "raise",
        images_per_request: int = 8,
        connections: int = 8,
        timeout: float = 120.0,
        retries: int = 6,
    ) -> None:
        """`connections` is how many requests are in flight at most. Raises `UserError` for impossible settings."""
        self.server = Server(address, token, timeout, retries)
        if on_bad not in ("raise", "nan"):
            raise UserError(f"on_bad={on_bad!r}: say raise, or nan")
        if images_per_request < 1 or connections < 1:
            raise UserError(f"images_per_request={images_per_request}, connections={connections}: give 1 or more")
        if weights is not None:
            Mix(weights)  # what no server gives is refused before anything is asked
        self.weights, self.standardize, self.on_bad = weights, standardize, on_bad
        self.checkpoint, self.images_per_request, self.connections = checkpoint, images_per_request, connections
        self.facts: Facts | None = None  # read by the first call
        self.kept: Line | None = None

    async def __aenter__(self) -> RemoteReward:
        if self.kept is not None:
            raise RuntimeError("RemoteReward: its connections are open already; enter it once")
        self.kept = self._open_line()
        return self

    async def __aexit__(self, *error: object) -> None:
        line, self.kept = self.kept, None
        if line is not None:
            await line.session.close()

    async def __call__(
        self, images: Images, prompts: Sequence[str | None] | None = None, metadata: Any = None
    ) -> list[float]:
        """A reward for each image, in order; images, prompts and `ValueError`s are those of `Reward`.

        Raises `ConnectionError` if the server gave no answer, `UserError` if it refused. When the await is cancelled,
        its requests are too.
        """
        mix, shares = await self._score(images, prompts)
        return mix.total(shares)

    async def score(self, images: Images, prompts: Sequence[str | None] | None = None) -> dict[str, list[float]]:
        """Each weighted dimension's scores on 0-1, of images and prompts as in a call; not standardized."""
        return (await self._score(images, prompts))[1]

    def wait(self, images: Images, prompts: Sequence[str | None] | None = None, metadata: Any = None) -> list[float]:
        """What a call returns, for callers without an event loop; raises `RuntimeError` within a running one."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self(images, prompts, metadata))
        raise RuntimeError("RemoteReward.wait: an event loop is running here; `await` the reward itself")

    async def _score(self, images: Images, prompts: Sequence[str | None] | None) -> tuple[Mix, dict[str, list[float]]]:
        batch = as_batch(images)
        texts = [as_prompt(prompt) for prompt in as_prompts(prompts, len(batch))]
        async with self._line() as line:
            facts = self.facts = self.facts or await self._read_facts(line)
            mix = choose_mix(self.weights, facts.dimensions, facts.checkpoint, standardize=self.standardize)
            mix.refuse_missing(texts, facts.needs_prompt)
            step = min(self.images_per_request, facts.images)
            starts = range(0, len(batch), step)
            parts = [(line, facts, mix, batch[i : i + step], texts[i : i + step]) for i in starts]
            async with all_or_first_error() as group:
                tasks = [group.create_task(self._score_part(*part)) for part in parts]
        scores = [score for task in tasks for score in task.result()]
        if self.on_bad == "raise":
            raise_bad(scores)
        return mix, {name: [as_share(getattr(score, name)) for score in scores] for name in mix.weights}

    async def _score_part(
        self, line: Line, facts: Facts, mix: Mix, images: list[ImageInput], texts: list[str | None]
    ) -> list[Score]:
        """Scores of one request's images; of several requests where they have more bytes than the server takes."""
        async with line.free:
            files = await asyncio.to_thread(lambda: [read_or_reason(image, facts.bytes) for image in images])
            found = {i: file for i, file in enumerate(files) if isinstance(file, Score)}
            sent = {i: (file, texts[i] or "") for i, file in enumerate(files) if isinstance(file, bytes)}
            for group in split({i: form_bytes(*pair) for i, pair in sent.items()}, facts.bytes):
                fields = fields_of([sent[i] for i in group], facts.checkpoint, mix.weights)
                answer = await self.server.ask(line.session, "/score", fields)
                with self.server.expecting("scores"):
                    found |= zip(group, read_scores(answer, facts.checkpoint, mix.weights, len(group)), strict=True)
        return [found[i] for i in range(len(images))]

    async def _read_facts(self, line: Line) -> Facts:
        answer = await self.server.ask(line.session, "/info")
        with self.server.expecting("facts"):
            rows, limits = {row["name"]: row for row in answer["checkpoints"]}, answer["limits"]
            name = answer["checkpoints"][0]["name"] if self.checkpoint is None else self.checkpoint
            if name not in rows:
                raise UserError(f"checkpoint {name}: {self.server.address} has {', '.join(rows)}; choose from these")
            dimensions, needs_prompt = tuple(rows[name]["dimensions"]), frozenset(rows[name]["needs_prompt"])
            return Facts(name, dimensions, needs_prompt, int(limits["images"]), int(limits["bytes"]))

    @contextlib.asynccontextmanager
    async def _line(self) -> AsyncIterator[Line]:
        """The connections that are kept open, where they are this event loop's; else some for one call."""
        if self.kept is not None and self.kept.loop is asyncio.get_running_loop():
            yield self.kept
            return
        line = self._open_line()
        async with line.session:
            yield line

    def _open_line(self) -> Line:
        return Line(self.server.open_session(), asyncio.Semaphore(self.connections), asyncio.get_running_loop())


@contextlib.asynccontextmanager
async def all_or_first_error() -> AsyncIterator[asyncio.TaskGroup]:
    """A group of tasks; the first that fails cancels the others, and its error is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def read_or_reason(image: ImageInput, most: int) -> bytes | Score:
    """An image as a file's content; for one that cannot be sent, a score that gives the reason."""
    try:
        content = as_file(image)
    except BadImage as error:
        return failure(str(error))
    if len(content) + BESIDES > most:
        return failure(f"the image: {len(content):,} bytes, more than the server takes ({most:,})")
    return content


def form_bytes(content: bytes, text: str) -> int:
    """How much longer an image makes a form, at most."""
    return len(content) + len(text.encode()) + BESIDES


def split(sizes: Mapping[int, int], most: int) -> Iterator[list[int]]:
    """Keys in groups, in order, each of `most` bytes at most; a larger key is alone."""
    group: list[int] = []
    for key, size in sizes.items():
        if group and sum(sizes[other] for other in group) + size > most:
            yield group
            group = []
        group.append(key)
    if group:
        yield group


def fields_of(pairs: Sequence[tuple[bytes, str]], checkpoint: str, dimensions: Iterable[str]) -> list[Field]:
    """Files and prompts as `POST /score` takes them; where a prompt is empty, the server does not look for another."""
    per_image = [field for content, text in pairs for field in (("images", content), ("prompts", text))]
    return [*per_image, ("checkpoint", checkpoint), *(("dimensions", dimension) for dimension in dimensions)]


def read_scores(answer: Any, checkpoint: str, dimensions: Container[str], images: int) -> list[Score]:
    """An answer's scores, in order; one that does not fit raises one of the errors that `Server.expecting` knows."""
    if answer["checkpoint"] != checkpoint:
        raise ValueError(f"scored by {answer['checkpoint']}, not by {checkpoint}")
    if (order := [entry["index"] for entry in answer["results"]]) != list(range(images)):
        raise ValueError(f"images {order} of {images}")
    return [read_score(entry["status"], entry["scores"], dimensions) for entry in answer["results"]]


def read_score(status: str, scores: Mapping[str, float], dimensions: Container[str]) -> Score:
    """One image's score, with a finite number for each dimension unless it failed."""
    if status.startswith(ERROR):
        return failure(status.removeprefix(ERROR))
    values = [float(scores[name]) if name in dimensions else None for name in DIMENSIONS]
    if not all(value is None or math.isfinite(value) for value in values):
        raise ValueError(f"scores {values}")
    quality, authenticity, correspondence, overall = values
    return Score(quality, authenticity, correspondence, overall, status)
