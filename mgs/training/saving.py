"""Save a fold while it trains, so that its process may die at any moment: progress, the best epoch, the finish."""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from mgs.config import Config
from mgs.datasets.folds import Fold
from mgs.errors import UserError
from mgs.files import folder_bytes, free_disk, whole_file, write_json
from mgs.interrupts import Interrupted
from mgs.machine import environment
from mgs.methods.method import Method
from mgs.safe_text import safe_table
from mgs.training.checkpoint import (
    CHECKPOINT,
    FINISHED,
    checkpoint_tensors,
    copy_for_checkpoint,
    fold_folder,
    write_checkpoint,
)
from mgs.training.log import figures_on
from mgs.training.progress import PROGRESS, Setting, copy_progress, resume, write_progress
from mgs.training.trainer import Trainer

GB = 1e9
SECONDS = "seconds.json"  # what each epoch took; apart from metrics.jsonl, whose bytes do not depend on the clock


class Writer:
    """Writes files in a thread, in order, while training continues; a context manager, which waits for the last one.

    If a write fails, the next `submit` or `wait`, or leaving, raises its error. No write after it is begun.
    """

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(max_workers=1)
        self.pending: deque[Future] = deque()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.thread.shutdown(wait=True)
        if kind is None:
            self.wait()

    def submit(self, write: Callable[..., None], *args: Any) -> None:
        """Begin `write(*args)` once those before are done; at most two of them wait, since each holds a copy."""
        before = self.pending[-1] if self.pending else None

        def job() -> None:
            if before:
                before.result()
            write(*args)

        while len(self.pending) > 1:
            self.pending.popleft().result()
        self.pending.append(self.thread.submit(job))

    def wait(self) -> None:
        """Until all is written."""
        while self.pending:
            self.pending.popleft().result()


class FoldSaver:
    """Keeps one fold's training in its folder; a context manager, which waits for what is being written.

    Creating one puts the trainer where an interrupted attempt stopped; on a CPU, to the bit.
    """

    def __init__(self, folder: Path, setting: Setting, trainer: Trainer) -> None:
        self.folder, self.setting, self.trainer = folder, setting, trainer
        self.history, changes = resume(folder / PROGRESS, setting, trainer)
        self.writer = Writer()
        self.saved = self.began = time.monotonic()
        if self.history.lines or trainer.counts.steps:
            tqdm.write(f"{folder}: resumes from {self.place}")
        for change in changes:
            tqdm.write(f"{folder}: {change} since it was interrupted, so figures may differ in their last digits")

    @property
    def place(self) -> str:
        """How far the fold has come, in words."""
        return f"epoch {self.trainer.counts.epoch}, after step {self.trainer.counts.steps}"

    def __enter__(self) -> FoldSaver:
        self.writer.__enter__()
        if self.trainer.counts.steps == 0 and 0 < self.history.best_epoch == self.trainer.counts.epoch - 1:
            self.keep_best()  # the attempt may have died between last.pt, whose weights these are, and the checkpoint
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        without = " without overwrite=true" if self.setting.config.overwrite else ""
        remedy = f"the same command{without} resumes it"
        try:
            if isinstance(error, (Interrupted, BrokenPipeError)):  # both come between two steps, the latter of printing
                self.keep()  # fails where the last step was the tenth that failed
                self.writer.wait()
            if isinstance(error, Interrupted):
                place = f"fold {self.setting.fold.number}, {self.place}, is kept in {self.folder / PROGRESS}"
                error.args = (f"interrupted; {place}; {remedy}",)
        finally:
            self.writer.__exit__(kind)  # nothing is being written once the fold is left
        if isinstance(error, Exception) and (self.folder / PROGRESS).exists():
            with contextlib.suppress(OSError):  # whoever read our output may have gone
                tqdm.write(f"{self.folder / PROGRESS}: holds what was trained; {remedy}")

    def tick(self) -> None:
        """Keep progress if `train.save_minutes` have gone by; for the trainer to call after each step."""
        if time.monotonic() - self.saved >= 60 * self.setting.config.train.save_minutes:
            self.keep()

    def keep(self) -> None:
        """Begin to write all that the fold needs to resume here."""
        self.count_time()
        self.writer.submit(
            write_progress, self.folder / PROGRESS, copy_progress(self.setting, self.trainer, self.history)
        )
        self.saved = time.monotonic()

    def count_time(self) -> None:
        """Add the time since the last call to the epoch's; work that an interruption loses counts once."""
        now = time.monotonic()
        self.history.running += now - self.began
        self.began = now

    def keep_best(self) -> None:
        """Begin to write the weights as they are now as the fold's checkpoint."""
        epoch = self.history.best_epoch
        facts = facts_of_training(
            self.setting, epoch, self.history.lines[epoch - 1]["val"], skipped=self.trainer.counts.skipped
        )
        copies = copy_for_checkpoint(self.trainer.model, self.setting.config, facts)
        self.writer.submit(write_checkpoint, self.folder / CHECKPOINT, *copies)

    def end_epoch(self, line: dict, value: float, predictions: pd.DataFrame) -> None:
        """Record an epoch's figures, `value` deciding whether it is the best so far, and keep it."""
        better = self.history.add(line, value, predictions)
        self.count_time()
        self.history.seconds.append(self.history.running)
        self.history.running = 0.0
        self.trainer.next_epoch()
        self.keep()  # before the checkpoint: last.pt can restore the checkpoint, but not the reverse
        if better:
            self.keep_best()

    def finish(self) -> None:
        """Mark the fold as finished, once all is written, with the best epoch's predictions on val."""
        self.writer.wait()
        if len(self.history.seconds) == len(self.history.lines):  # else an older version trained the first epochs
            write_json(self.folder / SECONDS, self.history.seconds)
        write_finished(self.folder, pd.DataFrame(self.history.best_predictions))
        (self.folder / PROGRESS).unlink()


def keep_untrained(folder: Path, setting: Setting, model: Method, predictions: pd.DataFrame) -> None:
    """Keep a method that nothing was trained of, as if after epoch 0, with its predictions on val."""
    facts = facts_of_training(setting, 0, figures_on(predictions), skipped=0)
    write_checkpoint(folder / CHECKPOINT, *copy_for_checkpoint(model, setting.config, facts))
    write_finished(folder, predictions)


def facts_of_training(setting: Setting, epoch: int, val: Mapping[str, Any], *, skipped: int) -> dict[str, Any]:
    """What a checkpoint says of how it came about."""
    return {
        "dataset": setting.config.data.dataset,
        "protocol": setting.fold.protocol,
        "fold": setting.fold.number,
        "fold_sha256": setting.fold.sha256,
        "epoch": epoch,
        "val": val,
        "skipped_steps": skipped,
        "environment": environment(setting.device),
    }


def write_finished(folder: Path, predictions: pd.DataFrame) -> None:
    """Mark a fold as finished, by its predictions on val."""
    with whole_file(folder / FINISHED) as path:
        safe_table(predictions).to_csv(path, index=False)


def read_seconds(folder: Path) -> float | None:
    """How many seconds a fold trained, val included; None where nothing valid says so, as in older runs."""
    try:
        return float(sum(json.loads((folder / SECONDS).read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError):
        return None


def announce_disk(config: Config, model: Method, folds: Sequence[Fold], at_once: int = 1) -> str:
    """How much disk these folds will take, in a line; `UserError` where there is less.

    Each fold leaves a checkpoint. A fold in training also has `last.pt`, and a second one while that is replaced;
    `at_once` folds train side by side.
    """
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    kept = sum(tensor.nbytes for tensor in checkpoint_tensors(model).values())
    last = 3 * trained  # weights, and AdamW's two moments
    needed = len(folds) * kept + min(at_once, len(folds)) * (2 * last + kept)
    free = free_disk(config.run_folder)
    free += sum(folder_bytes(fold_folder(config.run_folder, fold.number)) for fold in folds)  # which is overwritten
    text = f"disk: {needed / GB:.2f} GB at most ({kept / GB:.2f} GB a fold stay), {free / GB:.1f} GB free"
    if needed > free:
        raise UserError(f"{config.run_folder}: {text}; make room")
    return text
