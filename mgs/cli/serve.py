"""`mgs serve`: a page for people, an endpoint for programs, rewards for training."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer

from mgs.cli.scorer_options import (
    CHECKPOINT_HELP,
    CLIP_HELP,
    METHOD_HELP,
    SETTINGS_HELP,
    STYLE_HELP,
    ScorerWords,
    open_scorer,
)
from mgs.errors import UserError

NEEDED = ("fastapi", "fastapi-offline", "uvicorn", "httptools", "python-multipart", "prometheus-client")
TOKEN_HELP = "who asks must send this as a bearer token"
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
    max_pixels: Annotated[int, typer.Option(min=1, help="pixels of an image")] = 1 << 25,
    queue: Annotated[int, typer.Option(min=1, help="images that may wait; more are told to come again")] = 256,
    timeout: Annotated[float, typer.Option(min=0.1, help="seconds for a request to arrive, and to be scored")] = 60,
) -> None:
    """Serve scores over HTTP, with a page, until Ctrl-C or SIGTERM."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name.replace("-", "_")) is None]:
        raise UserError(f"serve needs {', '.join(missing)}: run pip install {' '.join(missing)}")
    from mgs.scoring.reward import mix_for
    from mgs.serve.limits import Limits
    from mgs.serve.run import Address, run_server
    from mgs.serve.service import Service

    if token is not None and not token.strip():
        raise UserError("--token: empty; give one, or leave it out")
    limits = Limits(max_images, max_mb << 20, max_pixels, timeout, queue)
    address = Address(host, port, token)
    paths: list[Path | None] = [*checkpoint] if checkpoint else [None]
    scorers = {}
    for path in paths:
        scorer = open_scorer(ScorerWords(path, tuple(settings or ()), zero_shot, clip, method))
        scorers[str(path or scorer.name)] = scorer
    default = next(iter(scorers.values()))
    service = Service(scorers, limits, style=prompt_style, batch_size=batch_size)
    if not address.is_local and token is None:
        print(f"{host}: whoever reaches this machine can ask; --token asks them for one", file=sys.stderr)
    print(f"scored by {', '.join(scorer.name for scorer in scorers.values())}", file=sys.stderr)
    run_server(service, mix_for(default, parse_weights(reward)), address)


def parse_weights(text: str | None) -> dict[str, float] | None:
    """`quality=0.5,correspondence=0.5` as weights. Raises `UserError` for what is none."""
    if text is None:
        return None
    try:
        return {name.strip(): float(weight) for name, _, weight in (part.partition("=") for part in text.split(","))}
    except ValueError:
        raise UserError(f"--reward {text}: give weights, such as quality=0.5,correspondence=0.5") from None
