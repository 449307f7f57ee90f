"""Score a source into one file, or a folder of parts, shard by shard; what is interrupted can be resumed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

import mgs
from mgs.errors import UserError
from mgs.files import locked, remove_unfinished, write_json
from mgs.progress_bar import progress
from mgs.running.choose import run_tasks
from mgs.running.work import Outcome
from mgs.scoring.outputs import SUFFIXES, check_output, write_rows
from mgs.scoring.receipts import Done, ScoreShard, another_job, part_of, read_partial, read_receipt
from mgs.scoring.scorer import Scorer
from mgs.scoring.shards import ScoreOptions, ScoreWork, table_columns
from mgs.sources.find import JOB, PART_NAME, Source
from mgs.sources.places import is_remote

Run = Callable[[ScoreWork, Iterable[ScoreShard]], Iterator[Outcome]]
PARTIAL = ".partial"  # added to an output file's name: the folder of its parts while the job runs


@dataclass(frozen=True)
class Place:
    """Where a job's parts are, and what becomes of them."""

    out: Path
    is_folder: bool

    @classmethod
    def of(cls, out: str) -> Place:
        """A folder where the name ends in a slash, has no suffix, or is one's; otherwise a file. Raises `UserError`."""
        if is_remote(out):
            raise UserError(f"{out}: outputs are files of this machine; name one, and copy it there afterwards")
        path = Path(out) if Path(out).name else Path(out).resolve()  # "." has no name
        is_folder = out.endswith("/") or not path.suffix or (path.is_dir() and path.suffix not in SUFFIXES)
        check_output(path, folder=is_folder)
        return cls(path, is_folder)

    @property
    def finished(self) -> bool:
        """Whether it is a file that is there already, with no job that could be resumed."""
        return self.out.is_file() and not self.parts.exists()

    @property
    def parts(self) -> Path:
        """The folder of the parts."""
        return self.out if self.is_folder else self.out.with_name(self.out.name + PARTIAL)

    @property
    def suffix(self) -> str:
        """Of the parts."""
        return ".parquet" if self.is_folder else ".jsonl"


def run_job(
    source: Source,
    scorer: Scorer,
    work: ScoreWork,
    out: str,
    *,
    resume: bool,
    run: Run | None = None,
) -> Done:
    """Score `source` into `out`, in its order; returns the number of rows and of those that could not be scored.

    `out` is a file, .csv, .jsonl or .parquet, or a folder of Parquet parts. Until the job is done, the rows of a file
    are in a folder beside it; `resume` continues what is there. `run` has other processes score, each of which makes a
    scorer of its own by `work`; without it, `scorer` does. Raises `UserError` if there are rows without `resume`, or of
    another job, and at the end if a shard could not be read.
    """
    place = Place.of(out)
    options = work.options
    names = table_columns(scorer.model.labels, options)
    with locked(place.out.with_name(f".{place.out.name}.lock"), str(place.out)):
        remove_unfinished(place.out.parent, place.out.name)
        job = describe_job(scorer, options, names)
        open_folder(place, job, resume=resume)
        marks, receipts = [], []
        for task in make_tasks(source, place):
            marks.append(task.fingerprint)
            receipts.append(read_receipt(task))
        refuse_other_parts(place, len(receipts))
        write_json(place.parts / JOB, {**job, "shards": len(receipts)})
        left = Tasks(source, place, marks, receipts)
        done = [receipt for receipt in receipts if receipt]
        rows = sum(receipt.rows for receipt in done)
        bar = progress(desc="scoring", unit="image", initial=rows, total=source.count, disable=bool(run))  # it has bars
        begin: Callable[..., Any] = run or run_tasks
        if run is None:
            work = replace(work, scorer=scorer, advance=bar.update)
        failures = []
        try:
            with contextlib.closing(begin(work, left)) as outcomes, bar:
                for outcome in outcomes:
                    if outcome.error:
                        failures.append(f"{outcome.task}: {outcome.error}")
                    else:
                        done.append(outcome.result)
        except KeyboardInterrupt:
            tqdm.write(f"{place.parts}: what was scored is kept; --resume continues from there", file=sys.stderr)
            raise
        if failures:
            for line in failures[:-1]:
                tqdm.write(f"error: {line}", file=sys.stderr)
            remedy = f"the other {len(done)} are in {place.parts}, and --resume continues"
            raise UserError(f"{failures[-1]}; {len(failures)} of {len(receipts)} shards failed; {remedy}")
        parts = [part_of(place.parts, number, place.suffix) for number in range(len(receipts))]
        if missing := [part for part in parts if not part.exists()]:
            remedy = "all machines need the output's folder at the same path, on shared storage"
            raise UserError(f"{missing[0]}: not there, though a worker wrote it; {remedy}")
        if not place.is_folder:
            write_rows((row for part in parts for row in read_partial(part)), place.out, names)
            remove_parts(place.parts)
        return Done(sum(d.rows for d in done), sum(d.failed for d in done))


@dataclass(frozen=True)
class Tasks:
    """The shards that have no receipt; runners show how many there are."""

    source: Source
    place: Place
    marks: Sequence[str]
    receipts: Sequence[Done | None]

    def __len__(self) -> int:
        return sum(receipt is None for receipt in self.receipts)

    def __iter__(self) -> Iterator[ScoreShard]:
        tasks = make_tasks(self.source, self.place, self.marks)
        return (task for task in tasks if self.receipts[task.number] is None)


def remove_parts(folder: Path) -> None:
    """Remove a job's own files, and their folder if nothing else is in it."""
    for path in (*folder.glob("part-*.jsonl"), *folder.glob(".part-*"), folder / JOB):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def make_tasks(source: Source, place: Place, marks: Sequence[str] = ()) -> Iterator[ScoreShard]:
    """The shards to score, numbered; one after the other, since a table's hold its rows.

    `marks` are their fingerprints, if they are known already.
    """
    for number, shard in enumerate(source.shards()):
        mark = marks[number] if marks else shard.fingerprint()
        yield ScoreShard(number, shard, mark, place.parts, place.suffix)


def describe_job(scorer: Scorer, options: ScoreOptions, names: list[str]) -> dict[str, Any]:
    """What a job's rows depend on, besides images and prompts; written beside them."""
    facts = [scorer.source.fingerprint, options.style, options.prompt_from, options.precision]
    return {
        "job": hashlib.sha256(json.dumps(facts).encode()).hexdigest(),
        "scored by": scorer.name,
        "weights": scorer.source.fingerprint,
        "prompt style": options.style,
        "prompts from": options.prompt_from,
        "columns": names,
        "mgs": mgs.__version__,
    }


def open_folder(place: Place, job: dict[str, Any], *, resume: bool) -> None:
    """Make the folder of a job's parts, or check that it is this job's. Raises `UserError`."""
    parts, record = place.parts, place.parts / JOB
    if parts.is_file():
        raise UserError(f"{parts}: a file of an earlier version's job; remove it to start again")
    begun = parts.is_dir() and any(PART_NAME.fullmatch(path.name) for path in parts.iterdir())
    if begun and not resume:
        problem = "holds scores" if place.is_folder else "left by an interrupted job"
        raise UserError(f"{parts}: {problem}; continue it with --resume, or remove it")
    if begun:
        try:
            before = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = {}
        if before.get("job") != job["job"]:
            raise another_job(parts)
    parts.mkdir(parents=True, exist_ok=True)
    write_json(record, job)


def refuse_other_parts(place: Place, count: int) -> None:
    """Raise a `UserError` for a part beyond the last shard."""
    numbers = [int(found[1]) for path in place.parts.iterdir() if (found := PART_NAME.fullmatch(path.name))]
    if max(numbers, default=-1) >= count:
        raise another_job(place.parts)
