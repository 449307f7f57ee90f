"""`mgs serve`: a page for people, an endpoint for programs, rewards for training."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mgs.cli.scorer_options import (
    CHECKPOINT_HELP,
    CLIP_HELP,
    METHOD_HELP,
    SETTINGS_HELP,
    STYLE_HELP,
    ScorerWords,
    open_on,
    open_scorer,
)
from mgs.errors import UserError

if TYPE_CHECKING:
    from mgs.scoring.mix import Mix
    from mgs.scoring.scorer import Scorer
    from mgs.serve.ray_serve import Replicas

NEEDED = ("fastapi", "fastapi-offline", "uvicorn", "httptools", "python-multipart", "prometheus-client")
TOKEN_HELP = "clients must send this as a bearer token"
RAY_HELP = "serve by replicas on a Ray cluster: its address, such as auto; local starts one here"
REPLICAS_HELP = "with --ray: a number such as 4, or 1-4, as requests need; default: one for each GPU"
REWARD_HELP = "the mix that reward clients get, such as quality=0.5,correspondence=0.5; default: all alike"


def serve(
    host: Annotated[str, typer.Option(help="where to listen; 0.0.0.0: for other machines too")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 8000,
    token: Annotated[str | None, typer.Option(envvar="MGS_TOKEN", help=TOKEN_HELP)] = None,
    checkpoint: Annotated[list[Path] | None, typer.Option(help=f"{CHECKPOINT_HELP}; may be repeated")] = None,
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="a bare CLIP in place of a checkpoint")] = False,
    clip: Annotated[str | None, typer.Option(help=CLIP_HELP)] = None,
    method: Annotated[str | None, typer.Option(help=METHOD_HELP)] = None,
    prompt_style: Annotated[str | None, typer.Option(help=STYLE_HELP)] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help=SETTINGS_HELP)] = None,
    reward: Annotated[str | None, typer.Option(help=REWARD_HELP)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="images scored at once, at most")] = None,
    max_images: Annotated[int, typer.Option(min=1, help="images of a request")] = 64,
    max_mb: Annotated[int, typer.Option(min=1, help="megabytes of a request")] = 64,
    max_pixels: Annotated[int, typer.Option(min=1, help="pixels of an image")] = 1 << 24,
    queue: Annotated[int, typer.Option(min=1, help="images that may wait; more are told to come again")] = 256,
    timeout: Annotated[float, typer.Option(min=0.1, help="seconds for a request to arrive, and to be scored")] = 60,
    ray: Annotated[str | None, typer.Option(help=RAY_HELP)] = None,
    replicas: Annotated[str | None, typer.Option(help=REPLICAS_HELP)] = None,
) -> None:
    """Serve scores over HTTP, with a page, until Ctrl-C or SIGTERM."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name.replace("-", "_")) is None]:
        raise UserError(f"serve needs {', '.join(missing)}: run pip install {' '.join(missing)}")
    if ray and importlib.util.find_spec("ray") is None:
        raise UserError("serve --ray needs ray: run pip install 'ray[data,serve]'")
    if replicas and not ray:
        raise UserError("--replicas: are a Ray cluster's; name it with --ray, or leave them out")
    token = os.environ.get("MGS_TOKEN") if token is None else token  # an empty variable is none to typer
    if token is not None and not (token.strip() and token.isascii() and token.isprintable()):
        raise UserError("--token, MGS_TOKEN: empty, or letters that HTTP cannot send; give another, or leave it out")
    weights = parse_weights(reward)
    from mgs.serve.limits import Limits
    from mgs.serve.run import Address, run_server
    from mgs.serve.service import Service

    limits = Limits(max_images, max_mb << 20, max_pixels, timeout, queue)
    address = Address(host, port, token)
    address.listen().close()  # which is told before anything is loaded
    paths: list[Path | None] = [*dict.fromkeys(checkpoint)] if checkpoint else [None]
    words = [ScorerWords(path, tuple(settings or ()), zero_shot, clip, method) for path in paths]
    if not address.is_local and token is None:
        print(f"{host}: whoever reaches this machine can ask; --token asks them for one", file=sys.stderr)
    if ray:
        from mgs.serve.ray_serve import Recipe, serve_on_ray

        count, device = parse_replicas(replicas), words[0].device_on_ray()
        makers, mix = prepare_for_ray(words, weights, prompt_style)
        recipe = Recipe(makers, mix, limits, address, prompt_style, batch_size, os.getcwd())
        serve_on_ray(recipe, ray, count, device)
    else:
        scorers = open_scorers(words)
        service = Service(scorers, limits, style=prompt_style, batch_size=batch_size)
        run_server(service, mix_of(scorers, weights), address)


def open_scorers(words: Sequence[ScorerWords]) -> dict[str, Scorer]:
    """Scorers by the names that requests call them by."""
    opened = [(one, open_scorer(one)) for one in words]
    print(f"scored by {', '.join(scorer.name for _, scorer in opened)}", file=sys.stderr)
    return {str(one.checkpoint or scorer.name): scorer for one, scorer in opened}


def mix_of(scorers: Mapping[str, Scorer], weights: Mapping[str, float] | None) -> Mix:
    """The mix that reward clients get, of what the first scorer gives."""
    from mgs.scoring.reward import mix_for

    return mix_for(next(iter(scorers.values())), weights)


def prepare_for_ray(
    words: Sequence[ScorerWords], weights: Mapping[str, float] | None, style: str | None
) -> tuple[dict[str, partial[Scorer]], Mix]:
    """What makes the scorers in other processes, by name, and the mix.

    They are opened here once, so that mistakes are told at once, and all processes open the same checkpoint.
    """
    scorers = open_scorers([one.on("cpu", precision="fp32") for one in words])
    for scorer in scorers.values():
        scorer.check_style(style)
    exact = [one.exactly(scorer) for one, scorer in zip(words, scorers.values(), strict=True)]
    makers = {name: partial(open_on, words=one) for name, one in zip(scorers, exact, strict=True)}
    return makers, mix_of(scorers, weights)


def parse_replicas(text: str | None) -> Replicas | None:
    """`4` or `1-4` as numbers of replicas. Raises `UserError` for what is neither."""
    from mgs.serve.ray_serve import Replicas

    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,3})(?:-([1-9]\d{0,3}))?", text.strip())
    if not found or int(found[2] or found[1]) < int(found[1]):
        raise UserError(f"--replicas {text}: give a number such as 4, or the least and the most such as 1-4")
    return Replicas(int(found[1]), int(found[2] or found[1]))


def parse_weights(text: str | None) -> dict[str, float] | None:
    """`quality=0.5,correspondence=0.5` as weights. Raises `UserError` for what is none."""
    if text is None:
        return None
    parts = [part.partition("=") for part in text.split(",")]
    try:
        weights = {name.strip(): float(weight) for name, _, weight in parts}
    except ValueError:
        raise UserError(f"--reward {text}: give weights, such as quality=0.5,correspondence=0.5") from None
    if len(weights) < len(parts):
        raise UserError(f"--reward {text}: names a dimension twice; name each once")
    return weights
