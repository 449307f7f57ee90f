"""Score many images from files, folders and tables into one file, wholly or not at all; a job can be resumed."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
from tqdm import tqdm

from mgs.dimensions import DIMENSIONS
from mgs.errors import UserError
from mgs.files import locked, whole_file
from mgs.progress_bar import progress
from mgs.safe_text import one_line, printable, safe_cell
from mgs.scoring.items import Item
from mgs.scoring.score import ERROR, Score, as_row, columns
from mgs.scoring.scorer import Scorer
from mgs.scoring.wording import level_word

SUFFIXES = (".csv", ".jsonl", ".parquet")
PARTIAL = ".partial"  # added to the output's name while a job runs: JSON lines, the first of which describes the job


def run_job(
    items: Sequence[Item], scorer: Scorer, out: Path, *, resume: bool, batch_size: int | None, style: str | None
) -> int:
    """Score `items` into `out`, .csv, .jsonl or .parquet, in their order; returns how many could not be scored.

    Until the job is done, its rows are in a file beside `out` that `resume` continues. Raises `UserError` if there is
    such a file without `resume`, or if it belongs to another job.
    """
    check_output(out)
    style = scorer.check_style(style)
    partial = out.with_name(out.name + PARTIAL)
    with locked(out.with_name(f".{out.name}.lock"), str(out)):
        job = {"job": fingerprint(items, scorer, style)}
        done, failed = open_partial(partial, job, resume=resume)
        names = output_columns(items, scorer)
        pairs = ((item.path, item.text) for item in items[done:])
        scores = scorer.score_stream(pairs, batch_size=batch_size, style=style)
        bar = progress(items[done:], desc="scoring", unit="image", initial=done, total=len(items))
        with partial.open("a", encoding="utf-8") as stream:
            try:
                for item, score in zip(bar, scores, strict=True):
                    failed += score.failed
                    stream.write(json.dumps(output_row(item, score, names)) + "\n")
                    stream.flush()
            except KeyboardInterrupt:
                tqdm.write(f"{partial}: what was scored is kept; --resume continues from there", file=sys.stderr)
                raise
        with whole_file(out) as temporary:
            write_rows(read_partial(partial), temporary, out.suffix, names)
        partial.unlink()
        return failed


def output_columns(items: Iterable[Item], scorer: Scorer) -> list[str]:
    """The columns of a table of these items' scores."""
    return columns(scorer.model.labels, prompt_read=any(item.origin for item in items))


def output_row(item: Item, score: Score, names: Sequence[str]) -> dict[str, Any]:
    """An item's row, by column; the status says where a prompt is from that the user did not give."""
    row = as_row(item.image, item.prompt, told_origin(item, score)) | {"prompt_read": item.text}
    return {name: row[name] for name in names if name in row}


def told_origin(item: Item, score: Score) -> Score:
    """The score with a remark on where the prompt is from."""
    return score.with_remark(f"prompt from {item.origin.place}") if item.origin else score


def show_score(item: Item, score: Score, scorer: Scorer) -> str:
    """One image's scores for people to read: a line per score, with the word that stands for that level."""
    lines = [f"{'image':<16}{printable(item.image)}", f"{'prompt':<16}{printable(one_line(item.prompt or '-'))}"]
    if item.origin and item.text != item.prompt:
        lines.append(f"{'prompt read':<16}{printable(one_line(item.text or '-'))}")
    score = told_origin(item, score)
    for dimension in DIMENSIONS:
        value = getattr(score, dimension)
        if value is not None:
            lines.append(f"{dimension:<16}{value:.2f}  {level_word(dimension, value)}")
    lines += [f"{name:<16}{word}" for name, word in score.labels.items()]
    return "\n".join([*lines, f"{'status':<16}{score.status}", f"{'scored by':<16}{printable(scorer.name)}"])


def check_output(out: Path) -> None:
    """Raise a `UserError` for an output that could not be written, before anything is scored."""
    if out.suffix not in SUFFIXES:
        raise UserError(f"{out}: no such kind of output; end its name in {', '.join(SUFFIXES)}")
    if out.suffix == ".parquet" and not importlib.util.find_spec("pyarrow"):
        raise UserError(f"{out}: Parquet needs pyarrow: run pip install pyarrow, or write .csv or .jsonl")
    if out.is_dir():
        raise UserError(f"{out}: is a folder; name a file")
    out.parent.mkdir(parents=True, exist_ok=True)


def fingerprint(items: Iterable[Item], scorer: Scorer, style: str | None) -> str:
    """A hash that is equal for jobs with the same images, prompts and their origins, style, scorer and precision."""
    digest = hashlib.sha256()
    for item in items:
        origin = [item.origin.place, item.origin.read] if item.origin else []
        digest.update(json.dumps([item.image, str(item.path.absolute()), item.prompt, *origin]).encode())
    digest.update(
        json.dumps([scorer.source.fingerprint, style or scorer.prompt_style, str(scorer.engine.machine.dtype)]).encode()
    )
    return digest.hexdigest()


def open_partial(partial: Path, job: dict[str, str], *, resume: bool) -> tuple[int, int]:
    """Begin a job's file, or remove the incomplete last line of an old one; returns rows and failures so far."""
    data = partial.read_bytes() if partial.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if not whole:
        partial.write_text(json.dumps(job) + "\n", encoding="utf-8")
        return 0, 0
    if not resume:
        raise UserError(f"{partial}: left by an interrupted job; continue it with --resume, or remove it")
    if whole.partition(b"\n")[0] != json.dumps(job).encode():
        raise UserError(f"{partial}: of another job (other images, prompts or checkpoint); remove it to start again")
    with partial.open("r+b") as stream:
        stream.truncate(len(whole))
    statuses = [str(row["status"]) for row in read_partial(partial)]
    return len(statuses), sum(status.startswith(ERROR) for status in statuses)


def read_partial(partial: Path) -> Iterator[dict[str, Any]]:
    """The rows of a job's file."""
    with partial.open(encoding="utf-8") as stream:
        next(stream)
        for line in stream:
            yield json.loads(line)


def write_rows(rows: Iterator[dict[str, Any]], path: Path, suffix: str, names: list[str]) -> None:
    """Write rows in the format that the suffix names; numbers to the last digit, missing values empty."""
    if suffix == ".parquet":
        types = {name: "float64" if name in DIMENSIONS else "string" for name in names}
        pd.DataFrame(rows, columns=names).astype(types).to_parquet(path, index=False)
        return
    # a file's name may hold bytes that are not text
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        if suffix == ".jsonl":
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            write_csv(rows, stream, names)


def write_csv(rows: Iterable[dict[str, Any]], stream: TextIO, names: list[str]) -> None:
    """Write rows as CSV with a header of their columns' names."""
    # all text is quoted: with "\n" as line end, the writer would leave a "\r" in a prompt bare
    writer = csv.DictWriter(stream, names, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    writer.writerows({k: safe_cell(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows)
