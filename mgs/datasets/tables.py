"""Tables on disk as rows of text, each with its place in the file; `read_table` knows what the columns mean."""

from __future__ import annotations

import codecs
import csv
import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO

import openpyxl

from mgs.errors import UserError
from mgs.files import whole_file

SEPARATORS = (",", ";", "\t")
FIRST_LINE = re.compile(r"[\r\n]*[^\r\n]+")
SAID = re.compile(r"sep=([,;\t])\r?\n", re.IGNORECASE)  # Excel's first line where a user asked for one
QUOTED = re.compile(r'"[^"]*"?')
MOST_UNPACKED = 1 << 30  # bytes of an .xlsx file's parts
MOST_CELLS = 10_000_000
HEAD = 1 << 16  # bytes in which a header ends
README = "see data/README.md"  # the remedy that most errors about data end with

Row = tuple[int, list[str]]  # its line in the file, counted from 1, and its cells


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV or of an .xlsx file's first sheet, all cells as text; blank rows are left out."""
    try:
        with path.open("rb") as stream:
            rows = read_sheet(stream, path) if path.suffix.lower() == ".xlsx" else list(iterate_csv(stream, path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {README}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the file") from None
    return without_blank(rows)


def without_blank(rows: list[Row]) -> list[Row]:
    """The rows that have something in them."""
    return [(line, cells) for line, cells in rows if any(map(str.strip, cells))]


def iterate_csv(stream: BinaryIO, path: Path | str) -> Iterator[Row]:
    """Rows of a CSV, UTF-8 or UTF-16, one after the other, from a stream that can be sought in; `path` names it.

    Columns are separated by commas, semicolons or tabs, whichever the first row has most of. A row's number is that of
    its first line; cells may hold line breaks. Raises `UserError`.
    """
    start = stream.read(HEAD)
    encoding = find_encoding(start)
    head = start.decode(encoding, errors="replace")
    stream.seek(0)
    text = io.TextIOWrapper(stream, encoding, newline="")
    reader = csv.reader(text, strict=True, delimiter=find_separator(head))
    try:
        if SAID.match(head):
            next(reader)
        line = reader.line_num + 1
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{line}: {error}; check the row's quotation marks") from None
    except UnicodeDecodeError:
        stream.seek(0)
        line = next((n for n, bytes_ in enumerate(stream, 1) if not is_text(bytes_, encoding)), reader.line_num + 1)
        remedy = 'save it as "CSV UTF-8", which Excel offers under Save As'
        raise UserError(f"{path}:{line}: not UTF-8 text; {remedy}") from None
    finally:
        text.detach()  # whoever opened the stream closes it


def find_encoding(start: bytes) -> str:
    """A text file's encoding, by its first bytes; UTF-16, which Excel calls Unicode text, is known by its mark."""
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def is_text(line: bytes, encoding: str) -> bool:
    """Whether a line, without those around it, can be decoded."""
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def find_separator(text: str) -> str:
    """What separates a CSV's columns: Excel writes semicolons where the comma is the decimal mark, or tabs."""
    if said := SAID.match(text):
        return said[1]
    header = FIRST_LINE.match(text)
    plain = QUOTED.sub("", header[0] if header else "")
    return max(SEPARATORS, key=plain.count)  # the comma where there is none


def read_header(row: Row) -> list[str]:
    """The names in a header row, in lower case and without white space around them, for comparing."""
    return [name.strip().casefold() for name in row[1]]


def read_sheet(stream: BinaryIO, path: Path | str) -> list[Row]:
    """Rows of an .xlsx file's first sheet, cut or padded to the first row's width where only blanks are affected."""
    try:
        with zipfile.ZipFile(stream) as parts:  # a small file may unpack to one that fills the memory
            if (unpacked := sum(part.file_size for part in parts.infolist())) > MOST_UNPACKED:
                raise ValueError(f"unpacks to {unpacked / 1e9:.1f} GB")
        book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
        sheet, rows, count = book.worksheets[0], [], 0
        sheet.reset_dimensions()  # what the file says about its size need not be true
        for row in sheet.iter_rows(values_only=True):
            if (count := count + len(row)) > MOST_CELLS:  # a cell in the last column makes a row of 16,384
                raise ValueError(f"more than {MOST_CELLS:,} cells")
            rows.append(["" if c is None else str(c) for c in row])
        book.close()
    except Exception as error:  # zipfile, XML and openpyxl errors have no common base
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable .xlsx file ({reason}); download or save it again") from None
    filled = [next((i for i in range(len(row), 0, -1) if row[i - 1].strip()), 0) for row in rows]
    width = filled[0] if filled else 0
    return [(n, [*row[:end], *[""] * (width - end)]) for n, (row, end) in enumerate(zip(rows, filled, strict=True), 1)]


def name_columns(header: Sequence[str]) -> str:
    """A header's columns for an error message; of many, only the first are named."""
    named = ", ".join(name[:50] for name in header[:20])
    return named + (f" and {len(header) - 20} more" if len(header) > 20 else "")


def write_table(path: Path, rows: Iterable[Sequence[str | float]]) -> None:
    """Write rows, header first, as a UTF-8 CSV that `read_rows` reads back exactly."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        # all text is quoted: with "\n" as line end, the writer would leave a "\r" in a prompt bare
        csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(rows)


def find_file(root: Path, pattern: str) -> Path | None:
    """The file under `root` whose name in lower case matches; the one nearest to `root`, at most two folders down."""
    for level in ("*", "*/*", "*/*/*"):
        for path in sorted(root.glob(level)):
            if fnmatch(path.name.lower(), pattern) and not path.name.startswith((".", "~$")):  # ~$: Excel's lock
                return path
    return None
