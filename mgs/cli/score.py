"""`mgs score`: scores of files, folders, patterns and tables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mgs.cli.scorer_options import CHECKPOINT_HELP, CLIP_HELP, METHOD_HELP, SETTINGS_HELP, STYLE_HELP, open_scorer
from mgs.errors import UserError

PROMPT_FROM_HELP = "for images without a given prompt: metadata (the default), filename, sidecar, or none"


def score(
    images: Annotated[list[str] | None, typer.Argument(help="files, folders and patterns")] = None,
    prompt: Annotated[str | None, typer.Option(help="the prompt of all images")] = None,
    prompt_from: Annotated[str | None, typer.Option(help=PROMPT_FROM_HELP)] = None,
    table: Annotated[str | None, typer.Option(help="CSV or .xlsx with columns image and prompt; - for stdin")] = None,
    folder: Annotated[Path | None, typer.Option("--images", help="where the table's image paths begin")] = None,
    out: Annotated[Path | None, typer.Option(help="write .csv, .jsonl or .parquet")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue an interrupted --out")] = False,
    checkpoint: Annotated[Path | None, typer.Option(help=CHECKPOINT_HELP)] = None,
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="a bare CLIP in place of a checkpoint")] = False,
    clip: Annotated[str | None, typer.Option(help=CLIP_HELP)] = None,
    method: Annotated[str | None, typer.Option(help=METHOD_HELP)] = None,
    prompt_style: Annotated[str | None, typer.Option(help=STYLE_HELP)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="images at once")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help=SETTINGS_HELP)] = None,
) -> None:
    """Score images; exit code 1 if any could not be scored."""
    from mgs.progress_bar import progress
    from mgs.scoring.items import collect_images, read_items
    from mgs.scoring.jobs import output_columns, output_row, run_job, show_score, write_csv
    from mgs.scoring.prompt_source import fill_prompts

    if bool(images) == bool(table):
        raise UserError("score: name images, or a table of them with --table; one of the two")
    if folder and not table:
        raise UserError("--images: says where a table's image paths begin; leave it out, or name a --table")
    if resume and not out:
        raise UserError("--resume: continues an --out; name it")
    items = read_items(table, folder, prompt) if table else collect_images(images or [], prompt)
    scorer = open_scorer(
        checkpoint, settings or [], [item.path for item in items], zero_shot=zero_shot, clip=clip, method=method
    )
    items = fill_prompts(items, prompt_from, needed=bool(scorer.model.needs_prompt))
    if out:
        failed = run_job(items, scorer, out, resume=resume, batch_size=batch_size, style=prompt_style)
        print(f"{out}: {len(items) - failed} of {len(items)} images scored by {scorer.name}")
    else:
        pairs = [(item.path, item.text) for item in items]
        stream = scorer.score_stream(pairs, batch_size=batch_size, style=prompt_style)
        scores = list(progress(stream, desc="scoring", unit="image", total=len(items), delay=2, leave=False))
        failed = sum(one.failed for one in scores)
        if len(items) == 1:
            print(show_score(items[0], scores[0], scorer))
        else:
            names = output_columns(items, scorer)
            rows = (output_row(item, one, names) for item, one in zip(items, scores, strict=True))
            write_csv(rows, sys.stdout, names)
            print(f"scored by {scorer.name}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)
