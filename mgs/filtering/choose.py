"""Keep the best rows of tables of scores, by a condition, by a share or number of the best, or both."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
from tqdm import tqdm

from mgs.dimensions import DIMENSIONS
from mgs.errors import UserError
from mgs.files import whole_file
from mgs.filtering.conditions import check_expression
from mgs.filtering.database import connect, explained, identifier, literal, query
from mgs.filtering.score_files import ROW, TABLE, open_scores
from mgs.progress_bar import progress
from mgs.scoring.outputs import write_text
from mgs.scoring.score import ERROR

BIN = 0.01  # the width of a histogram's finest bins
FARTHEST = 100  # scores beyond it, on a scale of 0-5, are counted with those at it
FETCHED = 10_000  # rows at once
MOST_DECIMALS = 9  # of a share
VALUE, CHOSEN = '"mgs value"', '"mgs chosen"'
FAILED = f"coalesce(starts_with(status, {literal(ERROR)}), false)"
CONDITION = re.compile("BOOLEAN$")  # DuckDB's names of types
NUMBER = re.compile(r"(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL.*)$")


@dataclass(frozen=True)
class Choice:
    """Which rows to keep: SQL over the columns, and how many of the best; None where there is no such limit."""

    keep: str | None = None  # a condition
    top: Fraction | int | None = None  # a share or a number of the rows that fulfil it, the best by `by`
    per: str | None = None  # the column within whose groups the best are chosen
    by: str | None = None  # an expression; by default overall, else the mean of the dimensions that are scored


@dataclass(frozen=True)
class Spread:
    """A dimension's scores in a table: how many, their mean, and how many are in each bin of width `BIN`."""

    count: int
    mean: float | None
    bins: dict[int, int]  # by lower edge, in units of BIN


@dataclass(frozen=True)
class Filtered:
    """What was read and what was kept."""

    read: int
    failed: int  # rows with an error, never kept
    passed: int  # rows without an error that fulfil the condition
    without_value: int  # of these, rows with nothing to order them by, never kept
    kept: int
    by: str | None  # what ordered them
    before: dict[str, Spread]
    after: dict[str, Spread]
    remarks: list[str]


def parse_top(text: str) -> Fraction | int:
    """`--top` as an exact share, such as 0.3, or as a number of rows, such as 100. Raises `UserError`."""
    if re.fullmatch(r"[0-9]{1,18}", text) and int(text) > 0:
        return int(text)
    with contextlib.suppress(InvalidOperation):
        share = Decimal(text)
        if share.is_finite() and 0 < share < 1 and round(share, MOST_DECIMALS) == share:
            return Fraction(share)
    raise UserError(f"--top {text}: is neither a share between 0 and 1, such as 0.3, nor a number, such as 100")


def same(name: str, other: str | None) -> bool:
    """Whether two names are one in SQL."""
    return other is not None and name.casefold() == other.casefold()


@contextlib.contextmanager
def open_tables(files: Sequence[Path], out: Path) -> Iterator[Tables]:
    """Tables of scores, to choose rows from and to write these into `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with connect(files, out.parent) as connection:
        with explained(", ".join(map(str, files))):
            columns = open_scores(connection, files)
        yield Tables(connection, columns, out)


class Tables:
    """The rows of all tables, of which `choose` chooses some, `chosen_images` names them, and `write` writes them."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, columns: list[str], out: Path) -> None:
        self.connection, self.columns, self.out = connection, columns, out
        self.scores: list[str] = [name for name in DIMENSIONS if name in columns]

    def choose(self, choice: Choice) -> Filtered:
        """Choose rows. Raises `UserError` for an expression or a column that cannot be used."""
        used = self.check(choice)
        asked = (("--keep", choice.keep), ("--by", choice.by))
        choice = replace(choice, per=next((name for name in self.columns if same(name, choice.per)), None))
        with explained(str(self.out)):
            failures = f"count(*) FILTER (WHERE {FAILED})"
            (read, failed), before = self.describe(["count(*)", failures], TABLE, "reading")
            by = (choice.by or self.default_order(before)) if choice.top else None
            with explained(" ".join(f"{option} {text}" for option, text in asked if text)):
                self.rank(choice, by)
            counted = ["count(*)", f"count({VALUE})"]
            (passed, ordered), _ = self.describe(counted, "passed", "counting")
            (kept,), after = self.describe(["count(*)"], f"(FROM passed WHERE {CHOSEN})", "counting")
        empty = [name for name in self.scores if name in used and not before[name].count]
        remarks = [f"no image has a score for {name}, which --keep or --by reads" for name in empty]
        return Filtered(read, failed, passed, passed - ordered if choice.top else 0, kept, by, before, after, remarks)

    def check(self, choice: Choice) -> set[str]:
        """The columns that a choice's expressions read. Raises `UserError` for what cannot be used."""
        found = set()
        for option, text, kind, wanted in (
            ("--keep", choice.keep, CONDITION, "a condition, such as quality > 3.5"),
            ("--by", choice.by, NUMBER, "a number, such as quality + 2 * correspondence"),
        ):
            if text is not None:
                found |= check_expression(self.connection, text, self.columns, option)
                with explained(f"{option} {text}"):
                    described = self.connection.execute(f"DESCRIBE SELECT ({text}\n) FROM {TABLE}").fetchall()
                if not kind.match(given := described[0][1]):
                    raise UserError(f"{option} {text}: gives {given}; write {wanted}")
        if choice.per is not None and not any(same(name, choice.per) for name in self.columns):
            raise UserError(f"--per {choice.per}: no such column; there are {', '.join(self.columns)}")
        return found

    def default_order(self, before: dict[str, Spread]) -> str:
        """What orders the rows where the user names nothing, as SQL."""
        scored = [name for name in self.scores if before[name].count]
        if not scored:
            raise UserError("--top: no image has a score; choose with --keep, or name what is best with --by")
        if "overall" in scored:
            return "overall"
        return scored[0] if len(scored) == 1 else f"({' + '.join(scored)}) / {len(scored)}"

    def rank(self, choice: Choice, by: str | None) -> None:
        """Make the table `passed`: of the rows that fulfil the condition the scores, the value, whether it is kept."""
        group = f"PARTITION BY {identifier(choice.per)}" if choice.per else ""
        place = f"CAST(row_number() OVER ({group} ORDER BY {VALUE} DESC NULLS LAST, {ROW}) AS HUGEINT)"
        if isinstance(choice.top, Fraction):  # a share is rounded up: exactly, thus in whole numbers
            size, share = f"count({VALUE}) OVER ({group})", choice.top
            best = f"{place} * {share.denominator} < {size} * {share.numerator} + {share.denominator}"
        else:
            best = f"{place} <= {choice.top}"
        fulfils = f"NOT {FAILED}" + (f" AND ({choice.keep}\n)" if choice.keep else "")
        value = f"CAST(({by}\n) AS DOUBLE)" if by else "CAST(NULL AS DOUBLE)"
        scores = [ROW, *map(identifier, self.scores)]
        needed = [*scores, *([identifier(choice.per)] if choice.per and choice.per not in self.scores else [])]
        chosen = f"{VALUE} IS NOT NULL AND {best}" if choice.top else "true"
        query(
            self.connection,
            f"CREATE TEMP TABLE passed AS SELECT {', '.join(scores)}, {VALUE}, {chosen} AS {CHOSEN} FROM (SELECT "
            f"{', '.join(needed)}, CASE WHEN isnan({value}) THEN NULL ELSE {value} END AS {VALUE} "
            f"FROM {TABLE} WHERE {fulfils})",
            "choosing",
        )

    def describe(self, counts: Sequence[str], rows: str, what: str) -> tuple[list[int], dict[str, Spread]]:
        """Counts of rows, and the spread of each dimension in them."""
        wanted = list(counts)
        for name in map(identifier, self.scores):
            near = f"least(greatest({name}, -{FARTHEST}), {FARTHEST})"
            # 2.3 / 0.01 is 229.99999999999997: a score within 1e-8 of an edge is at it
            bins = f"histogram(CAST(floor(round({near} / {BIN}, 6)) AS INTEGER)) FILTER (WHERE {name} IS NOT NULL)"
            wanted += [f"count({name})", f"avg({name})", bins]
        (found,) = query(self.connection, f"SELECT {', '.join(wanted)} FROM {rows}", what)
        figures = iter(found[len(counts) :])
        spreads = {name: Spread(next(figures), next(figures), next(figures) or {}) for name in self.scores}
        return list(found[: len(counts)]), spreads

    def select(self, names: Sequence[str]) -> str:
        """The query for these columns of the chosen rows, in the order of the tables."""
        chosen = f"SEMI JOIN (SELECT {ROW} FROM passed WHERE {CHOSEN}) USING ({ROW}) ORDER BY {ROW}"
        return f"SELECT {', '.join(map(identifier, names))} FROM {TABLE} {chosen}"

    def chosen_images(self) -> list[str]:
        """The names of the chosen images, in the order of the tables."""
        with explained(str(self.out)):
            return [name or "" for (name,) in query(self.connection, self.select(["image"]), "listing")]

    def write(self, count: int) -> None:
        """Write the chosen rows, of which there are `count`, into the output, wholly or not at all."""
        write: Callable[[Path, tqdm], None] = self.write_parquet if self.out.suffix == ".parquet" else self.write_text
        with (
            whole_file(self.out) as temporary,
            progress(total=count, desc="writing", unit="row", delay=2, leave=False) as bar,
            explained(str(self.out)),
        ):
            write(temporary, bar)

    def write_parquet(self, path: Path, bar: tqdm) -> None:
        """Write the chosen rows as Parquet, block by block."""
        import pyarrow.parquet as pq  # an extra: only Parquet needs it

        blocks = self.connection.sql(self.select(self.columns)).to_arrow_reader(10 * FETCHED)
        with pq.ParquetWriter(path, blocks.schema) as file:
            for block in blocks:
                file.write_batch(block)
                bar.update(block.num_rows)

    def write_text(self, path: Path, bar: tqdm) -> None:
        """Write the chosen rows as CSV or JSON lines, as `mgs score` does."""

        def rows() -> Iterator[dict[str, Any]]:
            self.connection.execute(self.select(self.columns))
            while block := self.connection.fetchmany(FETCHED):
                yield from (dict(zip(self.columns, row, strict=True)) for row in block)
                bar.update(len(block))

        write_text(rows(), path, self.out.suffix, self.columns)
