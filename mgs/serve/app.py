"""The server's addresses: scores, ranks, prompts, rewards, the page, and what those who run it ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response

from mgs import __version__
from mgs.images.metadata import as_text
from mgs.scoring.mix import Mix
from mgs.serve import contracts, responses
from mgs.serve.bodies import as_items, check, read_content, take_images
from mgs.serve.contracts import ComputeAnswer, ComputeBody, Rewards
from mgs.serve.examples import draw_examples
from mgs.serve.limits import Refused
from mgs.serve.middleware import Guard
from mgs.serve.page_files import PAGE, PageFile
from mgs.serve.pickles import PICKLE, PICKLED
from mgs.serve.schemas import (
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
from mgs.serve.service import Service

GETS, POSTS = refusals(400, 401, 503), refusals(400, 401, 403, 408, 413, 415, 422, 503)
TITLE = "MGS: quality, authenticity and text-image correspondence"
PAGE_POLICY = (  # the page itself asks nobody but this server
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def make_app(service: Service, mix: Mix, *, token: str | None = None, hosts: Collection[str] | None = None) -> FastAPI:
    """The ASGI app of a service; `mix` is its reward, and `token` and `hosts` are the `Guard`'s."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.check()  # so that nobody is answered before the models are known to work
        yield

    app = FastAPIOffline(title=TITLE, version=__version__, redoc_url=None, lifespan=lifespan, redirect_slashes=False)
    app.add_middleware(Guard, service=service, token=token, hosts=hosts)
    app.add_exception_handler(Refused, show_refusal)
    app.add_exception_handler(HTTPException, show_http_error)
    rewards = Rewards(service, mix)
    add_scores(app, service, rewards)
    add_rewards(app, rewards)
    add_page(app)
    add_operations(app, service, rewards)
    return app


def add_scores(app: FastAPI, service: Service, rewards: Rewards) -> None:
    """Add what scores images."""
    limits = service.limits

    @app.post("/score", response_model=ScoreAnswer, responses=POSTS, openapi_extra=body_of(ScoreOptions))
    async def score(request: Request) -> Response:
        """Score images, each with its prompt. With the key `requests`, the body and the answer are UniRL's."""
        content = await read_content(request, limits)
        if "requests" in content:
            return JSONResponse(await contracts.unirl(content, rewards))
        images, asked = take_images(content), check(ScoreOptions, content)
        name = service.choose(asked.checkpoint, asked.dimensions, explain=asked.explain)
        found = await service.score(as_items(images, asked.prompts, limits), name, explain=asked.explain)
        results = [responses.entry(answer, i, asked.dimensions) for i, answer in enumerate(found)]
        return JSONResponse({"checkpoint": name, "results": results})

    @app.post("/rank", response_model=RankAnswer, responses=POSTS, openapi_extra=body_of(RankOptions))
    async def rank(request: Request) -> Response:
        """Score images, of one prompt or each of its own, and order them, the best first."""
        content = await read_content(request, limits)
        images, asked = take_images(content), check(RankOptions, content)
        wanted = [*(asked.dimensions or ()), *([asked.by] if asked.by else ())]
        name = service.choose(asked.checkpoint, wanted, explain=asked.explain)
        items = as_items(images, None if asked.prompt is None else [asked.prompt] * len(images), limits)
        found = await service.score(items, name, explain=asked.explain)
        by = asked.by or responses.rank_by(found, service.scorers[name])
        return JSONResponse({"checkpoint": name, "by": by, "results": responses.rank(found, by, asked.dimensions)})

    @app.post("/prompt", response_model=PromptAnswer, responses=POSTS, openapi_extra=body_of(PromptOptions))
    async def prompt(request: Request) -> Response:
        """Tell the prompts that image files hold."""
        content = await read_content(request, limits)
        images, _ = take_images(content), check(PromptOptions, content)
        found = await service.find_prompts(as_items(images, None, limits))
        return JSONResponse({"results": [responses.found_prompt(item, i) for i, item in enumerate(found)]})


def add_rewards(app: FastAPI, rewards: Rewards) -> None:
    """Add what trainers of image generators call."""
    limits = rewards.service.limits

    @app.post(
        "/compute",
        response_model=ComputeAnswer,
        responses=POSTS,
        openapi_extra=json_body(ComputeBody),
    )
    async def compute(request: Request) -> Response:
        """Rewards, as Flow-Factory asks for them."""
        return JSONResponse(await contracts.compute(await read_content(request, limits), rewards))

    @app.get("/rewards", responses=GETS)
    async def names() -> dict[str, list[str]]:
        """The names of rewards, as UniRL asks for them: the mix, and each dimension."""
        return {"rewards": rewards.names}

    @app.post("/", responses=POSTS, openapi_extra={"requestBody": {"content": {PICKLED: {}}}})
    async def pickled(request: Request) -> Response:
        """Rewards, as flow_grpo and verl-omni ask for them: a pickled dict of `images`, files' bytes, and `prompts`."""
        body = await request.body()
        if not body.startswith(PICKLE):
            raise Refused(415, "the body: no pickle of protocol 2 or later; other requests go to /score, see /docs")
        try:
            return Response(await contracts.pickled(body, rewards), media_type=PICKLED)
        except Refused as error:  # whose clients unpickle whatever comes
            content = contracts.write_pickle({"error": error.detail})
            return Response(content, error.status, error.headers, PICKLED)


def add_page(app: FastAPI) -> None:
    """Add the page for people, and its drawings."""
    headers = {**HEADERS, "Content-Security-Policy": PAGE_POLICY}
    drawings = {f"{i}.jpg": it for i, it in enumerate(draw_examples())}

    def add_file(path: str, file: PageFile) -> None:
        @app.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)
        async def send() -> Response:
            return Response(file.content, media_type=file.kind, headers=headers)

    for path, file in PAGE.items():
        add_file(path, file)

    @app.get("/examples", include_in_schema=False)
    async def list_examples() -> dict[str, Any]:
        return {
            "examples": [
                {"name": it.name, "prompt": it.prompt, "url": f"/examples/{file}"} for file, it in drawings.items()
            ]
        }

    @app.get("/examples/{file}", include_in_schema=False)
    async def example(file: str) -> Response:
        if file not in drawings:
            raise Refused(404, f"example {as_text(file)}: there are {', '.join(drawings)}")
        return Response(drawings[file].data, media_type="image/jpeg", headers=HEADERS)


def add_operations(app: FastAPI, service: Service, rewards: Rewards) -> None:
    """Add what those who run the server ask."""

    @app.get("/info", response_model=Info, responses=GETS)
    async def info() -> Response:
        """Checkpoints with their dimensions and ranges, the mix of rewards, and the limits."""
        return JSONResponse(responses.info(service, rewards.mix))

    @app.head("/health", include_in_schema=False)
    @app.get("/health", responses=GETS)
    async def health() -> dict[str, Any]:
        """Whether the models work; if one has failed, it is tried again. UniRL reads the names of rewards here."""
        await service.check()
        return {"status": "ok", "rewards": {name: ["score"] for name in rewards.names}}

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready", responses=GETS)
    async def ready() -> dict[str, str]:
        """Whether the models work, and there is room for another image."""
        await service.check()
        service.check_room()
        return {"status": "ok"}

    @app.get("/metrics", response_class=PlainTextResponse, responses=GETS)
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
