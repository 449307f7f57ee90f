"""Tables of figures: made once, and rendered as Markdown, LaTeX (booktabs) and, by the report's template, HTML."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import pandas as pd

from mgs.evaluation.metrics import METRICS, TITLES

MISSING = "–"  # an undefined figure, or a dimension that a method was not tested on
LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "†": r"$\dagger$", "–": "--", "<": r"\textless{}", ">": r"\textgreater{}"},
}


@dataclass(frozen=True)
class Table:
    """Rows of text under a header and a caption."""

    caption: str
    header: list[str]
    rows: list[list[str]]
    bold: frozenset[tuple[int, int]] = frozenset()  # (row, column) of the best figures
    groups: tuple[tuple[int, str], ...] = ()  # (row, heading): from this row on, rows belong together
    notes: tuple[str, ...] = ()


def summary_table(per_fold: pd.DataFrame, summary: pd.DataFrame, caption: str, notes: Sequence[str]) -> Table:
    """Two lines per dimension: mean ± SD over folds and the mean's 95 % interval; for one fold, that fold's."""
    counted = per_fold[per_fold["repeats"] == 0]
    folds = counted["fold"].nunique()
    rows = []
    for dimension, row in summary.to_dict("index").items():
        part = counted[counted["dimension"] == dimension]
        if folds > 1:
            cells = [f"{figure(row[m])} ± {figure(row[f'{m}_sd'])}" for m in METRICS]
        else:
            row = part.iloc[0].to_dict()
            cells = [figure(row[m]) for m in METRICS]
        what = "mean ± SD" if folds > 1 else f"fold {row['fold']}"
        rows.append([str(dimension), what, str(part["images"].sum()), *cells])
        rows.append([str(dimension), "95 % interval", "", *(interval(row, m) for m in METRICS)])
    return Table(caption, ["dimension", "", "images", *TITLES.values()], rows, notes=tuple(notes))


def fold_table(per_fold: pd.DataFrame, caption: str) -> Table:
    """A line per fold and dimension."""
    rows = []
    for row in per_fold.to_dict("records"):
        repeats = f" (tests fold {row['repeats']}'s)" if row["repeats"] else ""
        cells = [figure(row[m]) for m in METRICS]
        rows.append([f"{row['fold']}{repeats}", str(row["dimension"]), str(row["images"]), *cells])
    return Table(caption, ["fold", "dimension", "images", *TITLES.values()], rows)


def figure(value: float, digits: int = 4) -> str:
    """A figure as tables show it."""
    return MISSING if math.isnan(value) else f"{value:.{digits}f}"


def interval(row: dict, metric: str) -> str:
    """The metric's 95 % interval in that row; empty where it has none."""
    low, high = row.get(f"{metric}_low", math.nan), row.get(f"{metric}_high", math.nan)
    return "" if math.isnan(low) else f"{low:.3f} to {high:.3f}"


def published_results(dataset: str) -> list[dict[str, str]]:
    """The literature's figures on a dataset: method, dimension, srcc, plcc (or empty), protocol, source and folds."""
    text = (resources.files("mgs.evaluation") / "published_results.csv").read_text(encoding="utf-8")
    return [row for row in csv.DictReader(text.splitlines()) if row["dataset"] == dataset]


def literature_table(
    summary: pd.DataFrame, dataset: str, own: str, *, same_folds: bool, method: str = "MGS"
) -> Table | None:
    """This run among the literature's figures; None where there are none on the dataset.

    `method` is this run's, and `own` describes it as `protocol` describes the others. `same_folds`: it was trained and
    tested on all ten published folds. Then it is listed among the methods that were, too, and the best is marked.
    """
    published = published_results(dataset)
    dimensions = [str(d) for d in summary.index if any(row["dimension"] == d for row in published)]
    if not dimensions:
        return None
    columns = [(dimension, metric) for dimension in dimensions for metric in ("srcc", "plcc")]
    ours = [f"{method}, this run", *(figure(float(summary.loc[d, m])) for d, m in columns), own, ""]  # type: ignore[arg-type]
    methods: dict[tuple[str, str, str, str], dict[tuple[str, str], str]] = {}
    for row in published:
        key = (row["folds"], row["method"], row["protocol"], row["source"])
        methods.setdefault(key, {}).update({(row["dimension"], m): row[m] or MISSING for m in ("srcc", "plcc")})
    rows: dict[str, list[list[str]]] = {"published": [], "other": []}
    for (folds, name, how, source), figures in methods.items():
        rows[folds].append([name, *(figures.get(column, MISSING) for column in columns), how, source])
    if same_folds:
        parts = {"On the same folds": [ours, *rows["published"]]}
    else:
        parts = {"This run": [ours], "On the ten published folds": rows["published"]}
    parts["On other images or folds: not comparable to the last digits"] = rows["other"]
    groups, together = [], list[list[str]]()
    for heading, members in parts.items():
        if members:
            groups.append((len(together), heading))
            together += members
    header = ["method", *(f"{dimension} {TITLES[m]}" for dimension, m in columns), "protocol", "source"]
    bold = mark_best(parts["On the same folds"], range(1, 1 + len(columns))) if same_folds else frozenset()
    return Table(f"{dataset}: this run and the literature", header, together, bold, tuple(groups))


def mark_best(rows: Sequence[Sequence[str]], columns: Sequence[int]) -> frozenset[tuple[int, int]]:
    """Where the highest figure of each column stands, as shown; all of them where several tie."""
    best = set()
    for column in columns:
        values = {i: float(row[column].split()[0]) for i, row in enumerate(rows) if row[column] not in ("", MISSING)}
        best |= {(i, column) for i, value in values.items() if value == max(values.values())}
    return frozenset(best)


def to_markdown(table: Table) -> str:
    """The table in Markdown, aligned to be read in a terminal too."""
    cells = [[f"**{c}**" if (i, j) in table.bold else c for j, c in enumerate(row)] for i, row in enumerate(table.rows)]
    for at, heading in reversed(table.groups):
        cells.insert(at, [f"*{heading}*", *[""] * (len(table.header) - 1)])
    cells.insert(0, table.header)
    headings = {f"*{heading}*" for _, heading in table.groups}  # may run over into the next columns' place
    widths = [max(len(row[i]) for row in cells if row[i] not in headings) for i in range(len(table.header))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join([f"**{table.caption}**", "", *lines, "", *table.notes, ""])


def to_latex(table: Table) -> str:
    """The table in LaTeX, for a document that uses booktabs; caption and notes are comments above it."""
    width = len(table.header)
    headings = dict(table.groups)
    lines = [f"% {' '.join(text.split())}" for text in (table.caption, *table.notes, r"needs \usepackage{booktabs}")]
    lines += [rf"\begin{{tabular}}{{{'l' * width}}}", r"\toprule", latex_row(table.header), r"\midrule"]
    for i, row in enumerate(table.rows):
        if i in headings:
            rule = [r"\midrule"] if i else []
            lines += [*rule, rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape_latex(headings[i])}}}}} \\"]
        cells = [escape_latex(cell) for cell in row]
        lines.append(
            " & ".join(rf"\textbf{{{c}}}" if (i, j) in table.bold else c for j, c in enumerate(cells)) + r" \\"
        )
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def latex_row(cells: Sequence[str]) -> str:
    """One line of a tabular."""
    return " & ".join(map(escape_latex, cells)) + r" \\"


def escape_latex(text: str) -> str:
    """Text escaped so that LaTeX prints it unchanged."""
    return "".join(LATEX.get(character, character) for character in text)
