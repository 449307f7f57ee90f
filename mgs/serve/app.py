"""The server's addresses: scores, ranks, prompts, rewards, the page, and what those who run it ask."""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response

from mgs import __version__
from mgs.scoring.mix import Mix
from mgs.serve import answers, contracts
from mgs.serve.bodies import as_items, check, read_content, take_images
from mgs.serve.contracts import ComputeAnswer, ComputeBody, Rewards
from mgs.serve.examples import draw_examples
from mgs.serve.guard import Guard
from mgs.serve.limits import Refused
from mgs.serve.messages import (
    Info,
    PromptAnswer,
    PromptOptions,
    RankAnswer,
    RankOptions,
    ScoreAnswer,
    ScoreOptions,
    body_of,
    json_body,
    refusals,
)
from mgs.serve.pickles import PICKLE, PICKLED
from mgs.serve.service import Service

TITLE = "MGS: quality, authenticity and text-image correspondence"
PAGE_POLICY = (  # the page itself asks nobody but this server
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def make_app(service: Service, mix: Mix, *, token: str | None = None, hosts: Collection[str] | None = None) -> FastAPI:
    """The ASGI app of a service; `mix` is its reward, and `token` and `hosts` are the `Guard`'s."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await service.check()  # so that nobody is answered before the models are known to work
        yield

    app = FastAPIOffline(title=TITLE, version=__version__, redoc_url=None, lifespan=life)
    app.add_middleware(Guard, service=service, token=token, hosts=hosts)
    app.add_exception_handler(Refused, show_refusal)
    app.add_exception_handler(HTTPException, show_http_error)
    add_scores(app, service, Rewards(service, mix))
    add_rewards(app, Rewards(service, mix))
    add_page(app)
    add_operations(app, service, mix)
    return app


def add_scores(app: FastAPI, service: Service, rewards: Rewards) -> None:
    """Add what scores images."""
    limits = service.limits

    @app.post("/score", response_model=ScoreAnswer, responses=refusals(), openapi_extra=body_of(ScoreOptions))
    async def score(request: Request) -> Response:
        """Score images, each with its prompt. With the key `requests`, the body and the answer are UniRL's."""
        content = await read_content(request, limits)
        if "requests" in content:
            return JSONResponse(await contracts.unirl(content, rewards))
        images, asked = take_images(content), check(ScoreOptions, content)
        name = service.choose(asked.checkpoint, asked.dimensions, explain=asked.explain)
        found = await service.score(as_items(images, asked.prompts, limits), name, explain=asked.explain)
        results = [answers.entry(answer, i, asked.dimensions) for i, answer in enumerate(found)]
        return JSONResponse({"checkpoint": name, "results": results})

    @app.post("/rank", response_model=RankAnswer, responses=refusals(), openapi_extra=body_of(RankOptions))
    async def rank(request: Request) -> Response:
        """Score images, of one prompt or each of its own, and order them, the best first."""
        content = await read_content(request, limits)
        images, asked = take_images(content), check(RankOptions, content)
        wanted = [*(asked.dimensions or ()), *([asked.by] if asked.by else ())]
        name = service.choose(asked.checkpoint, wanted, explain=asked.explain)
        items = [replace(item, prompt=asked.prompt) for item in as_items(images, None, limits)]
        found = await service.score(items, name, explain=asked.explain)
        by = asked.by or answers.rank_by(found, service.scorers[name])
        return JSONResponse({"checkpoint": name, "by": by, "results": answers.rank(found, by, asked.dimensions)})

    @app.post("/prompt", response_model=PromptAnswer, responses=refusals(), openapi_extra=body_of(PromptOptions))
    async def prompt(request: Request) -> Response:
        """Tell the prompts that image files hold."""
        content = await read_content(request, limits)
        images, _ = take_images(content), check(PromptOptions, content)
        found = await service.find_prompts(as_items(images, None, limits))
        return JSONResponse({"results": [answers.found_prompt(item, i) for i, item in enumerate(found)]})


def add_rewards(app: FastAPI, rewards: Rewards) -> None:
    """Add what trainers of image generators call."""
    limits = rewards.service.limits

    @app.post("/compute", response_model=ComputeAnswer, responses=refusals(), openapi_extra=json_body(ComputeBody))
    async def compute(request: Request) -> Response:
        """Rewards, as Flow-Factory asks for them."""
        return JSONResponse(await contracts.compute(await read_content(request, limits), rewards))

    @app.get("/rewards", responses=refusals())
    async def names() -> list[str]:
        """The names of rewards, as UniRL asks for them: the mix, and each dimension."""
        return rewards.names

    @app.post("/", responses=refusals(), openapi_extra={"requestBody": {"content": {PICKLED: {}}}})
    async def pickled(request: Request) -> Response:
        """Rewards, as flow_grpo and verl-omni ask for them: a pickled dict of `images`, files' bytes, and `prompts`."""
        body = await request.body()
        if not body.startswith(PICKLE):
            raise Refused(415, "the body: no pickle of protocol 2 or later; other requests go to /score, see /docs")
        return Response(await contracts.pickled(body, rewards), media_type=PICKLED)


def add_page(app: FastAPI) -> None:
    """Add the page for people, and its drawings."""
    headers = {**HEADERS, "Content-Security-Policy": PAGE_POLICY}
    examples = draw_examples()
    files = {file.name: file.read_bytes() for file in resources.files("mgs.serve").joinpath("page").iterdir()}

    def add_file(path: str, name: str) -> None:
        kind = mimetypes.guess_type(name)[0]

        @app.get(path, include_in_schema=False)
        async def file() -> Response:
            return Response(files[name], media_type=kind, headers=headers)

    for name in files:
        add_file("/" if name == "index.html" else f"/{name}", name)

    @app.get("/examples", include_in_schema=False)
    async def list_examples() -> dict[str, Any]:
        listed = [{"name": it.name, "prompt": it.prompt, "url": f"/examples/{i}.jpg"} for i, it in enumerate(examples)]
        return {"examples": listed}

    @app.get("/examples/{number}.jpg", include_in_schema=False)
    async def example(number: int) -> Response:
        if number not in range(len(examples)):
            raise Refused(404, f"example {number}: there are {len(examples)}")
        return Response(examples[number].data, media_type="image/jpeg", headers=HEADERS)


def add_operations(app: FastAPI, service: Service, mix: Mix) -> None:
    """Add what those who run the server ask."""

    @app.get("/info", response_model=Info, responses=refusals())
    async def info() -> Response:
        """Checkpoints with their dimensions and ranges, the mix of rewards, and the limits."""
        return JSONResponse(answers.info(service, mix))

    @app.get("/health", responses=refusals())
    async def health() -> dict[str, str]:
        """Whether the models work; if one has failed, it is tried again."""
        await service.check()
        return {"status": "ok"}

    @app.get("/ready", responses=refusals())
    async def ready() -> dict[str, str]:
        """Whether the models work, and there is room for another image."""
        await service.check()
        service.check_room()
        return {"status": "ok"}

    @app.get("/metrics", response_class=PlainTextResponse, responses=refusals())
    async def metrics() -> Response:
        """Counters, for Prometheus."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


async def show_refusal(_: Request, error: Exception) -> Response:
    """The answer to a request that is not served."""
    assert isinstance(error, Refused)
    return JSONResponse({"detail": error.detail}, error.status, error.headers)


async def show_http_error(_: Request, error: Exception) -> Response:
    """The answer where there is no such address or method."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": f"{error.detail}; see /docs"}, error.status_code, error.headers)
