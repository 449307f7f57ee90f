"""Figures, drawn off screen; none of them needs a display."""

from __future__ import annotations

import textwrap

import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from mgs.config import DIMENSIONS, MOS_MAX
from mgs.evaluation.metrics import plcc, srcc

INK, POINTS = "#333333", "#0072b2"  # the blue of Okabe and Ito's palette, told apart by the colour-blind


def draw_scatter(predictions: pd.DataFrame, dimension: str) -> Figure:
    """Prediction against MOS for one dimension, with the line where they agree."""
    mos, predicted = predictions[f"{dimension}_mos"], predictions[f"{dimension}_pred"]
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    low, high = min(0.0, predicted.min()), max(MOS_MAX, predicted.max())
    axes.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle="--")
    axes.scatter(mos, predicted, s=12, color=POINTS, alpha=0.6, linewidths=0)
    axes.set(xlabel="MOS", ylabel="prediction", xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set_title(f"{dimension}: SRCC {srcc(predicted, mos):.3f}, PLCC {plcc(predicted, mos):.3f}, n = {len(mos)}")
    return figure


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
    scores = [f"{d} {row[f'{d}_pred']:.2f} (MOS {row[f'{d}_mos']:.2f})" for d in DIMENSIONS if f"{d}_pred" in row]
    title = "\n".join([*textwrap.wrap(str(row["prompt"]).replace("$", r"\$"), 90), ", ".join(scores)])
    figure.suptitle(title, fontsize=9)
    return figure
