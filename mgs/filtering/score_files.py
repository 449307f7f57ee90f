"""The files that `mgs score` writes, as one table of DuckDB's: CSV, JSON lines, Parquet, folders of Parquet parts."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path

import duckdb

from mgs.datasets.tables import name_columns
from mgs.dimensions import DIMENSIONS
from mgs.errors import UserError
from mgs.filtering.database import exact_pattern, identifier, literal
from mgs.safe_text import QUOTED_FORMULA
from mgs.sources.find import JOB

PARTS = "part-*.parquet"  # those files of a folder that are scores
TABLE = "scores"
ROW = '"mgs row"'  # orders the rows of all files: a file's number and, in the lowest bits, the row's number in it
ROW_BITS = 40
BLOCK = 1 << 24  # bytes


def name_files(files: Sequence[Path]) -> str:
    """A list of files in SQL."""
    return "[" + ", ".join(literal(exact_pattern(path)) for path in files) + "]"


@dataclass(frozen=True)
class Kind:
    """How DuckDB reads files of one kind. It guesses no types, so that the text `001` stays as it is."""

    columns: Callable[[duckdb.DuckDBPyConnection, Sequence[Path]], Iterable[list[str]]]  # different lists of columns
    reader: str  # a table function of {files} and {types}
    number: str = "row_number() OVER ()"  # of a row
    text: str = "CAST({0} AS VARCHAR)"  # a cell's text


def csv_columns(_: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> Iterable[list[str]]:
    """The header of each CSV. Raises `UserError` if a file ends within quotation marks: DuckDB drops such a row."""
    for path in files:
        with path.open("rb") as stream:
            if sum(block.count(b'"') for block in iter(lambda: stream.read(BLOCK), b"")) % 2:
                raise UserError(f"{path}: a quotation mark is missing; if the file was cut off, write it again")
        try:
            with path.open(encoding="utf-8-sig", newline="") as text:
                yield next(csv.reader(text, strict=True), [])
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path}: {error}; give a CSV as mgs score writes it, in UTF-8") from None


def json_columns(connection: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> Iterable[list[str]]:
    """The keys of the lines: those of an image that failed may be fewer."""
    source = f"read_json_objects({name_files(files)}, {NDJSON})"
    lines = f"SELECT json_keys(json) AS keys, row_number() OVER () AS number FROM {source}"
    found = connection.execute(f"SELECT keys, min(number) FROM ({lines}) GROUP BY keys ORDER BY 2").fetchall()
    return [keys for keys, _ in found]


def parquet_columns(connection: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> Iterable[list[str]]:
    """The columns of the files."""
    lists = "list(name ORDER BY column_id) AS names, count(num_children) AS nested"
    each = f"SELECT {lists} FROM parquet_schema({name_files(files)}) WHERE column_id > 0 GROUP BY file_name"
    found = connection.execute(f"SELECT DISTINCT names, nested FROM ({each}) ORDER BY len(names) DESC").fetchall()
    if any(nested for _, nested in found):
        raise UserError(f"{files[0]}: has nested columns; a table of scores has numbers and texts")
    return [names for names, _ in found]


NDJSON = "format='newline_delimited', hive_partitioning=false"
# One thread: several of them guess where a row begins, and a prompt with quotation marks and line breaks may look like
# rows. An empty cell is NULL, also where it is quoted.
CSV_RULES = (
    "auto_detect=false, header=true, delim=',', quote='\"', escape='\"', nullstr='', allow_quoted_nulls=true, "
    "compression='none', hive_partitioning=false, parallel=false"
)
APOSTROPHE = literal("^" + QUOTED_FORMULA.pattern)  # what `safe_cell` puts there
KINDS = {
    ".csv": Kind(
        csv_columns,
        f"read_csv({{files}}, columns={{types}}, {CSV_RULES})",
        text=f"CASE WHEN regexp_matches({{0}}, {APOSTROPHE}) THEN substr({{0}}, 2) ELSE {{0}} END",
    ),
    ".jsonl": Kind(json_columns, f"read_json({{files}}, columns={{types}}, {NDJSON})"),
    ".parquet": Kind(
        parquet_columns,
        "read_parquet({files}, union_by_name=true, hive_partitioning=false)",
        number=f"(CAST(file_index AS BIGINT) << {ROW_BITS}) + file_row_number",
    ),
}


def find_score_files(words: Sequence[Path]) -> list[Path]:
    """The files named, and the finished parts in the folders named, as absolute paths. Raises `UserError`."""
    found: list[Path] = []
    for word in words:
        if word.is_dir():
            # the name of an unfinished one begins with a dot; numbers may outgrow their zeros
            parts = sorted(word.glob(PARTS), key=lambda part: (len(part.name), part.name))
            if not parts:
                raise UserError(f"{word}: no {PARTS} in this folder; name a folder or a file that mgs score wrote")
            refuse_unfinished(word, len(parts))
            found += parts
        elif word.suffix not in KINDS:
            raise UserError(f"{word}: no table of scores; name a folder, or files that end in {', '.join(KINDS)}")
        elif not word.is_file():
            raise UserError(f"{word}: no such file; name one that mgs score wrote")
        else:
            found.append(word)
    for path, times in Counter(path.absolute() for path in found).items():
        if times > 1:
            raise UserError(f"{path}: named {times} times; name each table once")
    return [path.absolute() for path in found]


def refuse_unfinished(folder: Path, parts: int) -> None:
    """Raise a `UserError` for a folder of fewer parts than its job has shards: the best would be chosen of some."""
    try:
        shards = json.loads((folder / JOB).read_text(encoding="utf-8"))["shards"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # of another program
    if parts < shards:
        raise UserError(f"{folder}: has {parts} of {shards} parts; finish the job with mgs score --resume")


def refuse_input_as_output(out: Path, words: Sequence[Path]) -> None:
    """Raise a `UserError` if the output would replace an input, or would be read as one from then on."""
    for word in words:
        is_part = word.is_dir() and fnmatchcase(out.name, PARTS) and word.samefile(out.parent)
        if is_part or (word.is_file() and out.exists() and word.samefile(out)):
            raise UserError(f"--out {out}: is one of the tables to filter; name another file")


def open_scores(connection: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> list[str]:
    """Make the view `TABLE` of all rows, with their order as `ROW`; returns its columns, in the files' order.

    Scores are numbers, NULL where there is none, and all else is text. Columns that a file lacks are NULL there.
    Raises `UserError` if a column is named twice or missing.
    """
    groups, lists = [], []
    for _, paths in groupby(files, key=lambda path: path.suffix if path.suffix == ".parquet" else path):
        group = list(paths)
        own = list(KINDS[group[0].suffix].columns(connection, group))
        names = merge_lists(own)
        check_columns(group[0], names, own)
        groups.append((group, names))
        lists.append(names)
    columns = merge_lists(lists)
    before, selects = 0, []
    for group, names in groups:
        selects.append(select_group(group, names, columns, before))
        before += len(group)
    connection.execute(f"CREATE TEMP VIEW {TABLE} AS {' UNION ALL '.join(selects)}")
    return columns


def merge_lists(lists: Iterable[Sequence[str]]) -> list[str]:
    """All names of several lists in one order: a name that is new stands behind the one before it in its own list."""
    merged: list[str] = []
    for names in lists:
        place = 0
        for name in names:
            if name not in merged:
                merged.insert(place, name)
            place = merged.index(name) + 1
    return merged


def check_columns(path: Path, names: Sequence[str], lists: Sequence[Sequence[str]]) -> None:
    """Raise a `UserError` unless these are the columns of a table of scores; SQL tells none apart by case."""
    repeated = [n for n in lists if len({name.casefold() for name in n}) < len(n)]
    if repeated or len({name.casefold() for name in names}) < len(names):
        raise UserError(f"{path}: a column is there twice, in {name_columns(repeated[0] if repeated else names)}")
    if not {"image", "status"} <= set(names) or not set(DIMENSIONS) & set(names):
        needed = f"image, status and at least one of {', '.join(DIMENSIONS)}"
        raise UserError(f"{path}: found columns {name_columns(names)}; a table of scores has {needed}")


def select_group(files: Sequence[Path], names: Sequence[str], columns: Sequence[str], before: int) -> str:
    """The rows of files that are read together, `before` the number of files in front of them."""
    kind = KINDS[files[0].suffix]
    types = {name: "DOUBLE" if name in DIMENSIONS else "VARCHAR" for name in columns}
    cells = []
    for name, type_ in types.items():
        column = identifier(name)
        if name not in names:
            cell = f"CAST(NULL AS {type_})"
        elif type_ == "DOUBLE":  # NaN, which DuckDB holds to be the highest of all numbers, is no score
            cell = f"CASE WHEN isnan(CAST({column} AS DOUBLE)) THEN NULL ELSE CAST({column} AS DOUBLE) END"
        else:
            cell = kind.text.format(column)
        cells.append(f"{cell} AS {column}")
    listed = "{" + ", ".join(f"{literal(name)}: '{types[name]}'" for name in names) + "}"
    source = kind.reader.format(files=name_files(files), types=listed)
    return f"SELECT (CAST({before} AS BIGINT) << {ROW_BITS}) + {kind.number} AS {ROW}, {', '.join(cells)} FROM {source}"
