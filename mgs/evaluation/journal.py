"""What training writes as it goes: metrics.jsonl, and TensorBoard's curves and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType

import pandas as pd
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from mgs.evaluation.folds import dimensions_in, measure_folds
from mgs.evaluation.metrics import METRICS
from mgs.evaluation.plots import draw_scatter, draw_views
from mgs.evaluation.report import without_nan


class Journal:
    """One fold's record, in its folder; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.lines = (folder / "metrics.jsonl").open("w", encoding="utf-8")
        self.board = SummaryWriter(str(folder))

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lines.close()
        self.board.close()

    def add_epoch(self, epoch: int, loss: float, lr: float, predictions: pd.DataFrame) -> dict[str, dict[str, float]]:
        """Record an epoch's training loss, learning rate and validation figures; returns the figures by dimension."""
        figures = {
            str(row["dimension"]): {name: float(row[name]) for name in METRICS}
            for row in measure_folds(predictions).to_dict("records")
        }
        line = {"epoch": epoch, "loss": loss, "lr": lr, "val": {d: without_nan(one) for d, one in figures.items()}}
        self.lines.write(json.dumps(line) + "\n")
        self.lines.flush()
        self.board.add_scalar("train/loss", loss, epoch)
        self.board.add_scalar("train/learning_rate", lr, epoch)
        for dimension in dimensions_in(predictions):
            for name in ("srcc", "plcc"):
                self.board.add_scalar(f"val/{name}/{dimension}", figures[dimension][name], epoch)
            self.board.add_figure(f"val/scatter/{dimension}", draw_scatter(predictions, dimension), epoch)
        self.board.flush()
        return figures

    def add_views(self, views: Tensor, row: pd.Series, epoch: int) -> None:
        """Show one validation image as the model saw it, with its scores: `views` is (V, 3, S, S), 0-1."""
        self.board.add_figure("val/views", draw_views(views, row), epoch)
