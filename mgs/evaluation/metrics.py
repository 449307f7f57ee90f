"""Agreement between predictions and MOS: pure functions of two arrays."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

Vector = NDArray[np.float64]
FIT_PARAMETERS = 4
FEW, STARTS = 100, 3  # images, and starting points of the fit
ROUNDING = 1e-12  # a correlation this near to 0 or 1 counts as 0 or 1
Z95 = 1.959963984540054  # a standard normal variable lies within this in 95 of 100 cases


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


def plcc_fitted(prediction: ArrayLike, mos: ArrayLike) -> float:
    """Pearson's correlation after `fit_logistic`, -1 to 1; negative where the fitted curve falls.

    For a reversed predictor the curve falls, and the correlation with its fitted values would be positive. So the
    result takes the sign of the curve's slope. NaN for constant sides and for fewer than five images.
    """
    curve = fit_logistic(prediction, mos)
    if curve is None:
        return math.nan
    fitted = curve(np.asarray(prediction, np.float64))
    return plcc(fitted, mos) * (1.0 if curve.rises else -1.0)


def rmse_fitted(prediction: ArrayLike, mos: ArrayLike) -> float:
    """RMSE after `fit_logistic`, in MOS points; NaN where `plcc_fitted` is. It does not show a reversed predictor."""
    curve = fit_logistic(prediction, mos)
    return math.nan if curve is None else rmse(curve(np.asarray(prediction, np.float64)), mos)


def pair_accuracy(prediction: ArrayLike, mos: ArrayLike) -> float:
    """Share of all pairs with different MOS that the predictions put in the same order, 0 to 1, 0.5 by chance.

    A pair with equal predictions counts as half right. NaN where either side is constant.
    """
    x, y = pair(prediction, mos)
    tau = krcc(x, y)
    # tau-b is (right - wrong) / sqrt(pairs with different predictions * pairs with different MOS)
    return math.nan if math.isnan(tau) else (1 + tau * math.sqrt(untied_pairs(x) / untied_pairs(y))) / 2


METRICS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "srcc": srcc,
    "plcc": plcc,
    "krcc": krcc,
    "rmse": rmse,
    "plcc_fitted": plcc_fitted,
    "rmse_fitted": rmse_fitted,
    "pair_accuracy": pair_accuracy,
}
RANGES = {  # lowest and highest possible value
    **dict.fromkeys(("srcc", "plcc", "krcc", "plcc_fitted"), (-1.0, 1.0)),
    **dict.fromkeys(("rmse", "rmse_fitted"), (0.0, math.inf)),
    "pair_accuracy": (0.0, 1.0),
}
TITLES = {  # their headings in tables
    "srcc": "SRCC",
    "plcc": "PLCC",
    "krcc": "KRCC",
    "rmse": "RMSE",
    "plcc_fitted": "PLCC fit",
    "rmse_fitted": "RMSE fit",
    "pair_accuracy": "pairs",
}


def measure(prediction: ArrayLike, mos: ArrayLike) -> dict[str, float]:
    """All of `METRICS` on one set of images."""
    return {name: metric(prediction, mos) for name, metric in METRICS.items()}


@dataclass(frozen=True)
class Logistic:
    """VQEG's monotone logistic, (b1 - b2) / (1 + exp(-(x - b3) / b4)) + b2, b4 > 0 (final report, 2000)."""

    b1: float  # MOS that it tends to for high predictions
    b2: float  # and for low ones
    b3: float  # the prediction half-way
    b4: float  # width of the slope

    def __call__(self, x: Vector) -> Vector:
        return (self.b1 - self.b2) * special.expit((x - self.b3) / self.b4) + self.b2

    @property
    def rises(self) -> bool:
        """Whether higher predictions go with higher MOS."""
        return self.b1 >= self.b2


def fit_logistic(prediction: ArrayLike, mos: ArrayLike) -> Logistic | None:
    """The logistic with the least squared error; None for constant sides and for fewer than five images.

    It falls if the raw correlation is negative. In standard deviations of the predictions, the midpoint stays within 4
    of their mean, and the width from 0.02 to 100: points on a straight line would need an infinite one.
    """
    return fit_vectors(*(side.tobytes() for side in pair(prediction, mos)))


@functools.lru_cache(maxsize=256)  # two metrics and a plot ask for the same fit, which takes a tenth of a second
def fit_vectors(prediction: bytes, mos: bytes) -> Logistic | None:
    """`fit_logistic` of two float64 vectors as bytes."""
    x, y = np.frombuffer(prediction), np.frombuffer(mos)
    if len(x) <= FIT_PARAMETERS or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    centre, scale = x.mean(), x.std()
    z = (x - centre) / scale
    direction = -1.0 if np.corrcoef(z, y)[0, 1] < -ROUNDING else 1.0

    def ends(at: tuple[float, float]) -> tuple[float, float]:  # b1 and b2 are a regression, given the other two
        step = special.expit((z - at[0]) / np.exp(at[1]))
        centred = step - step.mean()
        power = (centred**2).sum()
        slope = (centred * y).sum() / power if power > 0 else 0.0
        slope = direction * max(direction * slope, 0.0)
        bottom = y.mean() - slope * step.mean()
        return bottom + slope, bottom

    def errors(at: tuple[float, float]) -> Vector:
        return Logistic(*ends(at), at[0], np.exp(at[1]))(z) - y

    def error(at: tuple[float, float]) -> float:
        return float((errors(at) ** 2).sum())

    middles = np.linspace(-3, 3, 13)
    if len(z) <= FEW:  # a steep step may fall between any two predictions
        ordered = np.unique(z)
        middles = np.concatenate([middles, np.clip((ordered[1:] + ordered[:-1]) / 2, -3.99, 3.99)])
    starts = sorted(itertools.product(middles, np.log(np.geomspace(0.021, 99, 13))), key=error)[:STARTS]
    bounds = ([-4.0, math.log(0.02)], [4.0, math.log(100.0)])
    precise = {"xtol": 1e-10, "ftol": 1e-12, "gtol": 1e-12, "max_nfev": 100}
    with np.errstate(invalid="ignore"):  # at a bound, scipy's step may be 0 / 0; such a fit is left out
        fits = [optimize.least_squares(errors, start, bounds=bounds, **precise) for start in starts]
    middle, width = min([*starts, *(fit.x for fit in fits if np.isfinite(fit.x).all())], key=error)
    b1, b2 = ends((middle, width))
    return Logistic(float(b1), float(b2), float(middle * scale + centre), float(np.exp(width) * scale))


def srcc_interval(coefficient: float, count: int) -> tuple[float, float]:
    """95 % interval of an SRCC over `count` images, by Fisher's z with Bonett and Wright's variance (2000).

    It shows how much the figure may change for another draw of as many images. NaN for fewer than four, and for a
    perfect figure, which says nothing about its spread.
    """
    return fisher_interval(coefficient, count, 1 + coefficient**2 / 2)


def plcc_interval(coefficient: float, count: int) -> tuple[float, float]:
    """95 % interval of a PLCC over `count` images, by Fisher's z; NaN for fewer than four."""
    return fisher_interval(coefficient, count, 1.0)


def fisher_interval(coefficient: float, count: int, variance: float) -> tuple[float, float]:
    """The interval whose ends are symmetric about artanh(coefficient), whose variance is `variance` / (count - 3)."""
    if count <= 3 or math.isnan(coefficient) or abs(coefficient) > 1 - ROUNDING:
        return math.nan, math.nan
    reach = Z95 * math.sqrt(variance / (count - 3))
    centre = np.arctanh(coefficient)
    return float(np.tanh(centre - reach)), float(np.tanh(centre + reach))


def untied_pairs(values: Vector) -> int:
    """How many pairs of entries differ."""
    counts = np.unique(values, return_counts=True)[1]
    return (len(values) ** 2 - int((counts**2).sum())) // 2


def pair(prediction: ArrayLike, mos: ArrayLike) -> tuple[Vector, Vector]:
    """Both sides as float64 vectors of one length; a ValueError where they are not, or hold anything but numbers."""
    x, y = np.asarray(prediction, np.float64), np.asarray(mos, np.float64)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise ValueError(f"predictions {x.shape} and MOS {y.shape} must be two vectors of one length, not empty")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("predictions and MOS must be finite numbers")
    return x, y


def correlate(correlation: Callable[..., tuple[float, float]], prediction: ArrayLike, mos: ArrayLike) -> float:
    """A scipy correlation's coefficient, or NaN, without a warning, where it is undefined."""
    x, y = pair(prediction, mos)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(correlation(x, y)[0])
