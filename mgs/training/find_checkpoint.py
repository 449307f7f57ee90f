"""Where the checkpoint is that somebody means: of a run, of a fold, the newest of all, or one on the hub."""

from __future__ import annotations

import sys
from pathlib import Path

from tqdm import tqdm

from mgs.config_files import config_of
from mgs.errors import UserError
from mgs.training.checkpoint import CHECKPOINT, FINISHED, read_metadata


def finished_folds(runs: Path) -> list[Path]:
    """The marks of all finished folds under `runs`; a run of several targets holds one run for each."""
    return [mark for depth in ("*", "*/*") for mark in runs.glob(f"{depth}/fold_*/{FINISHED}")]


def newest_checkpoint(runs: Path, *, of_drawings: bool = False) -> Path | None:
    """The checkpoint of the fold that was finished last, of those trained on real images, or on the demo's drawings."""
    finished = sorted(finished_folds(runs), key=lambda mark: mark.stat().st_mtime, reverse=True)
    for file in (mark.with_name(CHECKPOINT) for mark in finished):
        try:
            metadata = read_metadata(file)
        except UserError as error:
            tqdm.write(f"passed over: {error}", file=sys.stderr)
            continue
        config = config_of(metadata["config"])
        drawn = config.data.dataset == "demo"
        if not config.train.epochs:  # never trained
            continue
        if drawn if of_drawings else not (drawn or metadata["backbone"]["name"] == "demo"):
            return file
    return None


def find_checkpoint(path: Path) -> Path:
    """The checkpoint file that a path means: itself, its fold folder, or its run folder's first finished fold."""
    if not path.is_dir():
        return path
    folds = sorted(mark.parent for mark in path.glob(f"fold_*/{FINISHED}"))
    if (path / CHECKPOINT).exists():
        return path / CHECKPOINT
    if runs := sorted({str(mark.parent.parent) for mark in path.glob(f"*/fold_*/{FINISHED}")}):
        raise UserError(f"{path}: holds a run for each of several targets; name one: {', '.join(runs)}")
    if not folds:
        raise UserError(f"{path}: no {CHECKPOINT}, and no finished fold; train first, or name a checkpoint")
    return folds[0] / CHECKPOINT


def fetch_checkpoint(name: str | Path) -> Path:
    """The path, if it exists; else the checkpoint of a Hugging Face hub repository, downloaded. Raises `UserError`."""
    if Path(name).exists():
        return Path(name)
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise UserError(f"{name}: no such folder, and the hub needs: pip install huggingface_hub") from None
    try:
        return Path(hf_hub_download(str(name), CHECKPOINT))
    except Exception as error:  # of the network, the hub and the name's syntax; they have no common base
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{name}: no such folder, and not to be had from the hub: {reason}") from None
