"""What `test.py` prints and leaves in runs/<name>/report/: tables, plots and a page, each with its protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from mgs.evaluation.costs import Costs
from mgs.evaluation.page import Plot, Section, ShowImage, choose_gallery, render_page
from mgs.evaluation.per_fold import dimensions_in, find_repeats, measure_folds, summarise_folds
from mgs.evaluation.plots import (
    bin_lengths,
    draw_calibration,
    draw_curves,
    draw_folds,
    draw_residuals,
    draw_scatter,
    png_bytes,
)
from mgs.evaluation.tables import Table, fold_table, literature_table, summary_table, to_latex, to_markdown
from mgs.evaluation.tensorboard import write_board
from mgs.files import whole_file, without_nan, write_json
from mgs.safe_text import safe_table

CONVENTIONS = (
    "SRCC, PLCC, KRCC and RMSE are of the raw scores; fit: after VQEG's four-parameter logistic, fitted on these "
    "images; pairs: share of image pairs in the order of their MOS."
)
ONE_FOLD = "The 95 % interval is over other test images (Fisher's z); another split or seed may move the figures more."
FOLDS = "SD is over folds. The 95 % interval is of their mean (Student's t), as if folds shared no images."
PUBLISHED_FOLDS = 10
MOST_GENERATORS = 12  # in a plot; the rest are taken together
BOXES = "box: quartiles, line: 5 to 95 % of the images, tick: median"
DRAWINGS = "These figures are about generated drawings, not about real AI-generated images."


@dataclass(frozen=True)
class Protocol:
    """What a table must say about itself: the data, how it was split, and what was scored with what."""

    dataset: str
    protocol: str  # published, prompt-disjoint, random-image, or own
    backbone: str
    precision: str
    notes: tuple[str, ...] = ()
    trained_on: str = ""  # another dataset, where that is what the checkpoint comes from
    method: str = "MGS"  # as tables call it
    prompted: tuple[str, ...] | None = None  # dimensions whose scores depend on the prompt, if known

    def title(self, per_fold: pd.DataFrame) -> str:
        """The protocol in one line, with the folds and images that count."""
        counted = per_fold[per_fold["repeats"] == 0].groupby("fold")["images"].max()  # a dimension may lack some MOS
        folds, images = len(counted), int(counted.sum())
        return (
            f"{self.dataset}, protocol {self.protocol}, {folds} fold{'s' * (folds != 1)}, {images} test images, "
            f"backbone {self.backbone}, {self.precision}{f', method {self.method}' * (self.method != 'MGS')}"
        )

    def file_name(self, what: str, suffix: str) -> str:
        """`what` with dataset and protocol, so that a file says what it is wherever it is sent."""
        return f"{what}_{self.dataset}_{self.protocol}{suffix}"


@dataclass(frozen=True)
class Background:
    """What a report shows beside the figures; every part is optional."""

    generators: Mapping[str, str] = field(default_factory=dict)  # image name -> its generator, if known
    train_images: Mapping[int, int] = field(default_factory=dict)  # by fold
    curves: pd.DataFrame | None = None  # as `training.log.read_curves` gives them
    show: ShowImage | None = None
    costs: Costs | None = None
    audit: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)  # dotted key -> value
    versions: Mapping[str, Any] = field(default_factory=dict)


def write_report(predictions: pd.DataFrame, protocol: Protocol, folder: Path, background: Background) -> str:
    """Write tables, figures, plots and the page into `folder`; returns the tables of results as text.

    `predictions` has the columns fold, image, prompt, <dimension>_mos and <dimension>_pred.
    """
    remove_others(folder, protocol)
    per_fold = measure_folds(predictions)
    per_fold["train_images"] = per_fold["fold"].map(background.train_images)
    summary = summarise_folds(per_fold)
    title = f"{folder.parent.name}: {protocol.title(per_fold)}"
    tables = make_tables(per_fold, summary, protocol, title, find_repeats(predictions))

    def place(what: str, suffix: str) -> Path:
        return folder / protocol.file_name(what, suffix)

    with whole_file(place("predictions", ".csv")) as path:
        safe_table(predictions).to_csv(path, index=False)
    with whole_file(place("metrics", ".csv")) as path:
        per_fold.assign(dataset=protocol.dataset, protocol=protocol.protocol).to_csv(path, index=False)
    content = {
        **asdict(protocol),
        "conventions": CONVENTIONS,
        "audit": background.audit,
        "costs": asdict(background.costs) if background.costs else None,
        "folds": [without_nan(row) for row in per_fold.to_dict("records")],
        "summary": {str(d): without_nan(row) for d, row in summary.to_dict("index").items()},
    }
    write_json(place("metrics", ".json"), content)
    with whole_file(place("table", ".md")) as path:
        path.write_text("\n".join(map(to_markdown, tables.values())), encoding="utf-8")
    with whole_file(place("table", ".tex")) as path:
        path.write_text("\n".join(map(to_latex, tables.values())), encoding="utf-8")

    label = f"{folder.parent.name}: {protocol.dataset}, protocol {protocol.protocol}"
    sections = draw_sections(predictions, per_fold, summary, background, label)
    for plot in (plot for plots in sections.values() for plot in plots):
        with whole_file(place(plot.name, ".png"), durable=False) as path:
            path.write_bytes(plot.png)
    gallery = choose_gallery(predictions, background.show) if background.show else {}
    facts = {
        "Protocol": [protocol.title(per_fold), CONVENTIONS, *protocol.notes],
        "Data audit": background.audit or ["clean: no leak, no flaw"],
        "Settings": [f"{key} = {value}" for key, value in background.settings.items()],
        "Versions": [f"{key}: {value}" for key, value in background.versions.items()],
    }
    with whole_file(place("report", ".html")) as path:
        page = {"Results": Section(list(tables.values()))}
        page |= {heading: Section(plots=plots) for heading, plots in sections.items()}
        path.write_text(render_page(title, page, gallery, facts), encoding="utf-8")
    images = {plot.name: plot.png for plots in sections.values() for plot in plots}
    write_board(folder, background.settings, summary, images)
    return "\n".join(to_markdown(tables[name]) for name in ("folds", "summary") if name in tables)


def remove_others(folder: Path, protocol: Protocol) -> None:
    """Remove the files that an earlier test of the run left under another dataset's or protocol's name."""
    for record in folder.glob("metrics_*.json"):
        if record.name != protocol.file_name("metrics", ".json"):
            for path in folder.glob(f"*{record.stem.removeprefix('metrics')}.*"):
                path.unlink()


def make_tables(
    per_fold: pd.DataFrame, summary: pd.DataFrame, protocol: Protocol, title: str, repeats: Mapping[int, int]
) -> dict[str, Table]:
    """The summary, this run among the literature's figures where there are any on the dataset, and the folds."""
    folds = len(per_fold["fold"].unique()) - len(repeats)
    repeated = [f"Fold {one} tests the same images as fold {two} and is not counted." for one, two in repeats.items()]
    notes = [CONVENTIONS, FOLDS if folds > 1 else ONE_FOLD, *repeated, *protocol.notes]
    tables = {"summary": summary_table(per_fold, summary, title, notes)}
    of_ten = f" of {PUBLISHED_FOLDS}" if protocol.protocol == "published" and folds < PUBLISHED_FOLDS else ""
    own = f"{protocol.protocol}, {folds}{of_ten} fold{'s' * (folds != 1)}, epoch chosen on val, "
    own += f"backbone {protocol.backbone}" + (f", trained on {protocol.trained_on}" if protocol.trained_on else "")
    all_of_them = protocol.protocol == "published" and per_fold["fold"].nunique() == PUBLISHED_FOLDS
    same_folds = all_of_them and not protocol.trained_on
    if literature := literature_table(summary, protocol.dataset, own, same_folds=same_folds, method=protocol.method):
        tables["literature"] = replace(literature, notes=protocol.notes)
    if per_fold["fold"].nunique() > 1:
        tables["folds"] = replace(fold_table(per_fold, f"{title}, by fold"), notes=protocol.notes)
    return tables


def draw_sections(
    predictions: pd.DataFrame, per_fold: pd.DataFrame, summary: pd.DataFrame, background: Background, label: str
) -> dict[str, list[Plot]]:
    """The page's plots by heading; `label` stands on each. Test sets that repeat are drawn once."""
    predictions = predictions[~predictions["fold"].isin(find_repeats(predictions))]

    def make_plot(name: str, figure: Figure, text: str) -> Plot:
        return Plot(name, png_bytes(figure, label), text)

    scatter = [
        make_plot(
            f"scatter_{dimension}",
            draw_scatter(predictions, dimension),
            f"{dimension}: MOS against prediction, all test images, with the fitted logistic",
        )
        for dimension in dimensions_in(predictions)
    ]
    calibration = draw_calibration(predictions)
    residuals = []
    if predictions["prompt"].str.strip().any():
        figure = draw_residuals(predictions, bin_lengths(predictions["prompt"]), "prompt length")
        text = f"Prediction minus MOS by the prompt's length; {BOXES}"
        residuals.append(make_plot("residuals_prompt_length", figure, text))
    generators = predictions["image"].map(lambda name: background.generators.get(name) or "unknown")
    largest = generators.value_counts().index[:MOST_GENERATORS]
    generators = generators.where(generators.isin(largest), "others")
    if generators.nunique() > 1:
        figure = draw_residuals(predictions, generators, "generator")
        text = f"Prediction minus MOS by generator; {BOXES}"
        residuals.insert(0, make_plot("residuals_generator", figure, text))
    dots = "SRCC and PLCC by fold, with 95 % intervals over test images"
    if len(per_fold["fold"].unique()) > 1:
        dots += "; diamonds: the mean and its interval over folds"
    training = [make_plot("folds", draw_folds(per_fold, summary), dots)]
    if background.curves is not None and len(background.curves):
        text = "Training loss, and SRCC on val, by epoch; thin lines: folds, thick: their mean"
        training.append(make_plot("curves", draw_curves(background.curves), text))
    text = "Mean MOS of ten groups of images with similar predictions; on the dashed line they agree"
    sections = {
        "Predictions and MOS": [*scatter, make_plot("calibration", calibration, text)],
        "Residuals": residuals,
        "Folds and training": training,
    }
    return {heading: plots for heading, plots in sections.items() if plots}
