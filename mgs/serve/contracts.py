"""The messages that trainers of image generators send to reward servers, as those projects define them.

Each gets the dimensions' mean on 0-1, weighted as the server was told, or a dimension alone, also on 0-1. Where an
image cannot be scored, the answer says so in the way that the project reads.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mgs.images.metadata import as_text
from mgs.scoring.mix import Mix, as_share
from mgs.serve.bodies import as_items, check
from mgs.serve.limits import Limits, Refused
from mgs.serve.pickles import read_pickle
from mgs.serve.service import Answer, Service
from mgs.sources.item import Item

MIXED = "mgs"  # the mix's name among rewards


@dataclass(frozen=True)
class Rewards:
    """A service as a reward: the default scorer's dimensions, mixed."""

    service: Service
    mix: Mix

    @property
    def names(self) -> list[str]:
        """The rewards that can be asked for: the mix, and each dimension."""
        return [MIXED, *self.service.scorers[self.service.choose()].scored]

    async def score(self, items: Sequence[Item]) -> list[Answer]:
        """The answers for a request's images. Raises `Refused`, also if no image has the prompt that the mix needs."""
        needed = self.service.scorers[self.service.choose()].model.needs_prompt & self.mix.weights.keys()
        if needed and all(item.prompt is None for item in items):
            remedy = "send one for each image, or start the server with --reward and other dimensions"
            raise Refused(422, f"prompts: missing, and {', '.join(sorted(needed))} is judged by them; {remedy}")
        return await self.service.score(items, self.service.choose())

    def of(self, answer: Answer, name: str = MIXED) -> float:
        """An image's reward on 0-1, mixed or one dimension; NaN for none."""
        if name != MIXED:
            return as_share(getattr(answer.score, name))
        (value,) = self.mix.total({one: [as_share(getattr(answer.score, one))] for one in self.mix.weights})
        return value


class ComputeBody(BaseModel):
    """What Flow-Factory sends to `POST /compute`; further keys are not read."""

    model_config = ConfigDict(extra="allow")

    image: list[str] = Field(min_length=1, description="base64")
    prompt: list[str | None] = Field(description="one for each image")


class ComputeAnswer(BaseModel):
    """What Flow-Factory reads."""

    rewards: list[float | None] = Field(description="on 0-1; null for an image without a score")
    error: str | None = Field(None, description="the reason for the first null; not there if there is none")


class Turn(BaseModel):
    """A part of a conversation, as UniRL has it."""

    model_config = ConfigDict(extra="allow")

    text: str | None = None
    image_b64: str | None = None


class UniRLRequest(BaseModel):
    """An image to reward: the last one in `history`, with the last text up to it."""

    model_config = ConfigDict(extra="allow")

    history: list[Turn]
    required_rewards: list[str] = Field(default=[MIXED], description="names of GET /rewards")


class UniRLBody(BaseModel):
    """What UniRL sends to `POST /score`."""

    model_config = ConfigDict(extra="allow")

    requests: list[UniRLRequest] = Field(min_length=1)


async def compute(content: dict[str, Any], rewards: Rewards) -> dict[str, Any]:
    """Flow-Factory's answer. Raises `Refused`."""
    body = check(ComputeBody, content)
    answers = await rewards.score(as_items(body.image, body.prompt, rewards.service.limits))
    numbers = [or_null(rewards.of(answer)) for answer in answers]
    problems = [answer.score.status for answer, number in zip(answers, numbers, strict=True) if number is None]
    return {"rewards": numbers, **({"error": problems[0]} if problems else {})}


async def unirl(content: dict[str, Any], rewards: Rewards) -> dict[str, Any]:
    """UniRL's answer: each request's rewards, and the reasons where there are none. Raises `Refused`."""
    requests = check(UniRLBody, content).requests
    for number, request in enumerate(requests):
        if unknown := [name for name in request.required_rewards if name not in rewards.names]:
            known = ", ".join(rewards.names)
            raise Refused(422, f"requests.{number}: no reward {', '.join(map(as_text, unknown))}; there are {known}")
    pairs = [last_image(request.history) for request in requests]
    images, prompts = [image for image, _ in pairs], [prompt for _, prompt in pairs]
    answers = await rewards.score(as_items(images, prompts, rewards.service.limits))
    results, errors = [], []
    for request, answer in zip(requests, answers, strict=True):
        values = {name: or_null(rewards.of(answer, name)) for name in request.required_rewards}
        results.append({name: {"score": value} for name, value in values.items() if value is not None})
        errors.append({name: answer.score.status for name, value in values.items() if value is None})
    return {"results": results, "errors": errors}


def last_image(history: Sequence[Turn]) -> tuple[str | None, str | None]:
    """The image that a conversation ends with, and the text that asked for it."""
    image, prompt, text = None, None, None
    for turn in history:
        text = turn.text or text
        if turn.image_b64 is not None:
            image, prompt = turn.image_b64, text
    return image, prompt


async def pickled(body: bytes, rewards: Rewards) -> bytes:
    """The answer to flow_grpo's and verl-omni's pickles, under each name that they read. Raises `Refused`."""
    answers = await rewards.score(pickled_items(body, rewards.service.limits))
    numbers = [rewards.of(answer) for answer in answers]
    statuses = [answer.score.status for answer in answers]
    if all(map(math.isnan, numbers)):  # verl-omni, which sends one image, would take NaN for its reward
        return write_pickle({"error": statuses[0]})
    return write_pickle({"scores": numbers, "rewards": numbers, "outputs": numbers, "statuses": statuses})


def write_pickle(content: dict[str, Any]) -> bytes:
    """A pickle of plain data."""
    return pickle.dumps(content, protocol=4)


def pickled_items(body: bytes, limits: Limits) -> list[Item]:
    """The images of a pickled dict, with their prompts. Raises `Refused`."""
    content = read_pickle(body)
    if not isinstance(content, dict):
        raise Refused(422, "the pickle: not a dict; send images and prompts in one")
    images, prompts = content.get("images"), content.get("prompts")
    if prompts is not None and not (isinstance(prompts, (list, tuple)) and all(map(is_prompt, prompts))):
        raise Refused(422, "prompts: not a list of texts; give one for each image, or none")
    return as_items(list(images) if isinstance(images, tuple) else images, prompts, limits)


def is_prompt(value: Any) -> bool:
    """Whether a value may stand for a prompt."""
    return value is None or isinstance(value, str)


def or_null(value: float) -> float | None:
    """A number as JSON has it."""
    return value if math.isfinite(value) else None
