"""Agreement between predictions and MOS: pure functions of two arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


def srcc(prediction: ArrayLike, mos: ArrayLike) -> float:
    """Spearman's rank correlation, -1 to 1, ties at their mean rank; NaN where either side is constant."""
    return correlate(stats.spearmanr, prediction, mos)


def plcc(prediction: ArrayLike, mos: ArrayLike) -> float:
    """Pearson's linear correlation of the raw scores, -1 to 1; NaN where either side is constant."""
    return correlate(stats.pearsonr, prediction, mos)


def krcc(prediction: ArrayLike, mos: ArrayLike) -> float:
    """Kendall's rank correlation (tau-b, which corrects for ties), -1 to 1; NaN where either side is constant."""
    return correlate(stats.kendalltau, prediction, mos)


def rmse(prediction: ArrayLike, mos: ArrayLike) -> float:
    """Root of the mean squared error of the raw scores, in MOS points, 0 and up."""
    x, y = pair(prediction, mos)
    return float(np.sqrt(np.mean((x - y) ** 2)))


METRICS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {"srcc": srcc, "plcc": plcc, "krcc": krcc, "rmse": rmse}


def measure(prediction: ArrayLike, mos: ArrayLike) -> dict[str, float]:
    """All of `METRICS` on one set of images."""
    return {name: metric(prediction, mos) for name, metric in METRICS.items()}


def pair(prediction: ArrayLike, mos: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both sides as float64 vectors of one length; a ValueError where they are not, or hold anything but numbers."""
    x, y = np.asarray(prediction, np.float64), np.asarray(mos, np.float64)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise ValueError(f"predictions {x.shape} and MOS {y.shape} must be two vectors of one length, not empty")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("predictions and MOS must be finite numbers")
    return x, y


def correlate(correlation: Callable[..., tuple[float, float]], prediction: ArrayLike, mos: ArrayLike) -> float:
    """A scipy correlation's coefficient, with its undefined cases stated as NaN instead of warned about."""
    x, y = pair(prediction, mos)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(correlation(x, y)[0])
