"""A leaderboard's plots: SRCC with its interval, SRCC against cost, and differences to the first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from mgs.dimensions import DIMENSIONS
from mgs.evaluation.metrics import TITLES
from mgs.evaluation.plots import INK, LOOKS, WIDTH, spread
from mgs.safe_text import plain

METHODS = (("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "^"), ("#cc79a7", "D"), ("#e69f00", "v"), ("#56b4e9", "P"))


def draw_ranking(results: pd.DataFrame, *, across: bool = False) -> Figure:
    """SRCC with its 95 % interval, a panel per dimension and a line per method; dashed: the first method's.

    `results` has the columns method, dimension, metric, value, low and high. Panels lie below each other, or with
    `across` side by side.
    """
    methods = list(dict.fromkeys(results["method"]))
    found = results[results["metric"] == "srcc"]
    dimensions = [d for d in DIMENSIONS if d in set(found["dimension"])]
    tall = 0.55 + 0.28 * len(methods)
    size = (1.6 + 2.6 * len(dimensions), tall + 0.5) if across else (WIDTH, tall * len(dimensions) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    for i, dimension in enumerate(dimensions):
        place = (1, len(dimensions), i + 1) if across else (len(dimensions), 1, i + 1)
        axes = figure.add_subplot(*place)
        part = found[found["dimension"] == dimension].rename(
            columns={"value": "srcc", "low": "srcc_low", "high": "srcc_high"}
        )
        first = part.loc[part["method"] == methods[0], "srcc"]
        if len(first):
            axes.axvline(first.iloc[0], color=INK, linewidth=0.8, linestyle="--")
        colour, marker = LOOKS[dimension]
        at = np.array([float(methods.index(name)) for name in part["method"]])
        spread(axes, part, "srcc", at, color=colour, marker=marker, markersize=6, capsize=2)
        labelled = not across or i == 0
        axes.set_yticks(range(len(methods)), list(map(plain, methods)) if labelled else [""] * len(methods), fontsize=8)
        axes.set(ylim=(len(methods) - 0.5, -0.5))
        axes.set_title(f"{dimension}, SRCC", fontsize=9)
        axes.locator_params(axis="x", nbins=6)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="x", linewidth=0.4)
    return figure


def draw_costs(results: pd.DataFrame, gflop: Mapping[str, float]) -> Figure:
    """SRCC against the operations that an image takes, a panel per dimension; `gflop` by method, in 10^9."""
    found = results[(results["metric"] == "srcc") & results["method"].isin(list(gflop))]
    dimensions = [d for d in DIMENSIONS if d in set(found["dimension"])]
    methods = list(dict.fromkeys(found["method"]))
    figure = Figure(figsize=(WIDTH, 1.5 * len(dimensions) + 0.9), layout="constrained")
    panels = figure.subplots(len(dimensions), sharex=True, squeeze=False)[:, 0]
    for axes, dimension in zip(panels, dimensions, strict=True):
        for row in found[found["dimension"] == dimension].to_dict("records"):
            colour, marker = METHODS[methods.index(row["method"]) % len(METHODS)]
            axes.plot(gflop[row["method"]], row["value"], color=colour, marker=marker, linestyle="none")
        axes.set_title(f"{dimension}, SRCC", fontsize=9)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.margins(y=0.25)
        axes.set_xlim(min(gflop.values()) / 1.5, max(gflop.values()) * 1.5)
        axes.tick_params(labelsize=8)
        axes.grid(linewidth=0.4)
    panels[-1].set_xlabel("GFLOP an image", fontsize=8)
    for i, name in enumerate(methods):
        colour, marker = METHODS[i % len(METHODS)]
        panels[0].plot([], [], color=colour, marker=marker, linestyle="none", label=plain(name))
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def draw_differences(results: pd.DataFrame) -> Figure:
    """Each method's difference to the first, with its 95 % interval, by dimension; for SRCC and PLCC.

    `results` has the columns method, dimension, metric, difference, difference_low and difference_high.
    """
    methods = list(dict.fromkeys(results["method"]))
    dimensions = [d for d in DIMENSIONS if d in set(results["dimension"])]
    figure = Figure(figsize=(WIDTH, 1.3 + len(methods) * (0.25 + 0.25 * len(dimensions))), layout="constrained")
    for column, metric in enumerate(("srcc", "plcc")):
        axes = figure.add_subplot(1, 2, column + 1)
        axes.axvline(0, color=INK, linewidth=0.8, linestyle="--")
        for k, dimension in enumerate(dimensions):
            part = results[(results["dimension"] == dimension) & (results["metric"] == metric)]
            ends = {"difference_low": f"{metric}_low", "difference_high": f"{metric}_high"}
            part = part.drop(columns=["value", "low", "high"]).rename(columns={"difference": metric, **ends})
            at = np.array([methods.index(name) for name in part["method"]]) + (k - (len(dimensions) - 1) / 2) * 0.22
            colour, marker = LOOKS[dimension]
            spread(axes, part, metric, at, color=colour, marker=marker, markersize=5, label=dimension)
        axes.set(ylim=(len(methods) - 0.5, -0.5))
        axes.set_title(TITLES[metric], fontsize=10)
        labels = [plain(name) for name in methods] if column == 0 else [""] * len(methods)
        axes.set_yticks(range(len(methods)), labels, fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="x", linewidth=0.4)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure
