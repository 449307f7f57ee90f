"""Folds on disk: finding and reading them, or drawing them from a user's table."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args, get_type_hints

from tqdm import tqdm

from mgs.config import DataConfig
from mgs.datasets.facts import facts_of
from mgs.datasets.make_folds import SUBSETS, make_folds
from mgs.datasets.read_table import read_table
from mgs.datasets.samples import OWN, Sample, dimensions_of
from mgs.datasets.tables import README
from mgs.errors import UserError
from mgs.safe_text import printable

PROTOCOLS: tuple[str, ...] = get_args(get_type_hints(DataConfig)["protocol"])
MOST_NAMED = 5  # bad images that an error names itself
Loader = Callable[[Iterable[Path]], Mapping[Path, str]]  # reads pictures; returns those that fail, each with its reason


@dataclass(frozen=True)
class Fold:
    """One division of a dataset; `sha256` is over its content and the same on every machine, in any row order."""

    number: int
    protocol: str  # published, prompt-disjoint, random-image, or own
    train: list[Sample]
    val: list[Sample]
    test: list[Sample]
    sha256: str


def find_folds(data: DataConfig, requested: Sequence[int] = ()) -> list[Fold]:
    """The requested folds, or all there are, read from `data.splits`, or drawn from `data.table` if given alone.

    The protocol is what the folder's protocol.json says, else `data.protocol`. A table with a column `split` is one
    fold, of the protocol "own"; from any other, folds are drawn, prompt-disjoint unless random-image is asked for or
    there are no prompts.
    Raises `UserError` as `read_table` does, and for a fold that is not there, an empty subset, subsets with different
    dimensions, or a folder made from another dataset.
    """
    if makes_folds(data):
        place = Path(str(data.table))
        protocol, drawn = draw_folds(place, data)
        return [make_fold(n, protocol, drawn[n], place) for n in choose_numbers(requested, list(drawn), place)]
    folder = splits_folder(data)
    places = fold_folders(folder)
    protocol = read_protocol(folder, data)
    return [
        make_fold(n, protocol, {s: read_table(places[n] / f"{s}.csv", data) for s in SUBSETS}, places[n])
        for n in choose_numbers(requested, sorted(places), folder)
    ]


def choose_numbers(requested: Sequence[int], there: Sequence[int], place: Path) -> Sequence[int]:
    """The requested numbers, or all there are if none is requested; one that is not there is a `UserError`."""
    if absent := [number for number in requested if number not in there]:
        raise UserError(f"folds={absent[0]}: {place} has folds {', '.join(map(str, there))}; choose from these")
    return requested or there


def draw_folds(table: Path, data: DataConfig) -> tuple[str, dict[int, dict[str, list[Sample]]]]:
    """The protocol, and the subsets of each fold by its number: the table's own division, or ten that are drawn."""
    samples = read_table(table, data)
    if samples[0].subset:
        if data.protocol != "published":
            remedy = "leave data.protocol out to use it, or rename the column to have folds drawn"
            raise UserError(f"{table}: its column split says what is train, val and test; {remedy}")
        return OWN, {1: {subset: [s for s in samples if s.subset == subset] for subset in SUBSETS}}
    protocol = choose_protocol(samples, data, table)
    try:
        folds = make_folds(samples, protocol, data.fold_seed)
    except UserError as error:
        raise UserError(f"{table}: {error}") from None
    return protocol, {
        number: {subset: [samples[i] for i in rows[subset]] for subset in SUBSETS}
        for number, rows in enumerate(folds, 1)
    }


def choose_protocol(samples: Sequence[Sample], data: DataConfig, table: Path) -> str:
    """The protocol of folds that are drawn: prompt-disjoint by default, random-image where no sample has a prompt."""
    prompts = any(sample.prompt.strip() for sample in samples)
    if data.protocol == "prompt-disjoint" and not prompts:
        raise UserError(f"{table}: there are no prompts to keep apart; leave data.protocol out, or set random-image")
    if data.protocol == "published":
        return "prompt-disjoint" if prompts else "random-image"
    return data.protocol


def make_fold(number: int, protocol: str, subsets: Mapping[str, list[Sample]], place: Path) -> Fold:
    """A fold of these subsets, each of which has samples, and MOS on the same dimensions; else a `UserError`."""
    if empty := [subset for subset in SUBSETS if not subsets[subset]]:
        raise UserError(f"{place}: fold {number} has an empty {empty[0]} set; give it rows, or make the folds again")
    found = {subset: dimensions_of(subsets[subset]) for subset in SUBSETS}
    for dimension in dimensions_of([sample for subset in SUBSETS for sample in subsets[subset]]):
        if without := [subset for subset in SUBSETS if dimension not in found[subset]]:
            remedy = "give train, val and test the same MOS columns, with MOS in some rows of each"
            raise UserError(f"{place}: fold {number} has no {dimension} in its {without[0]} set; {remedy}")
    return Fold(number, protocol, **subsets, sha256=content_sha256(subsets))


def read_pictures(
    folds: Sequence[Fold], data: DataConfig, *, load: Loader, subsets: Sequence[str] = SUBSETS
) -> tuple[list[Fold], list[str]]:
    """The folds after `load` has read every picture of `subsets`; and why some pictures were left out.

    Pictures that cannot be read raise one `UserError` naming them all, or are left out with `data.on_bad_image: skip`.
    """
    bad = load(sample.image for fold in folds for subset in subsets for sample in getattr(fold, subset))
    if bad and data.on_bad_image == "error":
        reasons, more = list(bad.values()), ""
        if len(bad) > MOST_NAMED:  # too many for one line, and all of them are wanted
            tqdm.write("\n".join(map(printable, reasons)), file=sys.stderr)
            reasons, more = reasons[:MOST_NAMED], f" and {len(bad) - MOST_NAMED} more, all named above"
        remedy = "fix them, or leave them out with data.on_bad_image=skip"
        raise UserError(f"{len(bad)} bad images: {'; '.join(reasons)}{more}; {remedy}")
    return [leave_out(fold, set(bad)) for fold in folds] if bad else list(folds), list(bad.values())


def leave_out(fold: Fold, bad: set[Path]) -> Fold:
    """The fold, under its own hash, without the samples whose pictures are `bad`; `UserError` if a subset empties."""
    subsets = {s: [sample for sample in getattr(fold, s) if sample.image not in bad] for s in SUBSETS}
    if empty := [subset for subset in SUBSETS if not subsets[subset]]:
        raise UserError(f"fold {fold.number}: no readable image in its {empty[0]} set; fix the files")
    return Fold(fold.number, fold.protocol, **subsets, sha256=fold.sha256)


def makes_folds(data: DataConfig) -> bool:
    """Whether the folds are drawn from the user's table; a table that could not be used is a `UserError`."""
    own = facts_of(data.dataset).own
    if data.table and not own:
        raise UserError(f"data.table={data.table}: for data.dataset=custom; {data.dataset} is read from data.splits")
    if own and not (data.table or data.splits or data.root):
        raise UserError(
            f"data.table: dataset {data.dataset} needs a CSV, or a folder of splits in data.splits; {README}"
        )
    return bool(data.table) and not data.splits


def splits_folder(data: DataConfig) -> Path:
    """The folder of the fold folders; if there are none, a `UserError` that says what there is instead."""
    facts = facts_of(data.dataset)
    root = Path(data.root or facts.root)
    folder = Path(data.splits) if data.splits else root / "splits" / data.protocol
    if fold_folders(folder):
        return folder
    if facts.link and not root.is_dir():
        raise UserError(f"{root}: no {data.dataset} there; download it from {facts.link}; {README}")
    others = [] if data.splits else [name for name in PROTOCOLS if fold_folders(root / "splits" / name)]
    if others:
        remedy = f"there is {' and '.join(others)}: set data.protocol={others[0]}"
    elif facts.own:
        remedy = "set data.table to one CSV, or put the folds there as <fold>/train.csv, val.csv and test.csv"
    elif data.protocol == "published" and not facts.published and not data.splits:
        command = facts.make_folds.format(dataset=data.dataset, protocol="prompt-disjoint")
        remedy = f"run: {command}, and set data.protocol=prompt-disjoint"
    elif data.splits or data.protocol == "published":
        remedy = f"run: python -m mgs prepare {data.dataset} --published FOLDER, or set data.protocol=prompt-disjoint"
    else:
        remedy = f"run: {facts.make_folds.format(dataset=data.dataset, protocol=data.protocol)}"
    raise UserError(f"{folder}: no folds of {data.dataset} there; {remedy}; {README}")


def fold_folders(folder: Path) -> dict[int, Path]:
    """Fold number -> its folder; empty where there are none."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return {int(entry.name): entry for entry in entries if entry.name.isdecimal() and entry.is_dir()}


def read_protocol(folder: Path, data: DataConfig) -> str:
    """The protocol that the folder's protocol.json names, `data.protocol` where there is no such file."""
    path = folder / "protocol.json"
    if not path.exists():
        return data.protocol
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        dataset, protocol = str(facts.get("dataset", data.dataset)), str(facts["protocol"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: not a readable record of a protocol ({error!r}); make the folds again") from None
    if protocol not in (*PROTOCOLS, OWN):
        raise UserError(f"{path}: protocol is {protocol!r}; write one of {', '.join((*PROTOCOLS, OWN))}")
    if dataset != data.dataset and not facts_of(data.dataset).own:
        raise UserError(
            f"{path}: these are folds of {dataset}, not of {data.dataset}; correct data.splits or data.dataset"
        )
    return protocol


def content_sha256(subsets: Mapping[str, Sequence[Sample]]) -> str:
    """SHA-256 over subset, name, prompt, style and MOS of every sample, in hex; their order does not count."""
    rows = [
        json.dumps([subset, sample.name, sample.prompt, sample.prompt_style, sorted(sample.targets.items())])
        for subset, samples in subsets.items()
        for sample in samples
    ]
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()
