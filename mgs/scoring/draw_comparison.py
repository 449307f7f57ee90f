"""Images side by side, with what makes the differences between their scores."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mgs.dimensions import DIMENSIONS
from mgs.safe_text import html_template, plain
from mgs.scoring.compare_explanations import Comparison, Difference
from mgs.scoring.draw_explanation import (
    CELL,
    SIGNS,
    TINY,
    as_base64,
    as_picture,
    draw_alike,
    draw_signed,
    save_drawn,
)

UP, DOWN = "#5e3c99", "#e66101"  # the ends of PuOr, in which maps are drawn
TITLE_WIDTH, LABEL_WIDTH, SENTENCE_WIDTH = 44, 20, 44  # characters, in one column


def save_comparison(comparison: Comparison, path: Path) -> None:
    """Draw images side by side into a .png, .pdf or .svg file, or write a page, .html. Raises `UserError`."""
    save_drawn(path, lambda: draw_comparison(comparison), lambda: make_comparison_page(comparison))


def draw_comparison(comparison: Comparison) -> Figure:
    """A column for each image: the image, maps on one scale a row, and bars of what makes the differences."""
    maps = list(rows_of_maps(comparison))
    told = comparison.dimensions
    bars = [0.7 + 0.17 * max(len(one.parts) for one in comparison.of(d) if one) for d in told]
    heights = [CELL + 0.4, *bars, *[CELL - 0.1] * len(maps)]
    columns = len(comparison.names)
    size = (CELL * columns, sum(heights) + 0.2 * len(comparison.sentences))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, name, explanation in zip(grid[0], comparison.names, comparison.explanations, strict=True):
        axes.imshow(as_picture(explanation))
        pairs = [(d, getattr(explanation.score, d)) for d in DIMENSIONS]
        scores = "\n".join(f"{d} {value:.2f}" for d, value in pairs if value is not None)
        axes.set_title(f"{shorten(name)}\n{scores}", fontsize=8)
    for row, dimension in zip(grid[1:], told, strict=False):
        words = f"what makes\n{dimension} differ\nfrom this image's"
        row[0].text(0.5, 0.5, words, ha="center", va="center", fontsize=8, transform=row[0].transAxes)
        for axes, difference in zip(row[1:], comparison.of(dimension), strict=True):
            if difference:
                draw_parts(axes, difference)
    for row, (title, signed, found) in zip(grid[1 + len(told) :], maps, strict=True):
        draw_row(row, title, comparison, found, signed=signed)
    lines = [*map(plain, comparison.sentences), *([SIGNS] if maps else [])]
    width = SENTENCE_WIDTH * columns
    figure.suptitle("\n".join(part for line in lines for part in textwrap.wrap(line, width)), fontsize=8)
    return figure


def rows_of_maps(comparison: Comparison) -> Iterator[tuple[str, bool, list[Tensor]]]:
    """A title, whether 0 is a map's middle, and a map an image; of the prompt's only where all have one prompt."""
    maps = [one.maps for one in comparison.explanations]
    if any(one is None for one in maps):
        return
    every = [one for one in maps if one]
    prompts = {one.prompt for one in comparison.explanations}
    if len(prompts) == 1 and all(one.whole is not None for one in every):
        yield "the whole prompt", False, [one.whole.merge() for one in every if one.whole is not None]
        for i, fragment in enumerate(comparison.explanations[0].fragments):
            yield fragment.text, False, [one.fragments[i].merge() for one in every]
    for name in ("quality", "authenticity"):
        if name in comparison.dimensions:
            yield name, True, [getattr(one, name).merge() for one in every]


def draw_row(row: Sequence[Axes], title: str, comparison: Comparison, found: Sequence[Tensor], *, signed: bool) -> None:
    """One kind of map over each image, all on one scale."""
    most = max(float(one.abs().max()) for one in found) or TINY
    span = min(float(one.min()) for one in found), max(float(one.max()) for one in found)
    for axes, explanation, one in zip(row, comparison.explanations, found, strict=True):
        if signed:
            draw_signed(axes, as_picture(explanation), one, most)
        else:
            draw_alike(axes, as_picture(explanation), one.numpy(), span)
        axes.set_title(shorten(title), fontsize=8)


def draw_parts(axes: Axes, difference: Difference) -> None:
    """The parts of a difference as bars, from the top in their order."""
    axes.set_title(f"{difference.dimension} {difference.total:+.2f}", fontsize=8)
    if not difference.parts:
        axes.text(0.5, 0.5, "the prompts differ", ha="center", va="center", fontsize=8, transform=axes.transAxes)
        return
    values = [part.difference for part in difference.parts]
    axes.barh(range(len(values)), values, color=[UP if value > 0 else DOWN for value in values])
    axes.axvline(0, color="#222222", linewidth=0.8)
    for i, part in enumerate(difference.parts):  # beside the axis, where the bar is not
        name, side = shorten(part.name, LABEL_WIDTH), "right" if part.difference > 0 else "left"
        text = axes.text(0, i, f" {name} {part.difference:+.2f} ", ha=side, va="center", fontsize=6.5)
        text.set_in_layout(False)
    reach = max(map(abs, values)) or TINY
    axes.set_xlim(-reach, reach)
    axes.invert_yaxis()


def shorten(text: str, width: int = TITLE_WIDTH) -> str:
    """A text for a title or beside a bar, that long at most."""
    text = " ".join(text.split())
    return plain(text if len(text) <= width else f"{text[: width - 3]}...")


def make_comparison_page(comparison: Comparison) -> str:
    """One self-contained page: the picture, the differences in words, and every part in tables."""
    return html_template("mgs.scoring", "comparison.html.j2").render(
        it=comparison,
        picture=as_base64(draw_comparison(comparison)),
        dimensions=[d for d in DIMENSIONS if any(getattr(one.score, d) is not None for one in comparison.explanations)],
    )
