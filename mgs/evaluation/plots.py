"""Figures, drawn off screen; none of them needs a display. Four inches wide, so that a phone shows them life-size."""

from __future__ import annotations

import io
import math
import re
import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mgs.dimensions import DIMENSIONS, MOS_MAX
from mgs.evaluation.metrics import TITLES, fit_logistic, plcc, srcc
from mgs.evaluation.per_fold import dimensions_in, with_mos
from mgs.safe_text import plain

# Okabe and Ito's palette, told apart by the colour-blind; the markers tell them apart without colour.
INK, POINTS, CURVE = "#333333", "#0072b2", "#d55e00"
LOOKS = {  # dimension -> colour and marker
    "quality": ("#0072b2", "o"),
    "authenticity": ("#d55e00", "s"),
    "correspondence": ("#009e73", "^"),
    "overall": ("#cc79a7", "D"),
}
WIDTH, DPI = 4.0, 180  # inches, and dots on one
BINS = 10  # of equally many images, in the calibration plot
LENGTH_BINS = 6  # of prompts
SPANS = [0.05, 0.25, 0.5, 0.75, 0.95]  # whisker, box, median, box, whisker


def draw_scatter(predictions: pd.DataFrame, dimension: str) -> Figure:
    """Prediction against MOS for one dimension, with the line where they agree and the fitted logistic."""
    predictions = with_mos(predictions, dimension)
    mos, predicted = predictions[f"{dimension}_mos"], predictions[f"{dimension}_pred"]
    figure, axes = new_figure(WIDTH)
    low, high = min(0.0, predicted.min()), max(MOS_MAX, predicted.max())
    axes.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle="--", label="equal")
    axes.scatter(predicted, mos, s=10, color=POINTS, alpha=0.5, linewidths=0)
    curve = fit_logistic(predicted, mos)
    if curve:
        x = np.linspace(predicted.min(), predicted.max(), 200)
        axes.plot(x, curve(x), color=CURVE, linewidth=1.8, label="logistic fit")
    axes.set(xlabel="prediction", ylabel="MOS", xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    figures = f"SRCC {srcc(predicted, mos):.3f}, PLCC {plcc(predicted, mos):.3f}, n = {len(mos)}"
    axes.set_title(f"{dimension}\n{figures}", fontsize=10)
    return figure


def draw_calibration(predictions: pd.DataFrame) -> Figure:
    """Mean MOS of images that got about the same prediction, ten groups per dimension, against the line of equality."""
    figure, axes = new_figure(WIDTH)
    axes.plot([0, MOS_MAX], [0, MOS_MAX], color=INK, linewidth=0.8, linestyle="--")
    for dimension in dimensions_in(predictions):
        part = with_mos(predictions, dimension)
        predicted, mos = part[f"{dimension}_pred"], part[f"{dimension}_mos"]
        group = pd.qcut(predicted.rank(method="first"), min(BINS, len(predicted)), labels=False)
        means = mos.groupby(group).mean()
        images = part["image"].groupby(group).nunique()  # an image that several folds test counts once
        errors: pd.Series = (mos.groupby(group).std() / np.sqrt(images)).fillna(0.0)
        colour, marker = LOOKS[dimension]
        centres = predicted.groupby(group).mean()
        axes.errorbar(
            *(centres, means, 1.96 * errors), label=dimension, color=colour, marker=marker, linewidth=1, capsize=2
        )
    axes.set(xlabel="mean prediction of the group", ylabel="its mean MOS, 95 % interval", aspect="equal")
    axes.set_title("calibration", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    return figure


def draw_residuals(predictions: pd.DataFrame, groups: pd.Series, what: str) -> Figure:
    """Prediction minus MOS in groups of images, a row of boxes per group: quartiles, and 5 to 95 % of the images."""
    dimensions = dimensions_in(predictions)
    names = sorted(map(str, groups.unique()), key=in_natural_order)
    height = 0.28 * len(dimensions)  # of a group
    figure, axes = new_figure(WIDTH, 1.2 + max(1.8, len(names) * (height + 0.15)))
    axes.axvline(0, color=INK, linewidth=0.8, linestyle="--")
    for k, dimension in enumerate(dimensions):
        error = predictions[f"{dimension}_pred"] - predictions[f"{dimension}_mos"]
        offset = (k - (len(dimensions) - 1) / 2) * 0.8 / len(dimensions)
        spans = np.stack([error[groups == name].quantile(SPANS) for name in names])  # (groups, 5); NaN without MOS
        at, colour = np.arange(len(names)) + offset, LOOKS[dimension][0]
        axes.hlines(at, spans[:, 0], spans[:, 4], color=colour, linewidth=1)
        axes.barh(at, spans[:, 3] - spans[:, 1], 0.6 / len(dimensions), spans[:, 1], color=colour, label=dimension)
        axes.plot(spans[:, 2], at, color="white", marker="|", markersize=6, linestyle="none")
    labels = [f"{plain(name)}\nn = {int((groups == name).sum())}" for name in names]
    axes.set_yticks(np.arange(len(names)), labels, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set(xlabel="prediction minus MOS")
    axes.set_title(f"residuals by {what}", fontsize=10)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def in_natural_order(name: str) -> tuple[int, str]:
    """A key that sorts "5 to 9 words" before "10 to 12 words", and other names by their letters."""
    number = re.match(r"\d+", name)
    return int(number[0]) if number else 0, name.casefold()


def bin_lengths(prompts: pd.Series) -> pd.Series:
    """For each prompt the range of its word count, such as "5 to 9 words"; ranges hold about equally many prompts."""
    words = np.array([len(prompt.split()) for prompt in prompts])
    quantiles = np.quantile(words, np.linspace(0, 1, LENGTH_BINS + 1), method="nearest")
    edges = sorted({int(edge) for edge in quantiles})
    starts = edges[:-1] or edges
    ends = [*(edge - 1 for edge in edges[1:-1]), edges[-1]]
    names = [f"{a} to {b} words" if b > a else f"{a} word{'s' * (a != 1)}" for a, b in zip(starts, ends, strict=True)]
    return pd.Series([names[np.searchsorted(starts, count, "right") - 1] for count in words], index=prompts.index)


def draw_folds(per_fold: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """SRCC and PLCC, a dot per fold, with its 95 % interval; beside them the mean over folds with its own."""
    dimensions = list(map(str, summary.index))
    figure = Figure(figsize=(WIDTH, 1.1 + 0.75 * len(dimensions)), layout="constrained")
    counted = per_fold[per_fold["repeats"] == 0]
    for column, metric in enumerate(("srcc", "plcc")):
        axes = figure.add_subplot(1, 2, column + 1)
        for row, dimension in enumerate(dimensions):
            folds = counted[counted["dimension"] == dimension]
            colour, marker = LOOKS[dimension]
            at = row + np.linspace(-0.28, 0.12, len(folds)) if len(folds) > 1 else np.array([float(row)])
            spread(axes, folds, metric, at, color=colour, marker=marker, markersize=4, alpha=0.75)
            if len(folds) > 1:
                mean = summary.loc[[dimension]]
                spread(axes, mean, metric, np.array([row + 0.32]), color=INK, marker="d", markersize=7, linewidth=2)
        axes.set(ylim=(len(dimensions) - 0.5, -0.6))
        axes.set_title(TITLES[metric], fontsize=10)
        axes.set_yticks(range(len(dimensions)), dimensions if column == 0 else [""] * len(dimensions), fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="x", linewidth=0.4)
    return figure


def spread(axes: Axes, rows: pd.DataFrame, metric: str, at: np.ndarray, **look: Any) -> None:
    """Dots with their intervals; a dot alone where it has none."""
    values = rows[metric].to_numpy(float)
    reach = np.abs(np.array([values - rows[f"{metric}_low"], rows[f"{metric}_high"] - values], float))
    axes.errorbar(values, at, xerr=np.nan_to_num(reach), linestyle="none", **look)


def draw_curves(curves: pd.DataFrame) -> Figure:
    """Training loss, and SRCC on val by dimension, over epochs; a thin line per fold, a thick one for their mean.

    `curves` has the columns fold, epoch, loss, dimension and srcc.
    """
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    losses = curves.groupby(["fold", "epoch"])["loss"].mean().reset_index()  # of several models, one for each target
    draw_lines(upper, losses, "loss", color=INK, label="loss")
    upper.set(ylabel="the method's loss")
    upper.set_title("training loss", fontsize=10)
    for dimension, part in curves.groupby("dimension", sort=False):
        colour, marker = LOOKS[str(dimension)]
        draw_lines(lower, part, "srcc", color=colour, marker=marker, markersize=3, label=str(dimension))
    lower.set(xlabel="epoch", ylabel="SRCC")
    lower.set_title("SRCC on val", fontsize=10)
    lower.xaxis.get_major_locator().set_params(integer=True)
    lower.legend(frameon=False, fontsize=8)
    return figure


def draw_lines(axes: Axes, rows: pd.DataFrame, column: str, **look: Any) -> None:
    """One quantity over epochs, by fold and on average."""
    table = rows.pivot(index="epoch", columns="fold", values=column)
    if table.shape[1] > 1:
        axes.plot(table.index, table, color=look["color"], linewidth=0.6, alpha=0.5)
    axes.plot(table.index, table.mean(axis=1), linewidth=2, **look)


def draw_views(views: Tensor, row: pd.Series) -> Figure:
    """One image's views, (V, 3, S, S) on 0-1: the whole image, then its windows in rows of five, scores above."""
    columns = 5
    rows = -(-len(views) // columns)
    figure = Figure(figsize=(1.8 * columns, 1.9 * rows + 0.9), layout="constrained")
    for i, view in enumerate(views):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow(view.permute(1, 2, 0).clamp(0, 1).cpu().numpy())
        axes.set_title("whole image" if i == 0 else f"patch {i}", fontsize=8)
        axes.set_axis_off()
    mos = {d: row[f"{d}_mos"] for d in DIMENSIONS if f"{d}_mos" in row}
    told = {d: "no MOS" if math.isnan(value) else f"MOS {value:.2f}" for d, value in mos.items()}
    scores = [f"{d} {row[f'{d}_pred']:.2f} ({text})" for d, text in told.items()]
    figure.suptitle("\n".join([*textwrap.wrap(plain(str(row["prompt"])), 90), ", ".join(scores)]), fontsize=9)
    return figure


def new_figure(width: float, height: float | None = None) -> tuple[Figure, Axes]:
    """A figure of one plot, as high as it is wide unless said otherwise."""
    figure = Figure(figsize=(width, height or width), layout="constrained")
    return figure, figure.add_subplot()


def png_bytes(figure: Figure, label: str) -> bytes:
    """The figure as a PNG file's content, with a line on top that says what data and protocol it is about."""
    figure.suptitle("\n".join(textwrap.wrap(plain(label), 70)), fontsize=7, color=INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
