"""From per-image predictions to figures per fold, and from folds to a mean and its spread."""

from __future__ import annotations

import pandas as pd

from mgs.config import DIMENSIONS
from mgs.evaluation.metrics import METRICS, measure


def dimensions_in(predictions: pd.DataFrame) -> list[str]:
    """The dimensions that a predictions table has MOS for."""
    return [dimension for dimension in DIMENSIONS if f"{dimension}_mos" in predictions]


def measure_folds(predictions: pd.DataFrame) -> pd.DataFrame:
    """Metrics per fold and dimension: columns fold, dimension, images, srcc, plcc, krcc, rmse.

    `predictions` has the columns of predictions.csv: fold, image, prompt, <dimension>_mos, <dimension>_pred.
    """
    rows = [
        {"fold": fold, "dimension": d, "images": len(part), **measure(part[f"{d}_pred"], part[f"{d}_mos"])}
        for fold, part in predictions.groupby("fold")
        for d in dimensions_in(predictions)
    ]
    return pd.DataFrame(rows)


def summarise_folds(per_fold: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over folds (ddof 1; NaN for one fold): a row per dimension, two columns a metric."""
    figures = per_fold.groupby("dimension", sort=False)[list(METRICS)]
    return pd.concat([figures.agg(mean), figures.agg(spread).add_suffix("_sd")], axis=1)


def mean(values: pd.Series) -> float:
    """The mean; undefined where one value is, so that a fold without a figure never makes a better one."""
    return float(values.mean(skipna=False))


def spread(values: pd.Series) -> float:
    """The standard deviation, ddof 1; undefined where one value is."""
    return float(values.std(ddof=1, skipna=False))


def selection_value(predictions: pd.DataFrame) -> float:
    """What the best epoch is chosen by: the mean of all SRCC and PLCC that are defined; NaN where none is."""
    return float(measure_folds(predictions)[["srcc", "plcc"]].stack().mean())
