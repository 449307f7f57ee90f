"""The report as one HTML file: figures, tables and pictures inside it, no script, and nothing fetched."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from mgs.evaluation.per_fold import dimensions_in, with_mos
from mgs.evaluation.tables import Table
from mgs.safe_text import html_template

SHOWN = 6  # images in each row of the gallery
THUMBNAIL = 224  # pixels, the longer side
JPEG_QUALITY = 75


@dataclass(frozen=True)
class Picture:
    """One test image to show: its pixels, uint8 (3, H, W), and its prompt's fragments."""

    pixels: np.ndarray
    fragments: list[str]


ShowImage = Callable[[int, str], Picture]  # by fold and image name


@dataclass(frozen=True)
class Plot:
    """A figure as PNG, what it is called in file names, and what it shows, for those who cannot see it."""

    name: str
    png: bytes
    text: str


@dataclass(frozen=True)
class Section:
    """A part of a page: what it is about, its tables, then its plots."""

    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    text: str = ""


def render_page(
    title: str,
    sections: Mapping[str, Section],
    gallery: Mapping[str, Mapping[str, list[dict]]],
    facts: Mapping[str, Sequence[str]],
) -> str:
    """The whole page: `sections` by heading, the gallery, and lists of `facts`."""
    template = html_template("mgs.evaluation", "report.html.j2")
    return template.render(title=title, sections=sections, gallery=gallery, facts=facts, base64=encode_base64)


def encode_base64(data: bytes) -> str:
    """Bytes as a page can hold them."""
    return base64.b64encode(data).decode()


def choose_gallery(predictions: pd.DataFrame, show: ShowImage) -> dict[str, dict[str, list[dict]]]:
    """Dimension -> row of the gallery -> its images, each a mapping that the template shows.

    Ranks are within an image's fold, since each fold has a model of its own; no image is shown twice in one row.
    """
    cards: dict[tuple[int, str], dict] = {}
    return {
        dimension: {
            heading: [
                add_ranks(cards.setdefault((row["fold"], row["image"]), make_card(row, show)), row)
                for row in rows.head(SHOWN).to_dict("records")
            ]
            for heading, rows in order_images(predictions, dimension).items()
        }
        for dimension in dimensions_in(predictions)
    }


def order_images(predictions: pd.DataFrame, dimension: str) -> dict[str, pd.DataFrame]:
    """The gallery's three rows for one dimension: all images in their order, an image of several folds once."""
    predictions = with_mos(predictions, dimension)
    folds = predictions.groupby("fold")
    score, mos = f"{dimension}_pred", f"{dimension}_mos"
    ranked = predictions.assign(
        of=folds[score].transform("size"),
        score_rank=folds[score].rank(ascending=False, method="min").astype(int),
        mos_rank=folds[mos].rank(ascending=False, method="min").astype(int),
    )
    ranked["misplaced"] = (ranked["score_rank"] - ranked["mos_rank"]).abs() / ranked["of"]

    def order(column: str, *, ascending: bool) -> pd.DataFrame:
        return ranked.sort_values(column, ascending=ascending, kind="stable").drop_duplicates("image")

    return {
        "Highest scores": order(score, ascending=False),
        "Lowest scores": order(score, ascending=True),
        "Most wrongly ordered": order("misplaced", ascending=False),
    }


def make_card(row: Mapping, show: ShowImage) -> dict:
    """What the gallery shows of an image, except for its ranks."""
    picture = show(row["fold"], row["image"])
    thumbnail = Image.fromarray(np.ascontiguousarray(picture.pixels.transpose(1, 2, 0)))
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    thumbnail.save(buffer, "JPEG", quality=JPEG_QUALITY)
    scores = [
        (dimension, row[f"{dimension}_pred"], row[f"{dimension}_mos"])
        for dimension in (name.removesuffix("_pred") for name in row if str(name).endswith("_pred"))
    ]
    return {
        "fold": row["fold"],
        "image": row["image"],
        "prompt": row["prompt"],
        "fragments": picture.fragments,
        "scores": scores,
        "width": thumbnail.width,
        "height": thumbnail.height,
        "jpeg": buffer.getvalue(),
    }


def add_ranks(card: dict, row: Mapping) -> dict:
    """The card with the ranks of the dimension it is shown for."""
    return {**card, **{key: row[key] for key in ("score_rank", "mos_rank", "of")}}
