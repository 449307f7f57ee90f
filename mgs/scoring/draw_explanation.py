"""An explanation drawn: the joint grid, what raises and lowers levels, and each fragment over the image."""

from __future__ import annotations

import base64
import io
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mgs.dimensions import DIMENSIONS
from mgs.errors import UserError
from mgs.files import whole_file
from mgs.methods.templates import AUTHENTICITY_WORDS, QUALITY_WORDS
from mgs.safe_text import html_template, plain
from mgs.scoring.explanation import PARTS, Explanation, Fragment

COLUMNS = 4
CAPTION_WIDTH = 130  # characters
CELL, LINE = 2.9, 0.16  # inches, of a picture and of a line of the caption
INK, COUNTED, SIGNED = "#222222", "#d55e00", "PuOr"
TINY = 1e-12  # of a map that is 0 everywhere
SIGNS = "levels: purple raises, orange lowers the score"
NO_MAPS = "this image tower shows no tokens, so there are no maps at their resolution"
DPI = 110  # of the picture within a page


def draw_explanation(explanation: Explanation) -> Figure:
    """One figure: image, joint grid and levels above, then the whole prompt and its fragments over the image.

    What no score is made of is left out: an untrained level, and the prompt where correspondence is untrained.
    """
    fragments, levels = explanation.told_fragments, explanation.told_levels
    rows = 1 + -(-(bool(fragments) + len(fragments)) // COLUMNS)
    lines = caption(explanation)
    figure = Figure(figsize=(CELL * COLUMNS, (CELL + 0.35) * rows + 0.5 + LINE * len(lines)), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    grid[0, 0].imshow(as_picture(explanation))
    grid[0, 0].set_title("the image", fontsize=9)
    if levels:
        draw_joint(grid[0, 1], explanation)
    for axes, name in zip(grid[0, 2:], levels, strict=False):
        draw_levels(axes, explanation, name)
    places = iter(grid[1:].flat)
    if fragments:
        draw_whole(next(places), explanation)
    for axes, fragment in zip(places, fragments, strict=False):
        draw_fragment(axes, explanation, fragment)
    figure.suptitle("\n".join(lines), fontsize=9)
    return figure


def caption(explanation: Explanation) -> list[str]:
    """The scores, and those written out that are sums."""
    score = explanation.score
    told = [f"{d} {getattr(score, d):.2f}" for d in DIMENSIONS if getattr(score, d) is not None]
    lines = [", ".join(told), *([] if score.status == "ok" else [score.status])]
    if explanation.prompt:
        lines = [plain(explanation.prompt), *lines]
    lines += sums(explanation)
    if explanation.told_fragments:
        lines.append("prompt: brighter is more alike; a dot per patch, filled for the three that counted")
    lines += [NO_MAPS] if not explanation.maps else [SIGNS] if explanation.told_levels else []
    return [part for line in lines for part in textwrap.wrap(line, CAPTION_WIDTH)]


def sums(explanation: Explanation) -> list[str]:
    """Correspondence and overall written out."""
    lines = []
    if explanation.told_fragments:
        share = explanation.whole_share
        parts = sum(f.weight * f.score for f in explanation.fragments)
        lines.append(
            f"correspondence {explanation.correspondence:.2f} = {share:.2f} x whole prompt {explanation.whole:.2f} "
            f"+ {1 - share:.2f} x fragments {parts:.2f}"
        )
    if explanation.score.overall is not None:
        pairs = zip(PARTS, explanation.shares, strict=True)
        terms = [f"{share:.2f} x {d} {getattr(explanation, d):.2f}" for d, share in pairs]
        lines.append(f"overall {explanation.score.overall:.2f} = {' + '.join(terms)}")
    return lines


def draw_joint(axes: Axes, explanation: Explanation) -> None:
    """The probability of every pair of words."""
    if explanation.joint is None:
        return
    joint = np.array(explanation.joint)
    axes.set_axis_on()
    axes.imshow(joint, cmap="Blues", vmin=0, vmax=max(0.2, joint.max()))
    for (i, j), value in np.ndenumerate(joint):
        if value >= 0.005:
            colour = "white" if value > 0.6 * max(0.2, joint.max()) else INK
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(5), AUTHENTICITY_WORDS, rotation=35, ha="right", fontsize=6.5)
    axes.set_yticks(range(5), QUALITY_WORDS, fontsize=7)
    axes.tick_params(length=0)
    axes.set_title("probability of quality (rows)\nand authenticity (columns)", fontsize=9)


def draw_levels(axes: Axes, explanation: Explanation, name: str) -> None:
    """What raises and lowers a level, with each patch's at its centre; the three lowest marked: they pull it down."""
    picture, maps = as_picture(explanation), explanation.maps
    values = np.array(getattr(explanation, f"patch_{name}"))
    if maps:
        draw_signed(axes, picture, getattr(maps, name).merge())
    else:
        axes.imshow(picture, alpha=0.45)
    lowest = set(np.argsort(values)[:3].tolist())
    for i, value in enumerate(values):
        y, x = spread_centre(explanation.boxes, i, picture.shape[:2])
        edge = COUNTED if i in lowest else "#999999"
        style = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": edge, "alpha": 0.85}
        weight = "bold" if i in lowest else "normal"
        axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=7, fontweight=weight, bbox=style)
    axes.set_title(f"{name}, if all patches were like this one\n(marked: the three that pull it down)", fontsize=8)


def draw_signed(axes: Axes, picture: np.ndarray, found: Tensor, most: float | None = None) -> None:
    """A map of what raises and lowers a score over the grey image, at full colour where it is `most`."""
    values, most = found.numpy(), most or max(float(found.abs().max()), TINY)
    axes.imshow(picture.mean(2), cmap="gray", vmin=-60, vmax=255)
    strength = 0.9 * (np.abs(values) / most).clip(0, 1) ** 0.75
    axes.imshow(values, cmap=SIGNED, vmin=-most, vmax=most, alpha=strength, extent=extent(picture))


def draw_alike(
    axes: Axes, picture: np.ndarray, values: np.ndarray, span: tuple[float | None, float | None] = (None, None)
) -> None:
    """How like a text each place is, over the grey image, from the least alike place to the most, or over `span`."""
    axes.imshow(picture.mean(2), cmap="gray", vmin=-60, vmax=255)
    axes.imshow(values, cmap="viridis", alpha=0.5, extent=extent(picture), vmin=span[0], vmax=span[1])


def draw_whole(axes: Axes, explanation: Explanation) -> None:
    """Where the image is like the whole prompt."""
    picture = as_picture(explanation)
    if explanation.maps and explanation.maps.whole is not None:
        draw_alike(axes, picture, explanation.maps.whole.merge().numpy())
    else:
        axes.imshow(picture)
    axes.set_title(f"the whole prompt\nscore {explanation.whole:.2f}, share {explanation.whole_share:.2f}", fontsize=8)


def draw_fragment(axes: Axes, explanation: Explanation, fragment: Fragment) -> None:
    """Where the image is like the fragment; a dot for each patch, filled for those that counted."""
    picture, maps = as_picture(explanation), explanation.maps
    shape = picture.shape[:2]
    if maps:
        draw_alike(axes, picture, maps.fragments[explanation.fragments.index(fragment)].merge().numpy())
    else:
        draw_alike(axes, picture, heatmap(fragment.patches, explanation.boxes, shape))
    for i in range(len(explanation.boxes)):
        y, x = spread_centre(explanation.boxes, i, shape)
        face = COUNTED if i in fragment.counted else "none"
        axes.plot(x, y, marker="o", markersize=7, markerfacecolor=face, markeredgecolor="white", markeredgewidth=1.2)
    title = textwrap.shorten(plain(fragment.text), 42, placeholder="...")
    axes.set_title(f"{title}\nscore {fragment.score:.2f}, weight {fragment.weight:.2f}", fontsize=8)


def as_picture(explanation: Explanation) -> np.ndarray:
    """The image, uint8 (H, W, 3)."""
    found: np.ndarray = explanation.pixels.permute(1, 2, 0).numpy()
    return found


def extent(picture: np.ndarray) -> tuple[float, float, float, float]:
    """Where a map of any size lies over a picture."""
    height, width = picture.shape[:2]
    return -0.5, width - 0.5, height - 0.5, -0.5


def heatmap(values: list[float], boxes: list[tuple[int, int, int]], shape: tuple[int, int]) -> np.ndarray:
    """Each pixel's mean value over the patches that show it, (H, W); NaN where none does."""
    total, count = np.zeros(shape), np.zeros(shape)
    for value, (top, left, side) in zip(values, boxes, strict=True):
        total[top : top + side, left : left + side] += value
        count[top : top + side, left : left + side] += 1
    return np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)


def spread_centre(boxes: list[tuple[int, int, int]], i: int, shape: tuple[int, int]) -> tuple[float, float]:
    """Where to write about patch `i`, (y, x): patches overlap, so their rows and columns share the image evenly."""
    centres = []
    for axis in (0, 1):
        places = sorted({box[axis] for box in boxes})
        centres.append((places.index(boxes[i][axis]) + 0.5) / len(places) * shape[axis])
    return centres[0], centres[1]


def save_explanation(explanation: Explanation, path: Path) -> None:
    """Draw an explanation into a .png, .pdf or .svg file, or write it as a page, .html. Raises `UserError`."""
    save_drawn(path, lambda: draw_explanation(explanation), lambda: make_page(explanation))


def save_drawn(path: Path, draw: Callable[[], Figure], write: Callable[[], str]) -> None:
    """Save a figure, or where the file's name ends in .html, a page. Raises `UserError`."""
    if path.suffix == ".html":
        content = write().encode()
    elif path.suffix in (".png", ".pdf", ".svg"):
        content = render(draw(), path.suffix[1:], dpi=150)
    else:
        raise UserError(f"{path}: no such kind of picture; end its name in .png, .pdf, .svg or .html")
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def make_page(explanation: Explanation) -> str:
    """One self-contained page: the picture, and every number in tables, for people and screen readers."""
    return html_template("mgs.scoring", "explanation.html.j2").render(
        it=explanation,
        picture=as_base64(draw_explanation(explanation)),
        places=[brightest(one.merge()) for one in explanation.maps.fragments] if explanation.maps else [],
        dimensions=[(d, getattr(explanation.score, d)) for d in DIMENSIONS],
        sums=sums(explanation),
        quality_words=QUALITY_WORDS,
        authenticity_words=AUTHENTICITY_WORDS,
    )


def as_base64(figure: Figure) -> str:
    """A figure as a picture within a page."""
    return base64.b64encode(render(figure, "png", dpi=DPI)).decode()


def brightest(found: Tensor) -> str:
    """Where a map is highest, in words."""
    row, column = divmod(int(found.argmax()), found.shape[1])
    return f"{column / found.shape[1]:.0%} from the left, {row / found.shape[0]:.0%} from the top"


def render(figure: Figure, kind: str, *, dpi: int) -> bytes:
    """A figure as a file's content; a script that matplotlib's font lacks shows as boxes, without a warning each."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format=kind, dpi=dpi)
    return buffer.getvalue()
