"""What training records while it runs: metrics.jsonl, which reports read, and TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from mgs.errors import UserError
from mgs.evaluation.metrics import METRICS
from mgs.evaluation.per_fold import dimensions_in, measure_folds
from mgs.evaluation.plots import draw_scatter, draw_views
from mgs.files import naming, whole_file, without_nan

METRICS_FILE = "metrics.jsonl"


class TrainingLog:
    """One fold's record, in its folder, continued after the epochs in `lines`; a context manager."""

    def __init__(self, folder: Path, lines: Sequence[Mapping[str, Any]] = ()) -> None:
        self.folder, self.lines = folder, list(lines)
        # TensorBoard drops what an interrupted attempt recorded after those epochs
        self.board = SummaryWriter(str(folder), purge_step=len(lines) + 1)

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with naming(self.folder):
            self.board.close()

    def add_epoch(self, epoch: int, loss: float, lr: float, predictions: pd.DataFrame) -> dict[str, Any]:
        """Record an epoch, and return its line of metrics.jsonl, where an undefined figure is None.

        `loss` is the mean per image, in squared MOS points; `lr` is the towers' learning rate. `predictions` is on val
        and has the columns that `measure_folds` needs. Raises `OSError`, naming folder or file, if it cannot write.
        """
        figures = figures_on(predictions)
        line = {"epoch": epoch, "loss": loss, "lr": lr, "val": figures}
        self.lines.append(line)
        with whole_file(self.folder / METRICS_FILE) as path:
            path.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
        with naming(self.folder):
            self.add_to_board(epoch, loss, lr, predictions, figures)
        return line

    def add_to_board(
        self, epoch: int, loss: float, lr: float, predictions: pd.DataFrame, figures: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Show an epoch in TensorBoard."""
        self.board.add_scalar("train/loss", loss, epoch)
        self.board.add_scalar("train/learning_rate", lr, epoch)
        for dimension in dimensions_in(predictions):
            for name in ("srcc", "plcc"):
                value = figures[dimension][name]
                self.board.add_scalar(f"val/{name}/{dimension}", math.nan if value is None else value, epoch)
            self.board.add_figure(f"val/scatter/{dimension}", draw_scatter(predictions, dimension), epoch)
        self.board.flush()

    def add_views(self, views: Tensor, row: pd.Series, epoch: int) -> None:
        """Show one validation image as the model saw it, with its scores: `views` is (V, 3, S, S), 0-1."""
        with naming(self.folder):
            self.board.add_figure("val/views", draw_views(views, row), epoch)


def figures_on(predictions: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Each dimension's metrics, None where one is undefined; `predictions` has what `measure_folds` needs."""
    return {
        str(row["dimension"]): without_nan({name: float(row[name]) for name in METRICS})
        for row in measure_folds(predictions).to_dict("records")
    }


def read_curves(folder: Path, fold: int) -> pd.DataFrame:
    """A fold's training, from its log: columns fold, epoch, loss, dimension and srcc, NaN where undefined."""
    path = folder / METRICS_FILE
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows = [
            (fold, int(line["epoch"]), float(line["loss"]), dimension, figures["srcc"])
            for line in lines
            for dimension, figures in line["val"].items()
        ]
    except FileNotFoundError:
        rows = []  # a checkpoint may have been copied without it
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a record of training ({error!r}); remove it to go without its curves") from None
    table = pd.DataFrame(rows, columns=["fold", "epoch", "loss", "dimension", "srcc"])
    return table.astype({"srcc": np.float64})
