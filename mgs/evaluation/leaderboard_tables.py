"""A leaderboard's tables: figures, differences with their verdicts, and costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from mgs.evaluation.comparison import COMPARED, Comparison
from mgs.evaluation.costs import Costs
from mgs.evaluation.metrics import TITLES
from mgs.evaluation.tables import MISSING, Table, figure, mark_best
from mgs.evaluation.tested_runs import Entry, TestedRun

BLIND = "†"  # after a method that never reads the prompt
MEANS = (
    "Means over folds, of raw scores. [ ]: the mean's 95 % interval (Student's t), as if folds shared no images; the "
    "verdicts below compare methods more sharply, since they pair folds."
)
ONE_FOLD = "Of raw scores. [ ]: the 95 % interval over other test images (Fisher's z)."
PAIRED = (
    "Differences are fold by fold, method minus first. Interval: 95 %, Student's t with Nadeau and Bengio's "
    "correction, since folds share training images; p: Wilcoxon's signed-rank test, two-sided, which fewer than six "
    "folds cannot bring below 0.05.",
    "Noise: the interval holds zero. Of twenty comparisons without any difference, one is expected to miss zero.",
)
MEASURED = (
    "GFLOP: 10^9 operations of matrix products, convolutions and attention for one test image, a multiplication and an "
    "addition counting as two. Texts: the part of it that embeds texts, which is done once for each distinct text.",
    "Images a second: while the test set was scored on the machine named, from decoded images where they fit in "
    "memory. Training: minutes for one fold, val included, on the machine that trained it.",
    "A method that has a model for each target is charged for all of its models together.",
)
COST_COLUMNS: dict[str, Callable[[Costs], str]] = {
    "parameters (M)": lambda costs: scaled(costs.parameters, 1e-6),
    "trained (M)": lambda costs: scaled(costs.trained, 1e-6),
    "GFLOP an image": lambda costs: scaled(costs.gflop_image, 1),
    "of it texts": lambda costs: scaled(costs.gflop_texts, 1),
    "images a second": lambda costs: scaled(costs.images_s, 1),
    "training (min a fold)": lambda costs: scaled(costs.train_s, 1 / 60),
}


def ranking_table(comparison: Comparison, title: str) -> Table:
    """A row per method: SRCC and PLCC with their 95 % intervals by dimension, the best marked."""
    columns = [(dimension, metric) for dimension in comparison.dimensions for metric in COMPARED]
    rows = []
    for entry in comparison.entries:
        found = results_of(comparison, entry)
        cells = [with_interval(found.get(column)) for column in columns]
        rows.append([marked_name(entry), entry.backbone, *cells])
    header = ["method", "backbone", *(f"{dimension} {TITLES[metric]}" for dimension, metric in columns)]
    notes = [MEANS if len(comparison.folds) > 1 else ONE_FOLD, *describe_entries(comparison.entries)]
    if comparison.left_out:
        folds = ", ".join(map(str, comparison.left_out))
        notes.append(f"Left out, not tested by all or repeating another: folds {folds}.")
    runs = [run for entry in comparison.entries for run in entry.runs]
    return Table(title, header, rows, mark_best(rows, range(2, len(header))), notes=(*notes, *carry_notes(runs)))


def results_of(comparison: Comparison, entry: Entry) -> dict[tuple[str, str], dict]:
    """A method's rows of results by dimension and metric."""
    rows = comparison.results[comparison.results["method"] == entry.name].to_dict("records")
    return {(row["dimension"], row["metric"]): row for row in rows}


def with_interval(row: Mapping | None) -> str:
    """A figure with its interval; empty where the method doesn't score the dimension."""
    if row is None:
        return ""
    ends = "" if math.isnan(row["low"]) else f" [{row['low']:.3f}, {row['high']:.3f}]"
    return figure(row["value"]) + ends


def marked_name(entry: Entry) -> str:
    """A method's name, with the mark of one that never reads the prompt."""
    return f"{entry.name} {BLIND}" if entry.ignores_prompts else entry.name


def describe_entries(entries: Sequence[Entry]) -> list[str]:
    """What a reader must know of the rows: the runs behind them, other training data, and the mark."""
    notes = [f"{entry.name}: {', '.join(told)}." for entry in entries if (told := runs_told(entry))]
    if any(entry.ignores_prompts for entry in entries):
        notes.append(f"{BLIND} The method never reads the prompt.")
    return notes


def runs_told(entry: Entry) -> list[str]:
    """A row's runs, each with the dimensions it scores, unless the row's name says them."""
    if len(entry.runs) == 1:
        return [] if entry.run_names in entry.name else [f"run {entry.run_names}"]
    return [
        f"run {run.name} ({' and '.join(d for d in entry.dimensions if entry.run_for(d) is run)})" for run in entry.runs
    ]


def carry_notes(runs: Sequence[TestedRun]) -> list[str]:
    """The notes below the runs' own tables, each once; a note that is not about all runs names its runs."""
    about: dict[str, list[str]] = {}
    for run in runs:
        for note in run.record.get("notes", []):
            about.setdefault(note, []).append(run.name)
    return [note if len(names) == len(runs) else f"{', '.join(names)}: {note}" for note, names in about.items()]


def difference_table(comparison: Comparison) -> Table:
    """Every method's differences to the first, a row per dimension and metric that both have."""
    paired = comparison.results[comparison.results["verdict"] != ""]
    rows = [
        [
            str(row["method"]),
            str(row["dimension"]),
            TITLES[row["metric"]],
            f"{row['difference']:+.4f}" if not math.isnan(row["difference"]) else MISSING,
            f"{row['difference_low']:+.4f} to {row['difference_high']:+.4f}"
            if not math.isnan(row["difference_low"])
            else MISSING,
            figure(row["p"], 3),
            str(row["verdict"]),
        ]
        for row in paired.to_dict("records")
    ]
    header = ["method", "dimension", "metric", "difference", "95 % interval", "p", "verdict"]
    first = comparison.baseline
    alone = [d for d in comparison.dimensions if d not in first.dimensions]
    without = [f"No verdict on {', '.join(alone)}: {first.name} does not score it."] if alone else []
    if len(comparison.entries) == 1:
        without.append("Nothing else was tested here, so there is nothing to compare it with.")
    return Table(f"Differences to {first.name}", header, rows, notes=(*(PAIRED if rows else ()), *without))


def cost_table(comparison: Comparison) -> Table:
    """What each method costs; a dash where its report does not say."""
    costs = {entry.name: entry.costs for entry in comparison.entries}
    rows = [[name, *(column(one) for column in COST_COLUMNS.values())] for name, one in costs.items()]
    header, notes = ["method", *COST_COLUMNS], list(MEASURED)
    places = [machine(entry) for entry in comparison.entries]
    if len(known := {place for place in places if place != MISSING}) > 1:
        header.append("scored on")
        rows = [[*row, place] for row, place in zip(rows, places, strict=True)]
    else:
        notes += [f"Scored on {place}." for place in known]
    if any(MISSING in row for row in rows):
        notes.append("A dash: not recorded, as in reports and trainings of older versions.")
    return Table("Costs", header, rows, notes=tuple(notes))


def scaled(value: float | None, factor: float) -> str:
    """A cost in three digits or more, after scaling."""
    if value is None:
        return MISSING
    number = value * factor
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def machine(entry: Entry) -> str:
    """Where a method was scored: device, threads of a CPU, and precision."""
    costs, precisions = entry.costs, {str(run.record["precision"]) for run in entry.runs if "precision" in run.record}
    if not costs.device:
        return MISSING
    threads = [f"{costs.threads} thread{'s' * (costs.threads > 1)}"] if costs.threads else []
    return ", ".join([costs.device, *threads, *sorted(precisions)])
