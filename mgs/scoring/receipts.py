"""A shard's part: the file of its rows, which is its receipt, and what there is of it before it is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgs.errors import UserError
from mgs.scoring.score import ERROR
from mgs.sources.item import Shard

PART = "part-{:05d}"
SHARD, FAILED = "mgs.shard", "mgs.failed"  # what a part says of itself: whose receipt it is, and how many rows failed


@dataclass(frozen=True)
class ScoreShard:
    """A shard to score, and where its rows go: a task that any process can do, and do again."""

    number: int
    shard: Shard
    fingerprint: str
    folder: Path
    suffix: str  # of the part: .parquet, or .jsonl where parts become one file

    def __str__(self) -> str:
        return f"shard {self.number}"

    @property
    def part(self) -> Path:
        """The file of its rows, when they are all there."""
        return part_of(self.folder, self.number, self.suffix)

    @property
    def partial(self) -> Path:
        """The file of its rows while they are scored: JSON lines, the first of which says whose they are."""
        return self.folder / f".{PART.format(self.number)}.partial"


@dataclass(frozen=True)
class Done:
    """How many rows a shard has, and how many of them could not be scored."""

    rows: int
    failed: int


def part_of(folder: Path, number: int, suffix: str) -> Path:
    """The file of a shard's rows."""
    return folder / f"{PART.format(number)}{suffix}"


def read_receipt(task: ScoreShard) -> Done | None:
    """What a finished part says; None where there is none.

    Raises `UserError` where it, or what there is of it, is of other images, so that nothing is scored in vain.
    """
    if not task.part.exists():
        if task.partial.exists():
            read_head(task.partial, {SHARD: task.fingerprint})
        return None
    task.partial.unlink(missing_ok=True)  # of a process that was killed between the two
    if task.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            facts = pq.read_metadata(task.part)
        except (OSError, pa.ArrowException) as error:
            raise damaged_part(task.part) from error
        told = {key.decode(): value.decode() for key, value in (facts.metadata or {}).items()}
        if told.get(SHARD) == task.fingerprint:
            return Done(facts.num_rows, int(told[FAILED]))
    else:
        head, done = count_rows(task.part)
        if head.get(SHARD) == task.fingerprint:
            return done
    raise another_job(task.part)


def another_job(path: Path) -> UserError:
    """The error for rows that belong to something else."""
    what = "other images, prompts, checkpoint or precision"
    return UserError(f"{path}: of another job ({what}); remove it to start again")


def damaged_part(path: Path) -> UserError:
    """The error for rows that cannot be read."""
    return UserError(f"{path}: damaged; remove it to have its images scored again")


def open_partial(partial: Path, head: dict[str, str]) -> tuple[int, int]:
    """Begin a shard's file, or remove the incomplete last line of an old one; returns rows and failures so far."""
    data = partial.read_bytes() if partial.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if not whole:
        partial.write_text(json.dumps(head) + "\n", encoding="utf-8")
        return 0, 0
    read_head(partial, head)
    with partial.open("r+b") as stream:
        stream.truncate(len(whole))
    done = count_rows(partial)[1]
    return done.rows, done.failed


def read_head(partial: Path, head: dict[str, str]) -> None:
    """Check that an unfinished file, if it has a whole line, is this shard's. Raises `UserError`."""
    with partial.open("rb") as stream:
        line = stream.readline()
    if line.endswith(b"\n") and line.rstrip(b"\n") != json.dumps(head).encode():
        raise another_job(partial)


def count_rows(part: Path) -> tuple[dict[str, str], Done]:
    """What a file of JSON lines says of itself, and how many rows it has."""
    try:
        with part.open(encoding="utf-8") as stream:
            head = json.loads(next(stream))
            failures = [str(json.loads(line)["status"]).startswith(ERROR) for line in stream]
    except (StopIteration, ValueError, KeyError, TypeError):
        raise damaged_part(part) from None
    return head, Done(len(failures), sum(failures))


def read_partial(part: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of JSON lines."""
    with part.open(encoding="utf-8") as stream:
        next(stream)
        for line in stream:
            yield json.loads(line)
