"""What `test.py` prints and leaves in runs/<name>/report/: tables, each with the protocol it was measured under."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mgs.evaluation.folds import measure_folds, summarise_folds
from mgs.evaluation.metrics import METRICS
from mgs.runtime import whole_file, write_json

CONVENTIONS = "PLCC and RMSE are on raw scores, without a logistic fit; SD is over folds."
DRAWINGS = "These figures are about generated drawings, not about real AI-generated images."


@dataclass(frozen=True)
class Protocol:
    """What a table must say of itself: the data, how it was split, and what was scored with what."""

    dataset: str
    protocol: str  # published, prompt-disjoint or random-image
    backbone: str
    precision: str
    notes: tuple[str, ...] = ()

    def title(self, per_fold: pd.DataFrame) -> str:
        folds = per_fold["fold"].nunique()
        images = int(per_fold.drop_duplicates("fold")["images"].sum())
        return (
            f"{self.dataset}, protocol {self.protocol}, {folds} fold{'s' * (folds != 1)}, {images} test images, "
            f"backbone {self.backbone}, {self.precision}"
        )


def write_report(predictions: pd.DataFrame, protocol: Protocol, folder: Path) -> str:
    """Write predictions.csv, metrics.csv, metrics.json and table.md into `folder`; returns the table as text."""
    per_fold = measure_folds(predictions)
    summary = summarise_folds(per_fold)
    table = render_table(per_fold, summary, protocol)
    with whole_file(folder / "predictions.csv") as path:
        predictions.to_csv(path, index=False)
    with whole_file(folder / "metrics.csv") as path:
        per_fold.assign(dataset=protocol.dataset, protocol=protocol.protocol).to_csv(path, index=False)
    with whole_file(folder / "table.md") as path:
        path.write_text(table, encoding="utf-8")
    content = {
        **asdict(protocol),
        "conventions": CONVENTIONS,
        "folds": [without_nan(row) for row in per_fold.to_dict("records")],
        "summary": {str(d): without_nan(row) for d, row in summary.to_dict("index").items()},
    }
    write_json(folder / "metrics.json", content)
    return table


def without_nan(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row for JSON, which has no NaN: an undefined figure is null."""
    return {str(k): None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}


def render_table(per_fold: pd.DataFrame, summary: pd.DataFrame, protocol: Protocol) -> str:
    """A Markdown table, aligned to be read in a terminal too: a line per fold and dimension, then mean ± SD."""
    rows = [["fold", "dimension", "images", *(name.upper() for name in METRICS)]]
    for row in per_fold.to_dict("records"):
        rows.append([str(row["fold"]), row["dimension"], str(row["images"]), *(f"{row[m]:.4f}" for m in METRICS)])
    if per_fold["fold"].nunique() > 1:
        for dimension, figures in summary.to_dict("index").items():
            cells = [f"{figures[m]:.4f} ± {figures[f'{m}_sd']:.4f}" for m in METRICS]
            rows.append(["mean ± SD", str(dimension), "", *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    notes = [CONVENTIONS, *protocol.notes]
    return "\n".join([f"**{protocol.title(per_fold)}**", "", *lines, "", *notes, ""])
