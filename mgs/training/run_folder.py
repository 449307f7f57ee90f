"""A run's folder: opened, recorded and locked, so that several processes may train its folds side by side."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from mgs.config import NOT_THE_RUN, Config, differing_keys
from mgs.config_files import load_config, refuse_other_run, save_config
from mgs.datasets.folds import Fold
from mgs.errors import UserError
from mgs.files import is_held, locked, remove_unfinished, write_json
from mgs.machine import choose_device, environment
from mgs.training.checkpoint import FINISHED, fold_folder
from mgs.training.progress import PROGRESS

RECORD, ENVIRONMENT = "config.yaml", "environment.json"


def open_run_folder(config: Config, folders: Sequence[Path]) -> None:
    """Make runs/<name> with its record; `overwrite` removes the folds in `folders`, or all if the config changed.

    Folds that other processes are training count as begun.
    """
    run = config.run_folder
    record = run / RECORD
    begun = [path for name in (FINISHED, PROGRESS) for path in run.glob(f"fold_*/{name}")]
    own = [lock_of(folder) for folder in folders]
    held = [lock for lock in run.glob(".fold_*.lock") if lock not in own and is_held(lock)]
    if record.exists() and (begun or held) and not config.overwrite:
        refuse_other_run(config, record)  # checked again: another process may have trained here since the check
    if record.exists() and config.overwrite:
        changed = differing_keys(load_config(record), config, ignored=NOT_THE_RUN)
        if changed and held:
            problem = f"other processes train folds of it with another {', '.join(changed)}"
            raise UserError(f"{run}: {problem}; wait for them to end, or say name=ANOTHER")
        reports = [folder / "report" for folder in (run, config.whole_run) if folder]
        for old in [*(run.glob("fold_*") if changed else folders), *reports]:
            shutil.rmtree(old, ignore_errors=True)
    remove_unfinished(run)
    save_config(dataclasses.replace(config, overwrite=False, folds=[]), record)
    write_json(run / ENVIRONMENT, environment(choose_device(config.device)))


def refuse_nested(run: Path) -> None:
    """Raise a `UserError` where one run would lie in another: runs of several targets hold one run for each."""
    records = (run.parent / RECORD, *sorted(run.glob(f"*/{RECORD}")))
    if holders := [path.parent for path in records if path.with_name(ENVIRONMENT).exists() and path.exists()]:
        raise UserError(f"{run}: {holders[0]} holds another run; say name=ANOTHER")


def lock_fold(folder: Path) -> AbstractContextManager[None]:
    """Hold a fold's lock; `UserError` where another process trains the fold."""
    return locked(lock_of(folder), str(folder))


def lock_of(folder: Path) -> Path:
    """A fold's lock; beside its folder, which may be removed."""
    return folder.with_name(f".{folder.name}.lock")


def refuse_unfinished(config: Config, folds: Sequence[Fold]) -> None:
    """Raise a `UserError` where a run does not exist, is of another config, or lacks one of these folds."""
    record = config.run_folder / RECORD
    if not record.exists():
        raise UserError(f"{config.run_folder}: no such run; train it first with the same words after train.py")
    refuse_other_run(config, record)
    folders = {fold.number: fold_folder(config.run_folder, fold.number) for fold in folds}
    if unfinished := [number for number, folder in folders.items() if not (folder / FINISHED).exists()]:
        raise UserError(
            f"{config.run_folder}: fold {', '.join(map(str, unfinished))} not trained to the end; run train.py with "
            "the same words, or name the folds to test, as in folds=[1,2]"
        )
