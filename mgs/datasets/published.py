"""Folds that others have published: checked, and put where training looks for them."""

from __future__ import annotations

import shutil
from pathlib import Path

from mgs.config import DataConfig
from mgs.datasets.facts import DATASETS, facts_of
from mgs.datasets.folds import find_folds, fold_folders
from mgs.datasets.make_folds import FOLDS, SUBSETS
from mgs.datasets.tables import README
from mgs.datasets.write_folds import contents, whole_folder
from mgs.errors import UserError

TABLES = tuple(f"{subset}.csv" for subset in SUBSETS)


def place_published(dataset: str, root: Path, folder: Path) -> Path:
    """Link `<root>/splits/published` to a folder of ten published folds, or copy them where links cannot be made.

    Every fold must have its three tables, with the dataset's columns, and every image must lie under `root`. Returns
    the new place. Raises `UserError` naming what is missing.
    """
    if not facts_of(dataset).published:
        known = ", ".join(name for name, row in DATASETS.items() if row.published)
        raise UserError(f"--published {folder}: nobody has published folds of {dataset}; there are some for {known}")
    refuse_incomplete(folder)
    find_folds(DataConfig(dataset=dataset, root=str(root), splits=str(folder)), range(1, FOLDS + 1))
    place = root / "splits" / "published"
    if place.is_symlink() or place.exists():
        if place.exists() and (place.samefile(folder) or tables_of(place) == tables_of(folder)):
            return place
        raise UserError(f"{place}: is there already, with other folds; remove it first")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            place.symlink_to(folder.resolve(), target_is_directory=True)
        except OSError:  # Windows and some network disks have no links
            copy_tables(folder, place)
    except OSError as error:
        raise UserError(f"{error.filename or place}: cannot be written ({error.strerror}); check the folder") from None
    return place


def refuse_incomplete(folder: Path) -> None:
    """Raise a `UserError` where a fold or one of its tables is missing."""
    there = fold_folders(folder)
    missing = [f"fold {number}" for number in range(1, FOLDS + 1) if number not in there]
    missing += [
        f"{number}/{name}" for number in sorted(there) for name in TABLES if not (there[number] / name).is_file()
    ]
    if missing:
        remedy = f"name the folder that holds the folds 1 to {FOLDS}, each with {', '.join(TABLES)}"
        raise UserError(f"{folder}: no {', '.join(missing)}; {remedy}; {README}")


def tables_of(folder: Path) -> dict[str, bytes]:
    """The tables of the folds in a folder, by their paths in it."""
    return {name: data for name, data in contents(folder).items() if Path(name).name in TABLES}


def copy_tables(folder: Path, place: Path) -> None:
    """Copy the folds' tables, all or none."""
    with whole_folder(place) as unfinished:
        for number, source in fold_folders(folder).items():
            (unfinished / str(number)).mkdir()
            for name in TABLES:
                shutil.copyfile(source / name, unfinished / str(number) / name)
