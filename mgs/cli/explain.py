"""`mgs explain`: why an image gets its scores, or why images differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mgs.cli.scorer_options import CHECKPOINT_HELP, CLIP_HELP, STYLE_HELP, ScorerWords, open_scorer


def explain(
    images: Annotated[list[Path], typer.Argument(help="the image; several are compared with the first")],
    prompt: Annotated[str | None, typer.Option(help="its prompt; default: the one inside the file")] = None,
    out: Annotated[Path, typer.Option(help="write .png, .pdf, .svg or .html")] = Path("why.png"),
    checkpoint: Annotated[Path | None, typer.Option(help=CHECKPOINT_HELP)] = None,
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="a bare CLIP in place of a checkpoint")] = False,
    clip: Annotated[str | None, typer.Option(help=CLIP_HELP)] = None,
    prompt_style: Annotated[str | None, typer.Option(help=STYLE_HELP)] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="device=... or precision=...")] = None,
) -> None:
    """Show why an image gets its scores, or why several differ: levels, patches, the prompt's fragments over each."""
    from mgs.safe_text import printable
    from mgs.scoring.compare_explanations import compare, names_of
    from mgs.scoring.draw_comparison import save_comparison
    from mgs.scoring.draw_explanation import save_explanation
    from mgs.scoring.explanation import can_explain
    from mgs.scoring.wording import show_score
    from mgs.sources.find_prompt import FINDERS, fill_prompt
    from mgs.sources.item import Item

    scorer = open_scorer(ScorerWords(checkpoint, tuple(settings or ()), zero_shot, clip), images)
    explanations = []
    for image in images:
        content = image.read_bytes() if image.is_file() else None
        item = fill_prompt(Item(str(image), str(image), prompt), FINDERS["metadata"], content)
        explanations.append(scorer.explain(image, item.text, style=prompt_style))
        print(show_score(item, explanations[-1].score, scorer.name))
    if len(images) == 1:
        save_explanation(explanations[0], out)
    elif can_explain(scorer.model):
        comparison = compare(explanations, names_of(images), scorer.model)
        save_comparison(comparison, out)
        print("\n".join(map(printable, comparison.sentences)))
    print(f"{'explained in':<16}{out}")
