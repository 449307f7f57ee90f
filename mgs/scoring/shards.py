"""Score a shard into a file of its own, which is its receipt; what is interrupted is continued in its middle."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from mgs.errors import UserError
from mgs.files import flush_to_disk, locked, naming
from mgs.images.cuts import Cuts
from mgs.images.decode import BadImage
from mgs.images.inputs import as_prompt, load_content, load_or_reason
from mgs.progress_bar import progress
from mgs.scoring.outputs import write_rows
from mgs.scoring.score import ERROR, Score, as_row, columns
from mgs.scoring.scorer import Scorer
from mgs.scoring.streaming import Loaded
from mgs.scoring.wording import told_origin
from mgs.sources.find_prompt import FINDERS, Finder, fill_prompt
from mgs.sources.item import Item, Shard

PART = "part-{:05d}"
SHARD, FAILED = "mgs.shard", "mgs.failed"  # what a part says of itself: whose receipt it is, and how many rows failed


@dataclass(frozen=True)
class ScoreOptions:
    """How images are scored and what rows hold; equal for all shards of a job."""

    prompt_from: str | None  # a key of `FINDERS`; None where all prompts are given
    style: str  # of prompts
    batch_size: int | None
    precision: str  # of all numbers; it decides nothing here, but a job keeps to one

    @property
    def find(self) -> Finder | None:
        """What finds prompts that are not given."""
        return FINDERS[self.prompt_from] if self.prompt_from else None


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


@dataclass(frozen=True)
class ScoreWork:
    """What all shards of a job have in common, for processes that score them."""

    make: Callable[[str], Scorer]  # from a device's name
    options: ScoreOptions
    cwd: str  # which paths begin at; a cluster's processes have another one
    sharing: int = 0  # processes that share this machine's cores
    scorer: Scorer | None = None  # where this process itself scores
    advance: Callable[[int], Any] | None = None  # is told of each row there; other processes have a bar for each shard

    def open(self, device: str) -> Callable[[ScoreShard], Done]:
        """What scores a shard, with the model loaded."""
        if self.scorer is None and os.path.isdir(self.cwd):
            os.chdir(self.cwd)
        if self.sharing:
            torch.set_num_threads(max(1, torch.get_num_threads() // self.sharing))
        scorer = self.scorer or self.make(device)
        return partial(score_shard, scorer=scorer, options=self.options, advance=self.advance)


def score_shard(
    task: ScoreShard, *, scorer: Scorer, options: ScoreOptions, advance: Callable[[int], Any] | None = None
) -> Done:
    """Score a shard into its part, from where an earlier attempt stopped. Raises `UserError` for a bad source."""
    names = table_columns(scorer.model.labels, options)
    with locked(task.folder / f".{PART.format(task.number)}.lock", str(task.part), wait=True):
        if done := read_receipt(task):
            return done  # of another process that was thought dead
        head = {SHARD: task.fingerprint}
        rows, failed = open_partial(task.partial, head)
        if advance:
            advance(rows)
        left = islice(task.shard.items(), rows, None)
        scores = score_items(scorer, left, options)
        about = {"initial": rows, "total": task.shard.count, "leave": False, "disable": bool(advance)}
        bar = progress(scores, desc=str(task), unit="image", **about)
        with naming(task.partial), task.partial.open("a", encoding="utf-8") as stream:
            for item, score in bar:
                rows, failed = rows + 1, failed + score.failed
                stream.write(json.dumps(output_row(item, score, names)) + "\n")
                stream.flush()
                if advance:
                    advance(1)
        if task.suffix == ".parquet":
            write_rows(read_partial(task.partial), task.part, names, {**head, FAILED: str(failed)})
            task.partial.unlink()
        else:
            flush_to_disk(task.partial)
            task.partial.replace(task.part)
        return Done(rows, failed)


def score_items(scorer: Scorer, items: Iterable[Item], options: ScoreOptions) -> Iterator[tuple[Item, Score]]:
    """Each item, with the prompt that was found for it, and its score; in order."""
    load = partial(load_item, find=options.find)
    return scorer.score_inputs(iter(items), load, batch_size=options.batch_size, style=options.style)


def load_item(item: Item, cuts: Cuts, find: Finder | None) -> Loaded:
    """An item ready to be scored; its file is read once, for the pixels and for the prompt."""
    try:
        content = item.read()
    except BadImage as error:
        item = fill_prompt(item, find, None)
        return Loaded(as_prompt(item.text), None, str(error), item)
    item = fill_prompt(item, find, content)
    picture, remark = load_or_reason(partial(load_content, content, item.label, cuts))
    return Loaded(as_prompt(item.text), picture, remark, replace(item, data=None))  # whose content is not kept


def part_of(folder: Path, number: int, suffix: str) -> Path:
    """The file of a shard's rows."""
    return folder / f"{PART.format(number)}{suffix}"


def table_columns(labels: Iterable[str], options: ScoreOptions) -> list[str]:
    """The columns of a job's rows; `prompt_read` is one of them where prompts are looked for."""
    return columns(labels, prompt_read=options.find is not None)


def output_row(item: Item, score: Score, names: Sequence[str]) -> dict[str, Any]:
    """An item's row, by column; the status says where a prompt is from that the user did not give."""
    row = as_row(item.image, item.prompt, told_origin(item, score)) | {"prompt_read": item.text}
    return {name: row[name] for name in names if name in row}


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
