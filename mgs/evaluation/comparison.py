"""Tested methods on the same folds: each one's figures, and its paired differences to the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from mgs.dimensions import DIMENSIONS
from mgs.errors import UserError
from mgs.evaluation.per_fold import mean_interval, measure_folds, summarise_folds
from mgs.evaluation.tested_runs import Entry, TestedRun

COMPARED = ("srcc", "plcc")
SAME_MOS = 1e-6
FEWEST_FOLDS = 2  # for an interval
USUAL_RATIO = 20 / 70  # test images over train images, if a report does not say
UNDEFINED = dict.fromkeys(("difference", "difference_low", "difference_high", "p"), math.nan)


@dataclass(frozen=True)
class Comparison:
    """Methods that were tested on the same images, under one protocol."""

    entries: list[Entry]  # the first is the baseline
    folds: list[int]  # those that count
    left_out: list[int]  # those that were not tested by all, or repeat another's test images
    results: pd.DataFrame  # see `compare_entries`

    @property
    def baseline(self) -> Entry:
        """What the others are compared with."""
        return self.entries[0]

    @property
    def dimensions(self) -> list[str]:
        """All that any of them scores, in our order."""
        return [d for d in DIMENSIONS if any(d in entry.dimensions for entry in self.entries)]


def compare_entries(entries: Sequence[Entry]) -> Comparison:
    """Figures of methods that were tested on the same images, and their differences to the first.

    `results` has a row per method, dimension and metric of `COMPARED`: method, run, backbone, dimension, metric, value
    (the mean over folds), sd, low and high (its 95 % interval, of one fold over test images), folds; and where the
    first scores the dimension too, difference, difference_low, difference_high, p and verdict. Only folds that every
    run was tested on count, and test sets that repeat count once. Raises `UserError` where there is no such fold.
    """
    runs = [run for entry in entries for run in entry.runs]
    folds = common_folds(runs)
    ratio = test_train_ratio(runs[0])
    measured = [measure_entry(entry, folds) for entry in entries]
    rows = []
    for entry, table in zip(entries, measured, strict=True):
        for dimension in entry.dimensions:
            run = entry.run_for(dimension)
            facts = {"method": entry.name, "run": run.name if run else "", "backbone": entry.backbone}
            counted = counted_folds(table, dimension)
            for metric in COMPARED:
                row = {**facts, "dimension": dimension, "metric": metric, **summarise_metric(counted, metric)}
                if entry is not entries[0] and dimension in entries[0].dimensions:
                    gaps = counted[metric] - counted_folds(measured[0], dimension)[metric]
                    row |= paired_difference(gaps.to_numpy(np.float64), overlap=ratio)
                rows.append({**UNDEFINED, "verdict": "", **row})
    columns = ["method", "run", "backbone", "dimension", "metric", "value", "sd", "low", "high", "folds"]
    results = pd.DataFrame(rows)[[*columns, *UNDEFINED, "verdict"]]
    used = sorted({int(fold) for fold in measured[0].loc[measured[0]["repeats"] == 0, "fold"]})
    tested = {int(fold) for run in runs for fold in run.predictions["fold"]}
    return Comparison(list(entries), used, sorted(tested - set(used)), results)


def measure_entry(entry: Entry, folds: Sequence[int]) -> pd.DataFrame:
    """`measure_folds` of all its runs together, for these folds."""
    return pd.concat(
        [measure_folds(run.predictions[run.predictions["fold"].isin(folds)]) for run in entry.runs], ignore_index=True
    )


def counted_folds(table: pd.DataFrame, dimension: str) -> pd.DataFrame:
    """One dimension's rows by fold, of test sets that repeat only the first."""
    return table[(table["repeats"] == 0) & (table["dimension"] == dimension)].set_index("fold", drop=False)


def summarise_metric(counted: pd.DataFrame, metric: str) -> dict[str, Any]:
    """One dimension's mean over folds with its spread and interval; a single fold's interval is over test images."""
    summary = (counted if len(counted) == 1 else summarise_folds(counted)).iloc[0].to_dict()
    spread = math.nan if len(counted) == 1 else summary[f"{metric}_sd"]
    ends = {"low": summary[f"{metric}_low"], "high": summary[f"{metric}_high"]}
    return {"value": summary[metric], "sd": spread, **ends, "folds": len(counted)}


def paired_difference(differences: np.ndarray, *, overlap: float) -> dict[str, float | str]:
    """Mean difference over folds with its 95 % interval, Wilcoxon's p, and the verdict."""
    low, high = mean_interval(differences, overlap=overlap)
    mean = float(differences.mean())
    p = float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0
    if math.isnan(mean):
        p, verdict = math.nan, "undefined"
    elif len(differences) < FEWEST_FOLDS:
        p, verdict = math.nan, "one fold says nothing about noise"
    else:
        verdict = "noise" if low <= 0 <= high else "higher" if mean > 0 else "lower"
    return {"difference": mean, "difference_low": low, "difference_high": high, "p": p, "verdict": verdict}


def common_folds(runs: Sequence[TestedRun]) -> list[int]:
    """The folds that all runs were tested on; `UserError` if these do not hold the same images and MOS in all runs."""
    common = sorted(set.intersection(*(set(map(int, run.predictions["fold"])) for run in runs)))
    if not common:
        raise UserError(
            f"{', '.join(run.name for run in runs)}: no fold that all were tested on; test them on the same folds"
        )
    for fold in common:
        first: dict[str, tuple[TestedRun, pd.Series]] = {}  # column -> the first run that has it
        for run in runs:
            table = run.predictions[run.predictions["fold"] == fold].sort_values("image", kind="stable")
            for column in ["image", *(str(c) for c in table if str(c).endswith("_mos"))]:
                other, values = first.setdefault(column, (run, table[column]))
                if not hold_the_same(values, table[column]):
                    problem = f"fold {fold} holds other images or MOS than {other.name}'s"
                    raise UserError(f"{run.name}: {problem}; test both again")
    return common


def hold_the_same(one: pd.Series, other: pd.Series) -> bool:
    """Whether two columns of names or MOS are equal, row by row."""
    if one.dtype != np.float64 or other.dtype != np.float64:
        return one.tolist() == other.tolist()
    return len(one) == len(other) and np.allclose(one, other, rtol=0, atol=SAME_MOS, equal_nan=True)


def test_train_ratio(run: TestedRun) -> float:
    """Test images over train images, on average over the run's folds."""
    folds = [f for f in run.record["folds"] if f.get("train_images")]
    return float(np.mean([f["images"] / f["train_images"] for f in folds])) if folds else USUAL_RATIO
