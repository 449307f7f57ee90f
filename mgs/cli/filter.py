"""`mgs filter`: keep the best of the images that were scored."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer

from mgs.errors import UserError

KEEP_HELP = "SQL condition over the columns, such as 'quality > 3.5 and correspondence > 3'"
TOP_HELP = "of the rest, this share (0.3) or number (100) of the best"
BY_HELP = "what is best: a column, or 'quality + 2 * correspondence'; default: overall, else the dimensions' mean"
MARK = b'content="mgs filter"'  # in the page that this command writes
SCORES_HELP = "what mgs score wrote: .csv, .jsonl, .parquet, or a folder of parts"


def filter(
    scores: Annotated[list[Path], typer.Argument(help=SCORES_HELP)],
    out: Annotated[Path, typer.Option(help="write .csv, .jsonl or .parquet, and a page beside it")],
    keep: Annotated[str | None, typer.Option(help=KEEP_HELP)] = None,
    top: Annotated[str | None, typer.Option(help=TOP_HELP)] = None,
    per: Annotated[str | None, typer.Option(help="the column in whose groups --top chooses, such as prompt")] = None,
    by: Annotated[str | None, typer.Option(help=BY_HELP)] = None,
    copy: Annotated[Path | None, typer.Option(help="copy the kept images into this folder")] = None,
    images: Annotated[Path | None, typer.Option(help="where relative image paths begin; default: here")] = None,
) -> None:
    """Keep scored images that fulfil a condition, or the best; exit code 1 if any could not be copied."""
    if keep is None and top is None:
        raise UserError("filter: nothing to choose by; give --keep, --top or both")
    for option, given in (("--per", per), ("--by", by)):
        if given is not None and top is None:
            raise UserError(f"{option}: says how --top chooses; add --top, or leave it out")
    if images is not None and copy is None:
        raise UserError("--images: says where --copy finds the images; add --copy, or leave it out")
    if not importlib.util.find_spec("duckdb"):
        raise UserError("filter: needs duckdb; run pip install duckdb")
    from mgs.files import whole_file
    from mgs.filtering.choose import Choice, open_tables, parse_top
    from mgs.filtering.copy_images import copy_images, list_problems, plan_copies
    from mgs.filtering.page import render_page
    from mgs.filtering.score_files import find_score_files, refuse_input_as_output
    from mgs.scoring.outputs import check_output, refuse_input

    choice = Choice(keep, None if top is None else parse_top(top), per, by)
    files = find_score_files(scores)
    refuse_input_as_output(out, scores)
    check_output(out)
    refuse_input(out, map(str, scores))
    page = out.with_suffix(".html")
    if page.exists() and MARK not in page.read_bytes()[:1000]:
        raise UserError(f"{page}: is there already, and no page of mgs filter; name another --out, or remove it")
    with open_tables(files, out) as tables:
        done = tables.choose(choice)
        copies = plan_copies(tables.chosen_images(), images or Path(), copy) if copy else None
        tables.write(done.kept)
    asked = {"--keep": keep, "--top": top, "--per": per, "--by" if by else "--by, by default": done.by}
    with whole_file(page) as temporary:
        temporary.write_text(render_page(out.name, done, scores, asked), encoding="utf-8")
    for remark in done.remarks:
        print(f"note: {remark}", file=sys.stderr)
    best = f", the best by {done.by}" if done.by and not by else ""
    left_out = [f"{done.failed:,} with errors"] * bool(done.failed)
    left_out += [f"{done.without_value:,} with nothing to order them by"] * bool(done.without_value)
    remark = f" ({' and '.join(left_out)} left out)" if left_out else ""
    print(f"{out}: {done.kept:,} of {done.read:,} images kept{best}{remark}; {page} shows what changed")
    if copy and copies:
        copied, refused = copy_images(copies)
        print(f"{copy}: {copied:,} image{'s' * (copied != 1)} copied")
        for line in list_problems(copies, refused, copy):
            print(line, file=sys.stderr)
        if copied < len(copies.targets) or copies.missing or copies.elsewhere:
            raise typer.Exit(1)
