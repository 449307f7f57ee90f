"""DuckDB as this package uses it: files that are read in blocks, no other access, a progress bar, errors for people."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb

from mgs.errors import UserError
from mgs.progress_bar import progress

ERROR_KIND = re.compile(r"^[A-Z][\w ]*? Error: ")  # at the start of DuckDB's messages


def identifier(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def exact_pattern(path: Path) -> str:
    """The pattern that only this path fits: DuckDB takes every path for a pattern."""
    return re.sub(r"[*?\[]", r"[\g<0>]", str(path))


@contextlib.contextmanager
def connect(files: Sequence[Path], folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory that can open these files only, and whose settings cannot be changed.

    What exceeds the memory goes into a temporary folder in `folder`.
    """
    with tempfile.TemporaryDirectory(prefix=".filtering.", dir=folder) as spill, duckdb.connect() as connection:
        for name, value in {
            "temp_directory": spill,
            "enable_progress_bar": True,  # so that it knows how far it is
            "enable_progress_bar_print": False,
            "progress_bar_time": 0,
            "autoload_known_extensions": False,
            "allowed_paths": [text for path in files for text in {str(path), exact_pattern(path)}],
            "enable_external_access": False,
            "lock_configuration": True,
        }.items():
            connection.execute(f"SET {name} = ?", [value])
        yield connection


def query(connection: duckdb.DuckDBPyConnection, sql: str, what: str) -> list[Any]:
    """All rows of a query's answer, with a progress bar while it runs; Ctrl-C ends it."""
    with ThreadPoolExecutor(1) as thread, progress(total=100, desc=what, unit="%", delay=2, leave=False) as bar:
        answer = thread.submit(lambda: connection.execute(sql).fetchall())
        while True:
            try:
                return answer.result(timeout=0.2)
            except TimeoutError:
                bar.update(max(round(connection.query_progress()) - bar.n, 0))
            except KeyboardInterrupt:
                connection.interrupt()
                raise


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn DuckDB's errors into a `UserError` about `what`, or about the file that they name."""
    try:
        yield
    except duckdb.InternalException:
        raise  # a bug
    except duckdb.InterruptException:
        raise KeyboardInterrupt from None
    except duckdb.Error as error:
        text = str(error)
        if isinstance(error, duckdb.OutOfMemoryException):
            remedy = "close what else uses the memory, and free space on the output's disk"
            raise UserError(f"{what}: {ERROR_KIND.sub('', text)}; {remedy}") from None
        file = re.search(r"^\s*file = (.+)$", text, re.MULTILINE)
        reason = re.split(r"\n\n|\nPossible|\nTry |\nLINE ", text)[0]
        raise UserError(f"{file[1] if file else what}: {ERROR_KIND.sub('', reason)}") from None
