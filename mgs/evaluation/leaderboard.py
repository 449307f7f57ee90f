"""The leaderboard of tested runs: for each dataset and protocol, who is better, by how much, and at what cost."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from mgs.evaluation.comparison import Comparison, compare_entries
from mgs.evaluation.leaderboard_plots import draw_costs, draw_differences, draw_ranking
from mgs.evaluation.leaderboard_tables import cost_table, difference_table, ranking_table
from mgs.evaluation.page import Plot, Section, render_page
from mgs.evaluation.plots import png_bytes
from mgs.evaluation.tables import Table, to_latex, to_markdown
from mgs.evaluation.tested_runs import TestedRun, group_runs, join_runs
from mgs.files import whole_file, without_nan, write_json
from mgs.safe_text import safe_table


def write_leaderboard(runs: Sequence[TestedRun], folder: Path) -> str:
    """Write tables, plots and the page of a comparison of runs into `folder`; returns its tables as Markdown.

    Runs are grouped by dataset and protocol, and in each group compared with its first. Raises `UserError` where a
    group's runs share no fold, or were tested on other images or MOS.
    """
    comparisons = {heading(group[0]): compare_entries(join_runs(group)) for group in group_runs(runs)}
    title = f"Leaderboard: {'; '.join(comparisons)}"
    sections = {name: make_section(name, comparison) for name, comparison in comparisons.items()}
    tables = [table for section in sections.values() for table in section.tables]
    text = "\n".join(map(to_markdown, tables))
    facts = {"Runs": [f"{run.name}: {run.record['dataset']}, protocol {run.record['protocol']}" for run in runs]}
    rows = pd.concat([tidy_rows(comparison) for comparison in comparisons.values()], ignore_index=True)
    contents = {
        ".md": text,
        ".tex": "\n".join(map(to_latex, tables)),
        ".csv": safe_table(rows).to_csv(index=False),
        ".html": render_page(title, sections, {}, facts),
    }
    mark = hashlib.sha256("|".join(run.name for run in runs).encode()).hexdigest()[:6]  # each comparison has its files
    stem = f"leaderboard_{mark}"
    for suffix, content in contents.items():
        with whole_file(folder / f"{stem}{suffix}") as path:
            path.write_text(content, encoding="utf-8")
    for section in sections.values():
        for plot in section.plots:
            with whole_file(folder / f"{stem}_{plot.name}.png") as path:
                path.write_bytes(plot.png)
    groups = [as_record(name, comparison) for name, comparison in comparisons.items()]
    write_json(folder / f"{stem}.json", {"title": title, "groups": groups})
    return text


def heading(run: TestedRun) -> str:
    """A group's dataset and protocol, in words."""
    return f"{run.record['dataset']}, protocol {run.record['protocol']}"


def describe(name: str, comparison: Comparison) -> str:
    """The protocol in one line, with the folds that count."""
    folds, count = comparison.folds, len(comparison.entries)
    what = f"fold{'s' * (len(folds) > 1)} {', '.join(map(str, folds))}"
    return f"{name}, {what}: {count} method{'s' * (count > 1)}"


def make_section(name: str, comparison: Comparison) -> Section:
    """A group's part of the page."""
    line, results, first = describe(name, comparison), comparison.results, comparison.baseline.name
    record = comparison.baseline.runs[0].record
    place = f"{record['dataset']}_{record['protocol']}"
    tables = [ranking_table(comparison, line), difference_table(comparison), cost_table(comparison)]
    plots = [
        Plot(
            f"srcc_{place}",
            png_bytes(draw_ranking(results), line),
            f"SRCC of each method with its 95 % interval; dashed: {first}",
        )
    ]
    paired = results[results["verdict"] != ""]
    if len(paired):
        text = f"SRCC and PLCC of each method minus those of {first}, mean over folds with its 95 % interval"
        plots.append(Plot(f"differences_{place}", png_bytes(draw_differences(paired), f"{line}; to {first}"), text))
    gflop = {e.name: e.costs.gflop_image for e in comparison.entries if e.costs.gflop_image}
    if len(gflop) > 1:
        text = "SRCC against the operations that scoring one image takes"
        plots.append(Plot(f"costs_{place}", png_bytes(draw_costs(results, gflop), line), text))
    text = f"The others are compared with the first, {first}."
    return Section([with_protocol(table, name) for table in tables], plots, text if len(paired) else "")


def with_protocol(table: Table, name: str) -> Table:
    """The table with dataset and protocol in its caption, if they are not there yet."""
    caption = table.caption if table.caption.startswith(name) else f"{name}: {table.caption}"
    return Table(caption, table.header, table.rows, table.bold, table.groups, table.notes)


def tidy_rows(comparison: Comparison) -> pd.DataFrame:
    """The results, a figure a row, each with its dataset and protocol before it and its method's costs after it."""
    record = comparison.baseline.runs[0].record
    costs = pd.DataFrame([{"method": entry.name, **asdict(entry.costs)} for entry in comparison.entries])
    table = comparison.results.merge(costs, on="method", how="left", sort=False)
    for place, column in enumerate(("dataset", "protocol")):
        table.insert(place, column, record[column])
    return table.assign(baseline=comparison.baseline.name)


def as_record(name: str, comparison: Comparison) -> dict[str, Any]:
    """A group for JSON, from which its plots can be drawn again."""
    methods = [
        {
            "method": entry.name,
            "backbone": entry.backbone,
            "runs": [run.name for run in entry.runs],
            "ignores_prompts": entry.ignores_prompts,
            "costs": asdict(entry.costs),
        }
        for entry in comparison.entries
    ]
    return {
        "protocol": describe(name, comparison),
        "folds": comparison.folds,
        "left_out": comparison.left_out,
        "methods": methods,
        "results": [without_nan(row) for row in comparison.results.to_dict("records")],
    }
