"""`mgs score`: scores of files, folders, patterns, tables, Parquet files and archives."""

from __future__ import annotations

import os
import sys
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
    from mgs.scoring.scorer import Scorer
    from mgs.scoring.shards import ScoreOptions
    from mgs.sources.find import Source

IMAGES_HELP = "files, folders, patterns, {000..999}, URLs; also tables, Parquet files, tars and zips of images"
PROMPT_FROM_HELP = "for images without a given prompt: metadata (the default), filename, sidecar, or none"
TABLE_HELP = "CSV, TSV, .xlsx, JSON lines or Parquet that names the images; - for stdin"
COLUMNS_HELP = "a table's columns, such as image=file_name,prompt=caption,name=key"
OUT_HELP = "write .csv, .jsonl or .parquet; or a folder of Parquet parts: scores/"
DEVICES_HELP = "a process each, such as 0,1,2,3 or cpu,cpu; needs --out"
RAY_HELP = "a Ray cluster's address, such as auto; local starts one here; needs --out"


def score(
    images: Annotated[list[str] | None, typer.Argument(help=IMAGES_HELP)] = None,
    prompt: Annotated[str | None, typer.Option(help="the prompt of all images")] = None,
    prompt_from: Annotated[str | None, typer.Option(help=PROMPT_FROM_HELP)] = None,
    table: Annotated[str | None, typer.Option(help=TABLE_HELP)] = None,
    columns: Annotated[str | None, typer.Option(help=COLUMNS_HELP)] = None,
    folder: Annotated[str | None, typer.Option("--images", help="where a table's image paths begin")] = None,
    out: Annotated[str | None, typer.Option(help=OUT_HELP)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue an interrupted --out")] = False,
    checkpoint: Annotated[Path | None, typer.Option(help=CHECKPOINT_HELP)] = None,
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="a bare CLIP in place of a checkpoint")] = False,
    clip: Annotated[str | None, typer.Option(help=CLIP_HELP)] = None,
    method: Annotated[str | None, typer.Option(help=METHOD_HELP)] = None,
    prompt_style: Annotated[str | None, typer.Option(help=STYLE_HELP)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="images at once")] = None,
    devices: Annotated[str | None, typer.Option(help=DEVICES_HELP)] = None,
    ray: Annotated[str | None, typer.Option(help=RAY_HELP)] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help=SETTINGS_HELP)] = None,
) -> None:
    """Score images; exit code 1 if any could not be scored."""
    import torch

    from mgs.machine import choose_precision
    from mgs.running.choose import parse_devices, run_tasks
    from mgs.scoring.jobs import Place, run_job
    from mgs.scoring.outputs import refuse_input
    from mgs.scoring.shards import ScoreOptions, ScoreWork
    from mgs.sources.columns import parse_columns
    from mgs.sources.find import find_sources
    from mgs.sources.find_prompt import choose_prompts
    from mgs.sources.tables import TableOptions

    if bool(images) == bool(table):
        raise UserError("score: name images, or a table of them with --table; one of the two")
    if resume and not out:
        raise UserError("--resume: continues an --out; name it")
    words = ScorerWords(checkpoint, tuple(settings or ()), zero_shot, clip, method)
    named = parse_devices(devices) if devices else []
    elsewhere = bool(named or ray)
    if elsewhere and not out:
        raise UserError("--devices, --ray: write their scores into files; name an --out")
    if named and ray:
        raise UserError("--devices, --ray: name one of the two; a Ray cluster finds its devices itself")
    if named and words.setting("device"):
        raise UserError("--devices: says where to score already; leave out --set device=...")
    device = words.device_on_ray() if ray else "auto"
    if out:
        place = Place.of(out)
        refuse_input(place.out, [*(images or []), *([table] if table else [])])
        if resume and place.finished:
            print(f"{out}: finished already; without --resume it is scored again")
            return
    source = find_sources(images or [], TableOptions(prompt, folder, parse_columns(columns)), table=table)
    scorer = open_scorer(words.on("cpu", precision="fp32") if elsewhere else words, source.paths())
    prompts = choose_prompts(prompt_from, wanted=source.wants_prompts, needed=bool(scorer.model.needs_prompt))
    asked = words.setting("precision") or "auto"
    dtypes = {str(choose_precision(asked, torch.device(name))) for name in named} or {str(scorer.engine.machine.dtype)}
    precision = f"{asked} on Ray" if ray else " and ".join(sorted(dtypes))
    options = ScoreOptions(prompts, scorer.check_style(prompt_style), batch_size, precision)
    if out:
        work = ScoreWork(partial(open_on, words=words.exactly(scorer)), options, os.getcwd(), named.count("cpu"))
        run = partial(run_tasks, devices=named, ray=ray, device=device)
        done = run_job(source, scorer, work, out, resume=resume, run=run if elsewhere else None)
        failed = done.failed
        print(f"{out}: {done.rows - failed} of {done.rows} images scored by {scorer.name}")
    else:
        failed = show_scores(source, scorer, options)
    if failed:
        raise typer.Exit(1)


def show_scores(source: Source, scorer: Scorer, options: ScoreOptions) -> int:
    """Print scores: one image's for people, more of them as CSV; returns how many images could not be scored."""
    from mgs.progress_bar import progress
    from mgs.scoring.outputs import write_csv
    from mgs.scoring.shards import output_row, score_items, table_columns
    from mgs.scoring.wording import show_score

    stream = score_items(scorer, source.items(), options)
    scores = list(progress(stream, desc="scoring", unit="image", total=source.count, delay=2, leave=False))
    if len(scores) == 1:
        item, score = scores[0]
        print(show_score(item, score, scorer.name))
    else:
        names = table_columns(scorer.model.labels, options)
        write_csv((output_row(item, score, names) for item, score in scores), sys.stdout, names)
        print(f"scored by {scorer.name}", file=sys.stderr)
    return sum(score.failed for _, score in scores)
