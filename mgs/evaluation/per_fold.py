"""From per-image predictions to figures per fold, and from folds to a mean, its spread and its interval."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import stats

from mgs.dimensions import DIMENSIONS
from mgs.evaluation.metrics import METRICS, RANGES, measure, plcc_interval, srcc_interval

CONFIDENCE = 0.95


def dimensions_in(predictions: pd.DataFrame) -> list[str]:
    """The dimensions that a predictions table has MOS for."""
    return [dimension for dimension in DIMENSIONS if f"{dimension}_mos" in predictions]


def with_mos(predictions: pd.DataFrame, dimension: str) -> pd.DataFrame:
    """The images that have MOS for a dimension; in a table of the user's own some may lack it."""
    return predictions[predictions[f"{dimension}_mos"].notna()]


def measure_folds(predictions: pd.DataFrame) -> pd.DataFrame:
    """Metrics per fold and dimension: columns fold, dimension, images, repeats, `METRICS`, and 95 % intervals.

    `predictions` has the columns of predictions.csv: fold, image, prompt, <dimension>_mos, <dimension>_pred. `images`
    counts those that have MOS for the dimension. `repeats` is the earlier fold that tests the same images, 0 where none
    does. The intervals, <metric>_low and <metric>_high for srcc and plcc, are over other draws of as many images.
    """
    repeats = find_repeats(predictions)
    rows = []
    for fold in sorted(map(int, predictions["fold"].unique())):
        for dimension in dimensions_in(predictions):
            part = with_mos(predictions[predictions["fold"] == fold], dimension)
            figures = measure(part[f"{dimension}_pred"], part[f"{dimension}_mos"])
            for metric, interval in (("srcc", srcc_interval), ("plcc", plcc_interval)):
                low, high = interval(figures[metric], len(part))
                figures |= {f"{metric}_low": low, f"{metric}_high": high}
            facts = {"fold": fold, "dimension": dimension, "images": len(part), "repeats": repeats.get(fold, 0)}
            rows.append({**facts, **figures})
    return pd.DataFrame(rows)


def find_repeats(predictions: pd.DataFrame) -> dict[int, int]:
    """Fold -> the first fold that tests exactly the same images, for the folds that repeat one."""
    first: dict[tuple[str, ...], int] = {}
    repeats = {}
    for fold in sorted(map(int, predictions["fold"].unique())):
        tested = tuple(sorted(predictions.loc[predictions["fold"] == fold, "image"]))
        if first.setdefault(tested, fold) != fold:
            repeats[fold] = first[tested]
    return repeats


def summarise_folds(per_fold: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation (<metric>_sd) and 95 % interval of the mean (_low, _high) over folds, by dimension.

    Test sets that repeat count once. If one fold's figure is undefined, so is the mean: a fold without a figure
    must never improve it. Spread and interval (Student's t) need two folds.
    """
    counted = per_fold[per_fold["repeats"] == 0]
    rows: dict[str, dict[str, float]] = {}
    for dimension, part in counted.groupby("dimension", sort=False):
        rows[str(dimension)] = {"folds": len(part)}
        for metric in METRICS:
            values = part[metric].to_numpy(np.float64)
            low, high = np.clip(mean_interval(values), *RANGES[metric]).tolist()
            spread = float(values.std(ddof=1)) if len(values) > 1 else math.nan
            ends = {f"{metric}_low": low, f"{metric}_high": high}
            rows[str(dimension)] |= {metric: float(values.mean()), f"{metric}_sd": spread, **ends}
    return pd.DataFrame.from_dict(rows, orient="index")


def mean_interval(values: np.ndarray, *, overlap: float = 0.0) -> tuple[float, float]:
    """95 % interval of the mean by Student's t; NaN for fewer than two values.

    `overlap` is added to 1/n in the mean's variance: the test set's size over the train set's, for differences between
    folds that share most of their training images (Nadeau and Bengio, 2003), 0 for independent values.
    """
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    error = float(values.std(ddof=1)) * math.sqrt(1 / n + overlap)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    return float(values.mean()) - reach, float(values.mean()) + reach


def selection_value(predictions: pd.DataFrame) -> float:
    """What the best epoch is chosen by: the mean of all SRCC and PLCC that are defined; NaN where none is."""
    return float(measure_folds(predictions)[["srcc", "plcc"]].melt()["value"].mean())
