"""Images that a table names: CSV, TSV, .xlsx, JSON lines, and JSON of DiffusionDB and HPD; row by row."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mgs.datasets.cells import to_record
from mgs.datasets.tables import Row, iterate_csv, name_columns, read_header, read_sheet
from mgs.errors import UserError
from mgs.sources.columns import Columns, choose_columns
from mgs.sources.item import Item
from mgs.sources.places import Root, open_place, parent_of

STDIN = "-"
JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class TableOptions:
    """What the user says about tables."""

    prompt: str | None = None  # of all images; for tables without prompts
    images: str | None = None  # the folder where image paths begin; by default the table's own
    columns: Mapping[str, str] = field(default_factory=dict)  # role -> column


Record = tuple[str, Mapping[str, Any]]  # a row's place, for errors, and its cells by column


class TableReader:
    """A table whose rows name image files. What stdin or .xlsx hold is kept, since it cannot be read in parts."""

    def __init__(self, table: str, options: TableOptions) -> None:
        self.table, self.options = table, options
        self.name = "stdin" if table == STDIN else table
        self.stdin = sys.stdin.buffer.read() if table == STDIN else b""
        self.sheet: list[Row] | None = None
        self.root = Root(options.images or ("." if table == STDIN else parent_of(table)))
        self.columns: Columns | None = None  # chosen when first read, so that it is said once

    def __iter__(self) -> Iterator[Item]:
        """The images, in the table's order. Raises `UserError` for a row that cannot be understood."""
        empty = True
        for where, record in self.records():
            empty = False
            assert self.columns  # chosen before the first row is given
            yield from self.items_of(record, self.columns, where)
        if empty:
            raise UserError(f"{self.name}: no rows; it must hold a header with a column image, and rows")

    def choose(self, found: list[str]) -> Columns:
        """The columns to read, chosen from the first row's. Raises `UserError`."""
        if self.columns is None:
            self.columns = choose_columns(found, self.options.columns, self.name)
            refuse_two_prompts(self.columns, self.options, self.name)
        return self.columns

    def column_names(self) -> list[str]:
        """The columns of the table, in lower case; of JSON, all that any of its records has."""
        if records := self.json_reader():
            return list(dict.fromkeys(name for _, record in records() for name in record))
        return read_header(next(self.read_csv(), (0, [])))

    def records(self) -> Iterator[Record]:
        """The rows by column."""
        if records := self.json_reader():
            if self.columns is None and (names := self.column_names()):
                self.choose(names)
            elif self.columns is None:
                raise UserError(f'{self.name}: no rows with columns; each must name an image, as in {{"image": ...}}')
            return records()
        return self.rows(Path(self.table).suffix.lower())

    def json_reader(self) -> Callable[[], Iterator[Record]] | None:
        """What reads the table if it is JSON."""
        suffix = Path(self.table).suffix.lower()
        return self.json_lines if suffix in JSON_LINES else self.json_records if suffix == ".json" else None

    def rows(self, suffix: str) -> Iterator[Record]:
        """The rows of a CSV or a sheet below their header; blank ones are left out."""
        header: list[str] | None = None
        for line, cells in self.read_sheet() if suffix == ".xlsx" else self.read_csv():
            if not any(map(str.strip, cells)):
                continue
            if header is None:
                header = read_header((line, cells))
                self.choose(header)
            else:
                where = f"{self.name}:{line}"
                yield where, to_record(header, cells, where)

    def read_csv(self) -> Iterator[Row]:
        """A CSV's rows."""
        with io.BytesIO(self.stdin) if self.table == STDIN else open_place(self.table) as stream:
            yield from iterate_csv(stream, self.name)

    def read_sheet(self) -> list[Row]:
        """A sheet's rows."""
        if self.sheet is None:
            with open_place(self.table) as stream:
                self.sheet = read_sheet(stream, self.name)
        return self.sheet

    def json_lines(self) -> Iterator[Record]:
        """An object a line."""
        with open_place(self.table) as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    where = f"{self.name}:{number}"
                    yield where, as_record(parse_json(line.removeprefix(b"\xef\xbb\xbf"), where), where)

    def json_records(self) -> Iterator[Record]:
        """A list of objects; or DiffusionDB's object of them by the images' names, whose prompts are called p."""
        with open_place(self.table) as stream:
            content = parse_json(stream.read(), self.name)
        if isinstance(content, dict):
            content = [{"image": image, **as_record(facts, self.name)} for image, facts in content.items()]
        if not isinstance(content, list):
            raise UserError(f"{self.name}: no list of images, and no object of them by name; write one")
        for number, record in enumerate(content, 1):
            where = f"{self.name}, record {number}"
            yield where, as_record(record, where)

    def items_of(self, record: Mapping[str, Any], columns: Columns, where: str) -> Iterator[Item]:
        """A row's images."""
        prompt = self.options.prompt
        if columns.prompt:
            prompt = as_cell(record.get(columns.prompt), f"{where}: {columns.prompt}")
        for column in columns.images:
            names = record.get(column)
            for value in names if isinstance(names, list) and names else [names]:
                name = as_cell(value, f"{where}: {column}").strip().replace("\\", "/")  # as in tables to train on
                if not name:
                    raise UserError(f"{where}: blank {column}; name the image, or delete the row")
                if columns.folder:
                    name = part_folder(record.get(columns.folder), where) + name
                place = self.root.place(name, where)
                key = as_cell(record.get(columns.names[0]), where) if "name" in self.options.columns else ""
                yield Item(key or name, place, prompt)


def refuse_two_prompts(columns: Columns, options: TableOptions, where: str) -> None:
    """Raise a `UserError` where prompts come from a column and from the user, too."""
    if columns.prompt and options.prompt is not None:
        remedy = "leave one of them out"
        raise UserError(f"{where}: has prompts in a column {columns.prompt}, so --prompt is not used; {remedy}")


def part_folder(number: Any, where: str) -> str:
    """DiffusionDB's folder of that number."""
    try:
        return f"part-{int(number):06d}/"
    except (TypeError, ValueError):
        raise UserError(f"{where}: part_id is {number!r}; write the number of the image's folder") from None


def parse_json(data: bytes, where: str) -> Any:
    """JSON from its bytes. Raises `UserError`."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}); write one object with the image's name a line") from None


def as_record(value: Any, where: str) -> dict[str, Any]:
    """An object with its keys like a table's columns."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: no object; write the image's name and prompt as {{...}}")
    record = {str(key).strip().casefold(): one for key, one in value.items()}
    if len(record) < len(value):
        raise UserError(f"{where}: found {name_columns(list(value))}, two of which differ in case alone; rename one")
    return record


def as_cell(value: Any, where: str) -> str:
    """A cell's text; blank where it has none."""
    if value is None or value == [] or value != value:  # NaN, as pandas writes what is missing
        return ""
    if isinstance(value, (dict, list, bool)):
        raise UserError(f"{where}: a {type(value).__name__}; write text")
    return str(value)
