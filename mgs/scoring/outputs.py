"""Tables of scores as files: CSV, JSON lines and Parquet, wholly or not at all."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from mgs.dimensions import DIMENSIONS
from mgs.errors import UserError
from mgs.files import whole_file
from mgs.safe_text import safe_cell
from mgs.scoring.score import columns

SUFFIXES = (".csv", ".jsonl", ".parquet")
AT_ONCE = 10_000  # rows of a Parquet file in memory

Rows = Iterable[Mapping[str, Any]]


def check_output(out: Path, *, folder: bool = False) -> None:
    """Raise a `UserError` for an output that could not be written, before anything is scored."""
    if not folder and out.suffix not in SUFFIXES:
        ending = f"end its name in {', '.join(SUFFIXES)}, or in / for a folder"
        raise UserError(f"{out}: no such kind of output; {ending}")
    if (folder or out.suffix == ".parquet") and not importlib.util.find_spec("pyarrow"):
        other = "name a file .csv or .jsonl" if folder else "write .csv or .jsonl"
        raise UserError(f"{out}: Parquet needs pyarrow: run pip install pyarrow, or {other}")
    if not folder and out.is_dir():
        raise UserError(f"{out}: is a folder; name a file")
    if folder and out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; name a folder, or end its name in {', '.join(SUFFIXES)}")
    (out if folder else out.parent).mkdir(parents=True, exist_ok=True)


def refuse_input(out: Path, inputs: Iterable[str]) -> None:
    """Raise a `UserError` for an output that is one of the inputs, or a file that is no table of scores."""
    if not out.is_file():
        return
    for place in inputs:
        if os.path.exists(place) and out.samefile(place):
            raise UserError(f"{out}: is an input, too, and would be lost; name another file with --out")
    if out.stat().st_size and not is_table_of_scores(out):
        raise UserError(f"{out}: is there already, and no table of scores; name another file, or remove it")


def is_table_of_scores(path: Path) -> bool:
    """Whether a file has the first and the last column of a table that `write_rows` wrote."""
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            names = pq.read_schema(path).names
        else:
            with path.open(encoding="utf-8") as stream:
                line = stream.readline()
            names = list(json.loads(line)) if path.suffix == ".jsonl" else next(csv.reader([line]))
    except (OSError, ValueError, TypeError, StopIteration, csv.Error):  # pyarrow's errors are ValueErrors
        return False
    return [*names[:1], *names[-1:]] == [*columns()[:1], *columns()[-1:]]


def write_rows(rows: Rows, path: Path, names: Sequence[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write rows in the format that the suffix names; numbers to the last digit, missing values empty.

    `metadata` is for Parquet's header, and written to no other format.
    """
    with whole_file(path) as temporary:
        if path.suffix == ".parquet":
            write_parquet(rows, temporary, names, metadata or {})
        else:
            write_text(rows, temporary, path.suffix, names)


def write_text(rows: Rows, path: Path, suffix: str, names: Sequence[str]) -> None:
    """Write rows as CSV or JSON lines, as the suffix says; a temporary file may have another."""
    # a file's name may hold bytes that are not text
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        if suffix == ".jsonl":
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            write_csv(rows, stream, names)


def write_csv(rows: Rows, stream: TextIO, names: Sequence[str]) -> None:
    """Write rows as CSV with a header of their columns' names."""
    # all text is quoted: with "\n" as line end, the writer would leave a "\r" in a prompt bare
    writer = csv.DictWriter(stream, names, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    writer.writerows({k: safe_cell(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows)


def write_parquet(rows: Rows, path: Path, names: Sequence[str], metadata: Mapping[str, str]) -> None:
    """Write rows as Parquet, whose columns have the same types whatever they hold."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = [(name, pa.float64() if name in DIMENSIONS else pa.string()) for name in names]
    schema = pa.schema(types, metadata=dict(metadata))
    with pq.ParquetWriter(path, schema) as writer:
        for some in batched(rows, AT_ONCE):
            writer.write_table(pa.Table.from_pylist([as_text(row) for row in some], schema=schema))


def batched(rows: Rows, size: int) -> Iterator[list[Mapping[str, Any]]]:
    """Rows, so many at a time."""
    stream = iter(rows)
    while some := list(itertools.islice(stream, size)):
        yield some


def as_text(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose texts are all valid: a file's name may hold bytes that are not."""
    return {k: v.encode("utf-8", "backslashreplace").decode() if isinstance(v, str) else v for k, v in row.items()}
