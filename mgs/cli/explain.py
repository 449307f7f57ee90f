"""`mgs explain`: why an image gets its scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mgs.cli.scorer_options import CHECKPOINT_HELP, CLIP_HELP, STYLE_HELP, ScorerWords, open_scorer


def explain(
    image: Annotated[Path, typer.Argument(help="the image")],
    prompt: Annotated[str | None, typer.Option(help="its prompt; default: the one inside the file")] = None,
    out: Annotated[Path, typer.Option(help="write .png, .pdf, .svg or .html")] = Path("why.png"),
    checkpoint: Annotated[Path | None, typer.Option(help=CHECKPOINT_HELP)] = None,
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="a bare CLIP in place of a checkpoint")] = False,
    clip: Annotated[str | None, typer.Option(help=CLIP_HELP)] = None,
    prompt_style: Annotated[str | None, typer.Option(help=STYLE_HELP)] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="device=... or precision=...")] = None,
) -> None:
    """Show why an image gets its scores: levels, patches, and the prompt's fragments over the image."""
    from mgs.scoring.draw_explanation import save_explanation
    from mgs.scoring.wording import show_score
    from mgs.sources.find_prompt import FINDERS, fill_prompt
    from mgs.sources.item import Item

    scorer = open_scorer(ScorerWords(checkpoint, tuple(settings or ()), zero_shot, clip), [image])
    content = image.read_bytes() if image.is_file() else None
    item = fill_prompt(Item(str(image), str(image), prompt), FINDERS["metadata"], content)
    explanation = scorer.explain(image, item.text, style=prompt_style)
    save_explanation(explanation, out)
    print(show_score(item, explanation.score, scorer.name))
    print(f"{'explained in':<16}{out}")
