"""Tested runs, and the rows of a leaderboard that they make up."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mgs.dimensions import DIMENSIONS
from mgs.errors import UserError
from mgs.evaluation.costs import Costs, add_costs
from mgs.evaluation.per_fold import dimensions_in
from mgs.safe_text import original_cell


@dataclass(frozen=True)
class TestedRun:
    """What a report folder says about a run."""

    name: str
    predictions: pd.DataFrame
    record: dict[str, Any]  # metrics_*.json


@dataclass(frozen=True)
class Entry:
    """A row of a leaderboard: one run, or runs of one method that score a dimension or more each."""

    name: str
    method: str
    backbone: str
    runs: tuple[TestedRun, ...]

    @property
    def dimensions(self) -> list[str]:
        """All that its runs score, in our order."""
        found = {dimension for run in self.runs for dimension in dimensions_in(run.predictions)}
        return [dimension for dimension in DIMENSIONS if dimension in found]

    @property
    def run_names(self) -> str:
        """Its runs, as text."""
        return " + ".join(run.name for run in self.runs)

    @property
    def costs(self) -> Costs:
        """Of all its runs' models together."""
        return add_costs([Costs.of(run.record.get("costs") or {}) for run in self.runs])

    @property
    def ignores_prompts(self) -> bool:
        """Whether none of its scores depends on the prompt; false where a run does not say."""
        return all(run.record.get("prompted") == [] for run in self.runs)

    def run_for(self, dimension: str) -> TestedRun | None:
        """The run that scores a dimension."""
        return next((run for run in self.runs if dimension in dimensions_in(run.predictions)), None)


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
        check_record(record, predictions)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{report}: not what test.py leaves ({error!r}); test the run again") from None
    return TestedRun(folder.resolve().name, predictions, record)


def check_record(record: Any, predictions: pd.DataFrame) -> None:
    """Raise `ValueError` or `KeyError` where a report's record is not of its kind; a stranger may have written it."""
    for fact in ("dataset", "protocol", "backbone"):
        if not isinstance(record[fact], str) or (fact != "backbone" and set("/\\") & set(record[fact])):
            raise ValueError(f"{fact}: not a name")
    for fact in ("method", "trained_on"):
        if not isinstance(record.get(fact) or "", str):
            raise ValueError(f"{fact}: not a name")
    folds, notes = record["folds"], record.get("notes", [])
    if not isinstance(folds, list) or not all(isinstance(fold, dict) for fold in folds):
        raise ValueError("folds: not a list of records")
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise ValueError("notes: not a list of texts")
    costs = Costs.of(record.get("costs") or {})
    if not all(isinstance(value, (int, float, type(None))) for name, value in vars(costs).items() if name != "device"):
        raise ValueError("costs: not numbers")
    predictions["fold"]


def group_runs(runs: Iterable[TestedRun]) -> list[list[TestedRun]]:
    """The runs by dataset and protocol, each in the order given; only figures of one group can be compared."""
    groups: dict[tuple[str, str], list[TestedRun]] = {}
    for run in runs:
        groups.setdefault((run.record["dataset"], run.record["protocol"]), []).append(run)
    return list(groups.values())


def join_runs(runs: Sequence[TestedRun]) -> list[Entry]:
    """A group's rows, in the order of their first runs.

    A run joins the first row of the same method, backbone and training data that scores none of its dimensions. A row
    is named by its method; by its backbone and its runs too, as far as it takes to tell rows apart.
    """
    entries: list[Entry] = []
    for run in runs:
        for i, entry in enumerate(entries):
            shared = set(entry.dimensions) & set(dimensions_in(run.predictions))
            if kind_of(entry.runs[0]) == kind_of(run) and not shared:
                entries[i] = replace(entry, runs=(*entry.runs, run))
                break
        else:
            method, backbone, *_ = kind_of(run)
            entries.append(Entry(method, method, backbone, (run,)))
    for part in ("backbone", "run_names"):
        names = [entry.name for entry in entries]
        for i, entry in enumerate(entries):
            alike = [getattr(other, part) for other, name in zip(entries, names, strict=True) if name == names[i]]
            if len(set(alike)) > 1:
                entries[i] = replace(entry, name=f"{names[i]}, {getattr(entry, part)}")
    return entries


def kind_of(run: TestedRun) -> tuple[str, str, str, bool]:
    """A run's method, as tables call it, its backbone, another dataset that it was trained on, and if it trained."""
    record = run.record
    untrained = (record.get("costs") or {}).get("train_s") == 0
    return record.get("method") or "MGS", str(record["backbone"]), record.get("trained_on") or "", not untrained
