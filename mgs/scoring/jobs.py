"""Score many images from files, folders and tables into one file, wholly or not at all; a job can be resumed."""

from __future__ import annotations

import csv
import glob
import hashlib
import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
from PIL import Image
from tqdm import tqdm

from mgs.datasets.cells import to_record
from mgs.datasets.tables import decode_csv, name_columns, read_header, read_rows, without_blank
from mgs.dimensions import DIMENSIONS
from mgs.errors import UserError
from mgs.files import Fence, locked, whole_file
from mgs.images.decode import FORMATS, is_url
from mgs.images.plugins import PLUGINS
from mgs.progress_bar import progress
from mgs.safe_text import one_line, printable, safe_cell
from mgs.scoring.score import ERROR, Score, as_row, columns
from mgs.scoring.scorer import Scorer
from mgs.scoring.wording import level_word

SUFFIXES = (".csv", ".jsonl", ".parquet")
UNKNOWN = {".svg", ".xcf", ".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf"}  # images, unknown to Pillow
NO_IMAGES = {".pdf", ".mpg", ".mpeg", ".h5", ".hdf", ".grib", ".bufr"}  # of what Pillow knows
PARTIAL = ".partial"  # added to the output's name while a job runs: JSON lines, the first of which describes the job


@dataclass(frozen=True)
class Item:
    """One image to score, as the output names it, and where it lies."""

    image: str
    path: Path
    prompt: str | None


def collect_images(words: Sequence[str], prompt: str | None) -> list[Item]:
    """Files, folders (all images below, by suffix) and patterns, in order, all with one prompt.

    Hidden files and folders are passed over, unless they are named. Images in a folder whose format cannot be read
    are counted on stderr.
    """
    items = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            found, left_out = find_images(path)
            if not found:
                problem = f"no image that can be read ({left_out})" if left_out else "no image"
                raise UserError(f"{path}: {problem} in this folder; name another, or the files themselves")
            if left_out:
                print(f"{printable(word)}: left out {left_out}", file=sys.stderr)
        elif glob.has_magic(word) and not path.exists() and not is_url(word):
            matches = map(Path, glob.glob(word, recursive=True))
            found = sorted(p for p in matches if not p.is_dir() and not is_litter(p, path))
            if not found:
                raise UserError(f"{word}: no file fits this pattern; quote it if the shell changes it")
        else:
            items.append(Item(word, path, prompt))  # as it is written, also if it is a URL
            continue
        items += [Item(str(p), p, prompt) for p in found]
    return items


def find_images(folder: Path) -> tuple[list[Path], str]:
    """The images below a folder, by suffix, in order; and a count of the unreadable ones by format, with the remedy."""
    registered = {suffix.lower(): kind for suffix, kind in Image.registered_extensions().items()}
    readable = {suffix for suffix, kind in registered.items() if kind in (*FORMATS, "MPO")}  # several JPEGs in one
    known = (registered.keys() - NO_IMAGES) | PLUGINS.keys() | UNKNOWN
    files = [p for p in folder.rglob("*") if p.suffix.lower() in known and not p.is_dir() and not is_litter(p, folder)]
    counts = Counter(p.suffix.lower() for p in files)
    readable |= {suffix for suffix in counts if suffix in PLUGINS and PLUGINS[suffix].ready()}
    others = [
        f"{count} {suffix} ({PLUGINS[suffix].remedy if suffix in PLUGINS else 'convert to PNG or JPEG'})"
        for suffix, count in sorted(counts.items())
        if suffix not in readable
    ]
    return sorted(p for p in files if p.suffix.lower() in readable), ", ".join(others)


def is_litter(path: Path, named: Path) -> bool:
    """Whether a path has a hidden part, or macOS's folder of an unpacked archive, that `named` does not have."""
    return any((p.startswith(".") or p == "__MACOSX") and p not in named.parts for p in path.parts)


def read_items(table: str, folder: Path | None, prompt: str | None) -> list[Item]:
    """The rows of a CSV or .xlsx table with a column image and perhaps one prompt; "-" reads a CSV from stdin.

    Image paths begin at `folder`, by default at the table's own. `prompt` is for rows of a table without that column.
    """
    rows = without_blank(decode_csv(sys.stdin.buffer.read(), Path("stdin"))) if table == "-" else read_rows(Path(table))
    root = folder or (Path() if table == "-" else Path(table).parent)
    if not rows:
        raise UserError(f"{table}: empty; it must hold a header with a column image, and rows")
    header = read_header(rows[0])
    if header.count("image") != 1 or header.count("prompt") > 1:
        raise UserError(f"{table}: found columns {name_columns(header)}; one must be image, and one may be prompt")
    if prompt is not None and "prompt" in header:
        raise UserError(f"{table}: has a column prompt, so --prompt is not used; leave one of them out")
    items, fence = [], Fence(root)
    for line, cells in rows[1:]:
        record = to_record(header, cells, f"{table}:{line}")
        name = record["image"].strip().replace("\\", "/")  # as in tables to train on
        items.append(Item(name, root / name, record.get("prompt", prompt)))
        if not fence.holds(items[-1].path):
            remedy = "put the files there, or name a folder that holds them all with --images"
            raise UserError(f"{table}:{line}: {record['image']} leads out of {root}; {remedy}")
    return items


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
        pairs = ((item.path, item.prompt) for item in items[done:])
        scores = scorer.score_stream(pairs, batch_size=batch_size, style=style)
        bar = progress(items[done:], desc="scoring", unit="image", initial=done, total=len(items))
        with partial.open("a", encoding="utf-8") as stream:
            try:
                for item, score in zip(bar, scores, strict=True):
                    failed += score.failed
                    stream.write(json.dumps(as_row(item.image, item.prompt, score)) + "\n")
                    stream.flush()
            except KeyboardInterrupt:
                tqdm.write(f"{partial}: what was scored is kept; --resume continues from there", file=sys.stderr)
                raise
        with whole_file(out) as temporary:
            write_rows(read_partial(partial), temporary, out.suffix, columns(scorer.model.labels))
        partial.unlink()
        return failed


def show_score(item: Item, score: Score, scorer: Scorer) -> str:
    """One image's scores for people to read: a line per score, with the word that stands for that level."""
    lines = [f"{'image':<16}{printable(item.image)}", f"{'prompt':<16}{printable(one_line(item.prompt or '-'))}"]
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
    """A hash that is equal for jobs with the same images, prompts, style, scorer and precision."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps([item.image, str(item.path.absolute()), item.prompt]).encode())
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
