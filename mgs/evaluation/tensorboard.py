"""A run's test figures and plots for TensorBoard, beside what training recorded there."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from mgs.evaluation.metrics import METRICS


def write_board(folder: Path, settings: Mapping[str, Any], summary: pd.DataFrame, images: Mapping[str, bytes]) -> None:
    """Leave a run's settings, mean test figures and plots for TensorBoard, whose HParams page sorts runs by them."""
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    figures = {f"test/{m}/{d}": float(summary.loc[d, m]) for d in summary.index for m in METRICS}
    kept = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in settings.items()}
    with SummaryWriter(str(folder)) as board:
        for part in hparams(kept, figures):
            board.file_writer.add_summary(part)
        for name, value in figures.items():
            board.add_scalar(name, value)
        for name, png in images.items():
            pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
            board.add_image(f"test/{name}", pixels, dataformats="HWC")
