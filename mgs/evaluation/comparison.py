"""Several tested runs on the same folds: each one's figures, and its paired differences to the first."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from mgs.errors import UserError
from mgs.evaluation.metrics import TITLES
from mgs.evaluation.page import Plot, render_page
from mgs.evaluation.per_fold import dimensions_in, mean_interval, measure_folds, summarise_folds
from mgs.evaluation.plots import draw_differences, png_bytes
from mgs.evaluation.tables import MISSING, Table, figure, mark_best, to_latex, to_markdown
from mgs.files import whole_file, without_nan, write_json
from mgs.safe_text import original_cell

COMPARED = ("srcc", "plcc")
SAME_MOS = 1e-6
FEWEST_FOLDS = 2  # for an interval
USUAL_RATIO = 20 / 70  # test images over train images, if a report does not say
NOTES = (
    "Differences are fold by fold, run minus first. Interval: 95 %, Student's t with Nadeau and Bengio's correction, "
    "since folds share training images; p: Wilcoxon's signed-rank test, two-sided, which fewer than six folds cannot "
    "bring below 0.05.",
    "Noise: the interval holds zero. Of twenty comparisons without any difference, one is expected to miss zero.",
)


@dataclass(frozen=True)
class TestedRun:
    """What a report folder says about a run."""

    name: str
    predictions: pd.DataFrame
    record: dict[str, Any]  # metrics_*.json


def read_tested_run(folder: Path) -> TestedRun:
    """A run's predictions and record, from `<folder>/report/`; `UserError` if it has not been tested."""
    report = folder / "report"
    records = sorted(report.glob("metrics_*.json"))
    if len(records) != 1:
        problem = "no such run" if not folder.is_dir() else f"{len(records)} metrics_*.json in its report folder, not 1"
        raise UserError(f"{folder}: {problem}; test the run with test.py first")
    table = records[0].with_name(records[0].name.replace("metrics_", "predictions_", 1)).with_suffix(".csv")
    try:
        record = json.loads(records[0].read_text(encoding="utf-8"))
        predictions = pd.read_csv(table, dtype={"image": str, "prompt": str}, keep_default_na=False)
        predictions = predictions.assign(**{c: predictions[c].map(original_cell) for c in ("image", "prompt")})
        mos = [column for column in map(str, predictions) if column.endswith("_mos")]
        predictions[mos] = predictions[mos].replace("", np.nan).astype(np.float64)  # blank where an image has none
        record["dataset"], record["protocol"], record["folds"], predictions["fold"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{report}: not what test.py leaves ({error!r}); test the run again") from None
    return TestedRun(folder.name, predictions, record)


def compare_runs(runs: Sequence[TestedRun]) -> tuple[pd.DataFrame, pd.DataFrame, list[int]]:
    """Figures and differences of runs that were tested on the same images, and the folds that count.

    Figures: a row per run and dimension, with the mean and SD of `COMPARED`. Differences to the first run: columns
    run, dimension, metric, difference, low, high, p, verdict. Only folds that every run was tested on count, and test
    sets that repeat count once. Raises `UserError` where the runs have no fold or dimension in common.
    """
    folds = common_folds(runs)
    measured = {run.name: measure_folds(run.predictions[run.predictions["fold"].isin(folds)]) for run in runs}
    counted = {name: table[table["repeats"] == 0].set_index(["dimension", "fold"]) for name, table in measured.items()}
    names = [run.name for run in runs]
    dimensions = [d for d in dimensions_in(runs[0].predictions) if all(d in counted[n].index for n in names)]
    if not dimensions:
        raise UserError(f"{', '.join(names)}: no dimension that all of them score; compare runs on the same dataset")
    figures = pd.concat(
        [summarise_folds(measured[name]).rename_axis("dimension").reset_index().assign(run=name) for name in names]
    )
    ratio = test_train_ratio(runs[0])
    rows = []
    for name in names[1:]:
        for dimension in dimensions:
            for metric in COMPARED:
                one, other = (counted[n].loc[dimension][metric] for n in (names[0], name))
                facts = {"run": name, "dimension": dimension, "metric": metric}
                rows.append({**facts, **paired_difference((other - one).to_numpy(np.float64), overlap=ratio)})
    used = sorted({int(fold) for fold in counted[names[0]].index.get_level_values("fold")})
    return figures[figures["dimension"].isin(dimensions)], pd.DataFrame(rows), used


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
    return {"difference": mean, "low": low, "high": high, "p": p, "verdict": verdict}


def common_folds(runs: Sequence[TestedRun]) -> list[int]:
    """The folds that all runs were tested on; `UserError` if these do not hold the same images and MOS in all runs."""
    first = runs[0]
    for run in runs[1:]:
        for key in ("dataset", "protocol"):
            if run.record[key] != first.record[key]:
                raise UserError(
                    f"{run.name}: {key} {run.record[key]}, {first.name}: {first.record[key]}; only runs on the same "
                    "folds can be compared"
                )
    common = sorted(set.intersection(*(set(run.predictions["fold"]) for run in runs)))
    if not common:
        raise UserError(
            f"{', '.join(run.name for run in runs)}: no fold that all were tested on; test them on the same folds"
        )
    for run in runs[1:]:
        for fold in common:
            ours, theirs = (
                r.predictions[r.predictions["fold"] == fold].sort_values("image", kind="stable") for r in (first, run)
            )
            shared = [c for c in ours if str(c).endswith("_mos") and c in theirs]
            same = ours["image"].tolist() == theirs["image"].tolist()
            if not same or not np.allclose(ours[shared], theirs[shared], rtol=0, atol=SAME_MOS, equal_nan=True):
                raise UserError(
                    f"{run.name}: fold {fold} holds other images or MOS than {first.name}'s; test both again"
                )
    return common


def test_train_ratio(run: TestedRun) -> float:
    """Test images over train images, on average over the run's folds."""
    folds = [f for f in run.record["folds"] if f.get("train_images")]
    return float(np.mean([f["images"] / f["train_images"] for f in folds])) if folds else USUAL_RATIO


def write_comparison(runs: Sequence[TestedRun], folder: Path) -> str:
    """Write the comparison's tables, plot and page into `folder`; returns its tables as text."""
    figures, differences, folds = compare_runs(runs)
    record = runs[0].record
    names = [run.name for run in runs]
    mark = hashlib.sha256("|".join(names).encode()).hexdigest()[:6]  # so each comparison has its own file
    stem = f"comparison_{record['dataset']}_{record['protocol']}_{mark}"
    title = f"{record['dataset']}, protocol {record['protocol']}, folds {', '.join(map(str, folds))}: {len(runs)} runs"
    apart = sorted({int(fold) for run in runs for fold in run.predictions["fold"]} - set(folds))
    left_out = (
        [f"Left out, not tested by all or repeating another: folds {', '.join(map(str, apart))}."] if apart else []
    )
    notes = [*NOTES, *left_out, *carry_notes(runs)]
    tables = [figure_table(figures, title), difference_table(differences, runs[0].name, notes)]
    text = "\n".join(map(to_markdown, tables))
    plot = Plot(
        "differences",
        png_bytes(draw_differences(differences), f"{title}; differences to {runs[0].name}"),
        f"SRCC and PLCC of each run minus those of {runs[0].name}, mean over folds with its 95 % interval",
    )
    contents = {
        ".md": text,
        ".tex": "\n".join(map(to_latex, tables)),
        ".csv": differences.to_csv(index=False),
        ".html": render_page(title, tables, {"Differences": [plot]}, {}, {"Runs": names}),
    }
    for suffix, content in contents.items():
        with whole_file(folder / f"{stem}{suffix}") as path:
            path.write_text(content, encoding="utf-8")
    with whole_file(folder / f"{stem}.png") as path:
        path.write_bytes(plot.png)
    rows = {"runs": figures, "differences": differences}
    write_json(
        folder / f"{stem}.json",
        {"title": title, **{k: [without_nan(row) for row in v.to_dict("records")] for k, v in rows.items()}},
    )
    return text


def carry_notes(runs: Sequence[TestedRun]) -> list[str]:
    """The notes below the runs' own tables, each once; a note that is not about all runs names its runs."""
    about: dict[str, list[str]] = {}
    for run in runs:
        for note in run.record.get("notes", []):
            about.setdefault(note, []).append(run.name)
    return [note if len(names) == len(runs) else f"{', '.join(names)}: {note}" for note, names in about.items()]


def figure_table(figures: pd.DataFrame, title: str) -> Table:
    """All runs, a row each: mean ± SD by dimension, the best marked."""
    dimensions = list(dict.fromkeys(figures["dimension"]))
    columns = [(dimension, metric) for dimension in dimensions for metric in COMPARED]
    rows = []
    for name, part in figures.groupby("run", sort=False):
        by_dimension = part.set_index("dimension").to_dict("index")
        cells = [mean_and_spread(by_dimension[dimension], metric) for dimension, metric in columns]
        rows.append([str(name), *cells])
    header = ["run", *(f"{dimension} {TITLES[metric]}" for dimension, metric in columns)]
    return Table(title, header, rows, mark_best(rows, range(1, len(header))), notes=("mean ± SD over folds",))


def mean_and_spread(row: dict, metric: str) -> str:
    """A mean with its SD, where it has one."""
    spread = row[f"{metric}_sd"]
    return figure(row[metric]) if math.isnan(spread) else f"{figure(row[metric])} ± {figure(spread)}"


def difference_table(differences: pd.DataFrame, first: str, notes: Sequence[str]) -> Table:
    """Every run's differences to the first, a row per dimension and metric."""
    rows = [
        [
            str(row["run"]),
            str(row["dimension"]),
            TITLES[row["metric"]],
            f"{row['difference']:+.4f}" if not math.isnan(row["difference"]) else MISSING,
            f"{row['low']:+.4f} to {row['high']:+.4f}" if not math.isnan(row["low"]) else MISSING,
            figure(row["p"], 3),
            str(row["verdict"]),
        ]
        for row in differences.to_dict("records")
    ]
    header = ["run", "dimension", "metric", "difference", "95 % interval", "p", "verdict"]
    return Table(f"Differences to {first}", header, rows, notes=tuple(notes))
