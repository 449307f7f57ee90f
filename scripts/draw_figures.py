"""Draw the documentation's pictures from a finished run of the demo, so that every number in them is a real one.

python -m scripts.draw_figures [runs/demo] [docs/images]
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from PIL import Image

from mgs.config_files import load_config
from mgs.dimensions import Prompt
from mgs.engine.engine import Engine, make_engine
from mgs.errors import exit_on_user_error
from mgs.images.cuts import Cuts, window_corners
from mgs.images.decode import read_image
from mgs.machine import Machine
from mgs.methods.fragments import split_prompt
from mgs.methods.mgs import MGS, TOP_PATCHES
from mgs.methods.templates import AUTHENTICITY_AXIS, AUTHENTICITY_WORDS, QUALITY_AXIS, QUALITY_WORDS, joint_probability
from mgs.prompts import clean_prompt
from mgs.training.checkpoint import CHECKPOINT, fold_folder, load_checkpoint

INK, IMAGE, TEXT, PALE = "#222222", "#0072b2", "#d55e00", "#f2f2f2"  # blue and vermilion of Okabe and Ito's palette
TWENTY_FIVE = """25 sentences
A photo of {bad ... perfect} quality
that appears {unrealistic ... highly realistic}."""
SHOWN = 8  # pictures in the README's row
ACROSS, DOWN, TILE, GAP = 8, 5, 150, 4  # of a sheet of pictures; the last two in pixels


def main(argv: Sequence[str]) -> None:
    """Write drawings.jpg, demo.png and method.png."""
    run = Path(argv[0] if argv else "runs/demo")
    out = Path(argv[1] if len(argv) > 1 else "docs/images")
    config = load_config(run / "config.yaml")
    root = Path(config.data.root)
    table = pd.read_csv(run / "report" / "predictions_demo_prompt-disjoint.csv", keep_default_na=False)
    styles = pd.read_csv(root / "splits/prompt-disjoint/1/test.csv", keep_default_na=False).set_index("image")
    table["style"] = styles.loc[table["image"], "prompt_style"].to_numpy()
    out.mkdir(parents=True, exist_ok=True)
    make_sheet([root / str(image) for image in styles.index]).save(out / "drawings.jpg", quality=85)
    draw_gallery(table, root).savefig(out / "demo.png", dpi=100)
    checkpoint = load_checkpoint(fold_folder(run, 1) / CHECKPOINT)
    engine = make_engine(checkpoint.model, checkpoint.config, Machine.choose("cpu"))
    table["parts"] = [len(split_prompt(p, s)) for p, s in zip(table["prompt"], table["style"], strict=True)]
    candidates = table[(table["parts"] == 3) & (table["style"] == "sentence")]
    chosen = candidates.sort_values("correspondence_mos").iloc[len(candidates) * 3 // 4]
    with torch.inference_mode():
        draw_method(engine, chosen, root / str(chosen["image"])).savefig(out / "method.png", dpi=110)


def make_sheet(images: Sequence[Path]) -> Image.Image:
    """Forty of some pictures side by side, spread evenly over them."""
    sheet = Image.new("RGB", (ACROSS * TILE, DOWN * TILE), "white")
    for i in range(ACROSS * DOWN):
        with Image.open(images[i * len(images) // (ACROSS * DOWN)]) as picture:
            small = picture.resize((TILE - GAP, TILE - GAP), Image.Resampling.LANCZOS)
        sheet.paste(small, (i % ACROSS * TILE, i // ACROSS * TILE))
    return sheet


def draw_gallery(table: pd.DataFrame, root: Path) -> Figure:
    """Test pictures from the best to the worst MOS, with each one's scores beside its MOS."""
    dimensions = [d for d in ("quality", "authenticity", "correspondence") if f"{d}_mos" in table]
    order = table[[f"{d}_mos" for d in dimensions]].mean(axis=1).sort_values(ascending=False).index
    rows = table.loc[[order[round(i * (len(order) - 1) / (SHOWN - 1))] for i in range(SHOWN)]]
    figure = Figure(figsize=(14, 3.4), layout="constrained")
    grid = figure.add_gridspec(2, SHOWN, height_ratios=[3, 1.5])
    for i, row in enumerate(rows.to_dict("records")):
        picture = figure.add_subplot(grid[0, i])
        picture.imshow(read_image(root / row["image"]).permute(1, 2, 0).numpy())
        picture.set_title("\n".join(wrap(row["prompt"], 25, lines=3)), fontsize=7.5, color=INK)
        picture.set_axis_off()
        bars = figure.add_subplot(grid[1, i])
        for y, dimension in enumerate(reversed(dimensions)):
            score, mos = row[f"{dimension}_pred"], row[f"{dimension}_mos"]
            bars.barh(y, score, height=0.62, color=IMAGE)
            bars.plot([mos, mos], [y - 0.45, y + 0.45], color=TEXT, linewidth=2.5)
            bars.text(5.1, y, f"{score:.1f}", va="center", fontsize=8, color=INK)
        names = list(reversed(dimensions)) if i == 0 else [""] * len(dimensions)
        bars.set_yticks(range(len(dimensions)), names, fontsize=8)
        bars.set(xlim=(0, 5.9), xticks=(0, 2.5, 5))
        bars.tick_params(axis="x", labelsize=7)
        bars.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("bar: score, line: MOS (0-5)", fontsize=8)
    return figure


def wrap(text: str, width: int, *, lines: int) -> list[str]:
    """At most so many lines, the last one cut short with an ellipsis."""
    return textwrap.wrap(clean_prompt(text), width, max_lines=lines, placeholder=" ...")


def draw_method(engine: Engine, row: pd.Series, path: Path) -> Figure:
    """One picture's way through MGS, left to right: views and texts, towers, the two branches, the scores."""
    image = read_image(path)
    prompt = Prompt(str(row["prompt"]), str(row["style"]))
    whole, fragments = clean_prompt(prompt.text), split_prompt(prompt.text, prompt.style)
    model, batch = engine.method, engine.stage([image], [prompt])
    assert isinstance(model, MGS)
    scores = {name: value.item() for name, value in engine.score(batch).items()}
    found = model.compare(*engine.embed(batch.parts[0]))
    joint = joint_probability((found.levels_whole + found.levels_patches.mean(1))[0] / 2, model.temperature)
    fragment_patch, weights = found.fragments[0], found.weights[0]  # (F, P), (F,)

    figure = Figure(figsize=(15, 7.4))
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set(xlim=(0, 150), ylim=(0, 74))
    canvas.set_axis_off()

    inputs = figure.add_axes((0.015, 0.46, 0.19, 0.40))
    draw_windows(inputs, image, engine.cuts)
    canvas.text(2, 66, "image: view 0, and nine 384-pixel patches", fontsize=9, color=IMAGE, ha="left")
    sentence = "A photo of {bad ... perfect} quality\nthat appears {unrealistic ... highly realistic}."
    box(canvas, (1.5, 22.5, 29, 7), f"25 sentences\n{sentence}", TEXT)
    chips = "\n".join(f"{i}  {fragment}" for i, fragment in enumerate(fragments, 1))
    box(canvas, (1.5, 3, 29, 16), "\n".join([*wrap(f"prompt: {whole}", 44, lines=3), "fragments:", chips]), TEXT)

    box(canvas, (37, 44, 15, 14), "CLIP\nimage tower\n\nfirst half of the\nblocks frozen", IMAGE)
    box(canvas, (37, 11, 15, 14), "CLIP\ntext tower\n\nfirst half of the\nblocks frozen", TEXT)
    for start, end, colour in [
        ((28.5, 51), (36.5, 51), IMAGE),
        ((31, 26), (36.5, 20), TEXT),
        ((31, 11), (36.5, 16), TEXT),
        ((52.5, 53), (62, 58), IMAGE),
        ((52.5, 48), (62, 27), IMAGE),
        ((52.5, 20), (62, 47), TEXT),
        ((52.5, 16), (62, 20), TEXT),
    ]:
        arrow(canvas, start, end, colour)

    heat = figure.add_axes((0.47, 0.59, 0.23, 0.31))
    draw_joint(heat, joint)
    canvas.text(62, 69, "joint probability of 25 sentences", fontsize=10, color=INK)
    similarity = figure.add_axes((0.47, 0.16, 0.21, 0.26))
    draw_fragments(similarity, fragment_patch, weights)
    canvas.text(62, 34, f"fragments against patches: the best {TOP_PATCHES} count", fontsize=10, color=INK)

    quality = joint.sum(AUTHENTICITY_AXIS)
    authenticity = joint.sum(QUALITY_AXIS)
    whole_cosine = found.whole.item()
    parts = (weights * fragment_patch.topk(TOP_PATCHES, -1).values.mean(-1)).sum().item()
    share = model.alpha.sigmoid().item()
    marginals = [
        ("quality", quality, scores["quality"], row["quality_mos"], 58),
        ("authenticity", authenticity, scores["authenticity"], row["authenticity_mos"], 46),
    ]
    for name, probability, score, mos, y in marginals:
        terms = ", ".join(f"{p:.2f}" for p in probability.tolist())
        box(
            canvas,
            (116, y, 32, 9),
            f"{name} {score:.2f}   (MOS {mos:.2f})\nmarginal {terms}\nexpected level, 0 to 5",
            INK,
        )
        arrow(canvas, (106, y + 4.5), (115, y + 4.5), INK)
    lines = [
        f"correspondence {scores['correspondence']:.2f}   (MOS {row['correspondence_mos']:.2f})",
        f"5 (a g + (1 - a) f),  a = {share:.2f}",
        f"g = {whole_cosine:.2f}  whole prompt, whole image",
        f"f = {parts:.2f}  weighted fragments",
    ]
    box(canvas, (116, 15, 32, 13), "\n".join(lines), INK)
    arrow(canvas, (110.5, 21.5), (115, 21.5), INK)
    return figure


def draw_windows(axes: Axes, image: torch.Tensor, cuts: Cuts) -> None:
    """The picture with the windows of the nine patches, a little apart so that all can be seen."""
    axes.imshow(image.permute(1, 2, 0).numpy())
    for i, (y, x) in enumerate(window_corners(image.shape, cuts)):
        inset = 3 * i
        side = cuts.side - 2 * inset
        axes.add_patch(
            Rectangle((x + inset, y + inset), side, side, fill=False, edgecolor=IMAGE, linewidth=0.9, alpha=0.9)
        )
    axes.set_axis_off()


def draw_joint(axes: Axes, joint: torch.Tensor) -> None:
    """The 5x5 grid, quality down and authenticity across."""
    axes.imshow(joint.numpy(), cmap="Blues", vmin=0, aspect="auto")
    for i in range(5):
        for j in range(5):
            dark = joint[i, j] > 0.6 * joint.max()
            axes.text(
                j, i, f"{joint[i, j] * 100:.1f}", ha="center", va="center", fontsize=7, color="white" if dark else INK
            )
    axes.set_yticks(range(5), QUALITY_WORDS, fontsize=7.5)
    short = [word.replace(" ", "\n") for word in AUTHENTICITY_WORDS]
    axes.set_xticks(range(5), short, fontsize=6.5)
    axes.set_xlabel("percent", fontsize=7)


def draw_fragments(axes: Axes, similarity: torch.Tensor, weights: torch.Tensor) -> None:
    """Fragments down, patches across; the patches that count are framed, the weights stand at the right."""
    low, high = similarity.min().item(), similarity.max().item()
    reach = 2 * high - low  # beyond the highest, so that the numbers are legible on their colour
    axes.imshow(similarity.numpy(), cmap="Oranges", aspect="auto", vmin=low, vmax=reach)
    for i, row in enumerate(similarity):
        best = row.topk(TOP_PATCHES).indices.tolist()
        for j in range(len(row)):
            axes.text(j, i, f"{row[j]:.2f}", ha="center", va="center", fontsize=7, color=INK)
            if j in best:
                axes.add_patch(Rectangle((j - 0.47, i - 0.45), 0.94, 0.9, fill=False, edgecolor=INK, linewidth=1.4))
        axes.text(len(row) - 0.35, i, f"weight {weights[i]:.2f}", va="center", fontsize=7.5, color=INK)
    axes.set_yticks(range(len(similarity)), [f"fragment {i + 1}" for i in range(len(similarity))], fontsize=7.5)
    axes.set_xticks(range(similarity.shape[1]), [str(i + 1) for i in range(similarity.shape[1])], fontsize=7.5)
    axes.set_xlabel("patch", fontsize=7.5)


def box(axes: Axes, place: tuple[float, float, float, float], text: str, colour: str) -> None:
    """A rounded box with text in its middle; `place` is left, bottom, width, height."""
    left, bottom, width, height = place
    style: dict[str, Any] = {"boxstyle": "round,pad=0.2,rounding_size=1", "facecolor": PALE, "edgecolor": colour}
    axes.add_patch(FancyBboxPatch((left, bottom), width, height, linewidth=1.4, **style))
    axes.text(left + width / 2, bottom + height / 2, text, ha="center", va="center", fontsize=8.5, color=INK)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    """From start to end."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color=colour, linewidth=1.4))


if __name__ == "__main__":
    exit_on_user_error(main, sys.argv[1:])
