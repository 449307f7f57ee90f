"""Images in Parquet and Arrow files: their bytes, Hugging Face's `{bytes, path}`, or paths; read in spans of rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mgs.errors import UserError
from mgs.sources.columns import Columns, choose_columns
from mgs.sources.item import Item, absolute, hash_of, shard_size
from mgs.sources.places import Root, is_remote, open_place, parent_of, reason_of, stamp
from mgs.sources.tables import TableOptions, as_cell, part_folder, refuse_two_prompts

if TYPE_CHECKING:
    import pyarrow as pa

READ = 1 << 20  # bytes of a column at once
AT_ONCE = 64  # rows with images' bytes in memory
ARROW = (".arrow",)


@dataclass(frozen=True)
class ParquetShard:
    """A span of a file's rows."""

    file: str
    stamp: str  # of its content, when the source was found
    columns: Columns
    options: TableOptions
    start: int
    rows: int

    @property
    def count(self) -> int:
        """How many images."""
        return self.rows * len(self.columns.images)

    @property
    def wants_prompts(self) -> bool:
        """Whether the file has no prompts, nor the user."""
        return self.columns.prompt is None and self.options.prompt is None

    def fingerprint(self) -> str:
        """A hash of the file's name, size and time, the span, and what is read of it."""
        facts = (*self.columns.all(), self.options.prompt, self.options.images)
        return hash_of(absolute(self.file), self.stamp, self.start, self.rows, *facts)

    def items(self) -> Iterator[Item]:
        """The images of the rows."""
        root = Root(self.options.images or parent_of(self.file))
        number = self.start
        with reading(self.file) as file:
            for batch in batches(file, self.start, self.rows, self.columns.all()):
                batch.validate(full=True)  # a damaged file may point beyond its end
                for record in batch.to_pylist():
                    yield from self.items_of(record, root, number)
                    number += 1

    def items_of(self, record: Mapping[str, Any], root: Root, number: int) -> Iterator[Item]:
        """A row's images; `number` counts rows from 0."""
        where = f"{self.file}, row {number}"
        prompt = as_cell(record[self.columns.prompt], where) if self.columns.prompt else self.options.prompt
        names = self.columns.names or ("",) * len(self.columns.images)
        for column, key in zip(self.columns.images, names, strict=True):
            value = record[column]
            data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
            if isinstance(data, str):  # a path rather than bytes
                data, path = None, data
            named = record[key] if key else None
            own = [named, path] if "name" in self.options.columns else [path, named]
            name = str(next((one for one in own if one not in (None, "")), f"{self.file}:{number}:{column}"))
            if data is not None:
                yield Item(name, "", prompt, data)
            elif path:
                folder = part_folder(record[self.columns.folder], where) if self.columns.folder else ""
                path = folder + path.strip().replace("\\", "/")
                name = name if named and name == str(named) else path
                try:
                    yield Item(name, root.place(path, where), prompt)
                except UserError as error:  # one bad row ends no job
                    yield Item(name, "", prompt, problem=str(error))
            else:
                yield Item(name, "", prompt, problem=f"no image in row {number} of {self.file}")


def read_parquet(file: str, options: TableOptions) -> Iterator[ParquetShard]:
    """A file's spans of rows, which end where its row groups do if those are not too long. Raises `UserError`."""
    with reading(file) as opened:
        columns = choose_columns(opened.names, options.columns, file)
        holds_bytes = check_types(opened.schema, columns, file)
        lengths = opened.lengths
    refuse_two_prompts(columns, options, file)
    span = partial(ParquetShard, file, stamp(file), columns, options)
    if not sum(lengths):
        raise UserError(f"{file}: no rows; leave it out, or write it again")
    size = shard_size(sum(lengths))
    start = rows = 0
    for length in lengths:
        rows += length
        while rows >= 2 * size and not holds_bytes:  # of one long row group, which is quickly read up to there
            yield span(start, size)
            start, rows = start + size, rows - size
        if rows >= size:
            yield span(start, rows)
            start, rows = start + rows, 0
    if rows:
        yield span(start, rows)


def check_types(schema: pa.Schema, columns: Columns, file: str) -> bool:
    """Whether images are bytes rather than paths. Raises `UserError` for values that are no images, or no prompts."""
    import pyarrow as pa

    holds_bytes = False

    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    for column in columns.all():
        kind = schema.field(column).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if column in columns.images:
            holds_bytes |= not any(test(kind) for test in text)
            packed = pa.types.is_struct(kind) and {"bytes", "path"} & {field.name for field in kind}
            right, wanted = packed or any(test(kind) for test in (*text, *binary)), "bytes, {bytes, path}, or paths"
        else:
            whole = pa.types.is_integer(kind) and column != columns.prompt
            right, wanted = whole or any(test(kind) for test in text), "text"
        if not right:
            raise UserError(f"{file}: column {column!r} has {kind}, not {wanted}; name another with --columns")
    return holds_bytes


@dataclass(frozen=True)
class Opened:
    """A file with columns, and the lengths of the groups that its rows are stored in."""

    schema: Any  # pyarrow's
    lengths: list[int]
    parquet: Any = None  # pyarrow's file; None for Arrow's streams
    arrow: Any = None  # the table of an Arrow stream or file

    @property
    def names(self) -> list[str]:
        """The columns."""
        return list(self.schema.names)


@contextlib.contextmanager
def reading(file: str) -> Iterator[Opened]:
    """An open Parquet or Arrow file. Raises `UserError`, also for damage that is met while rows are read."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(f"{file}: Parquet needs pyarrow: run pip install pyarrow") from None
    with open_place(file) as stream:
        try:
            if file.lower().endswith(ARROW):
                table = open_arrow(pa, stream if is_remote(file) else pa.memory_map(file))
                yield Opened(table.schema, [table.num_rows], arrow=table)
            else:
                opened = pq.ParquetFile(stream, pre_buffer=False, buffer_size=READ)  # else a row group at once
                groups = range(opened.metadata.num_row_groups)
                lengths = [opened.metadata.row_group(i).num_rows for i in groups]
                yield Opened(opened.schema_arrow, lengths, parquet=opened)
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:  # all of them of damage, too
            remedy = "--resume continues when it can be read" if is_remote(file) else "download or write it again"
            raise UserError(f"{file}: {reason_of(error)}; {remedy}") from None


def open_arrow(pa: Any, stream: Any) -> Any:
    """The table of an Arrow file or stream, as `datasets.save_to_disk` writes it."""
    try:
        return pa.ipc.open_stream(stream).read_all()
    except pa.ArrowInvalid:
        stream.seek(0)
        return pa.ipc.open_file(stream).read_all()


def batches(opened: Opened, start: int, rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """A span of rows, a few at a time, of these columns."""
    if opened.parquet is None:
        yield from opened.arrow.select(columns).slice(start, rows).to_batches(AT_ONCE)
        return
    groups = list[int]()
    first = end = 0  # the row groups that hold the span, and the number of their first row
    for i, length in enumerate(opened.lengths):
        if end < start + rows and end + length > start:
            first = first if groups else end
            groups.append(i)
        end += length
    skip = start - first
    for batch in opened.parquet.iter_batches(AT_ONCE, row_groups=groups, columns=columns):
        part = batch.slice(skip, rows)
        skip = max(skip - batch.num_rows, 0)
        rows -= part.num_rows
        if part.num_rows:
            yield part
        if not rows:
            return
