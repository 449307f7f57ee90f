"""Score a shard into a file of its own, which is its receipt; what is interrupted is continued in its middle."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import torch

from mgs.errors import UserError
from mgs.files import flush_to_disk, locked, naming
from mgs.images.cuts import Cuts
from mgs.images.decode import BadImage
from mgs.images.forms import as_prompt
from mgs.images.inputs import load_content, load_or_reason
from mgs.progress_bar import progress
from mgs.scoring.outputs import write_rows
from mgs.scoring.receipts import FAILED, PART, SHARD, Done, ScoreShard, open_partial, read_partial, read_receipt
from mgs.scoring.score import Score, as_row, columns
from mgs.scoring.scorer import Scorer
from mgs.scoring.streaming import Loaded
from mgs.scoring.wording import told_origin
from mgs.sources.find import JOB
from mgs.sources.find_prompt import FINDERS, Finder, fill_prompt
from mgs.sources.item import Item
from mgs.sources.read_ahead import read_ahead

READ_AHEAD = 64  # images whose files may be in memory before they are decoded


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
        if self.scorer is None:
            if not os.path.isdir(self.cwd):
                remedy = "all machines need the command's folder at the same path, on shared storage"
                raise UserError(f"{self.cwd}: no such folder on {platform.node()}; {remedy}")
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
    if not (task.folder / JOB).exists():  # which whoever hands out shards has written
        remedy = "all machines need the output's folder at the same path, on shared storage"
        raise UserError(f"{task.folder}: no such job on {platform.node()}; {remedy}")
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
    ahead = read_ahead(items, READ_AHEAD)
    return scorer.score_inputs(ahead, load, batch_size=options.batch_size, style=options.style)


def load_item(item: Item, cuts: Cuts, find: Finder | None) -> Loaded:
    """An item ready to be scored; its file is read once, for the pixels and for the prompt."""
    try:
        content = item.read()
    except BadImage as error:
        with contextlib.suppress(BadImage):
            item = fill_prompt(item, find, None)
        return Loaded(as_prompt(item.text), None, str(error), item)
    try:
        item = fill_prompt(item, find, content)
    except BadImage as error:  # of what lies beside the image in a store that does not answer
        return Loaded(None, None, str(error), replace(item, data=None))
    picture, remark = load_or_reason(partial(load_content, content, item.label, cuts))
    return Loaded(as_prompt(item.text), picture, remark, replace(item, data=None))  # whose content is not kept


def table_columns(labels: Iterable[str], options: ScoreOptions) -> list[str]:
    """The columns of a job's rows; `prompt_read` is one of them where prompts are looked for."""
    return columns(labels, prompt_read=options.find is not None)


def output_row(item: Item, score: Score, names: Sequence[str]) -> dict[str, Any]:
    """An item's row, by column; the status says where a prompt is from that the user did not give."""
    row = as_row(item.image, item.prompt, told_origin(item, score)) | {"prompt_read": item.text}
    return {name: row[name] for name in names if name in row}
