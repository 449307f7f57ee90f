"""`mgs export`: a checkpoint for onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mgs.cli.scorer_options import CHECKPOINT_HELP, ScorerWords, open_scorer


def export(
    folder: Annotated[Path, typer.Argument(help="where to write")],
    images: Annotated[list[Path] | None, typer.Argument(help="images to compare both ways on")] = None,
    prompt: Annotated[str, typer.Option(help="the prompt of those images")] = "a photo",
    checkpoint: Annotated[Path | None, typer.Option(help=CHECKPOINT_HELP)] = None,
) -> None:
    """Export a checkpoint to ONNX, to score with onnxruntime alone."""
    from mgs.scoring.onnx.export import check_parity, export

    scorer = open_scorer(ScorerWords(checkpoint, ("device=cpu", "precision=fp32")), images or [])
    export(scorer, folder)
    print(f"{folder}: exported {scorer.name}")
    if images:
        worst = check_parity(scorer, folder, [(path, prompt) for path in images])
        print(f"scores of {len(images)} images: off by {worst:.2g} at most")
    print(f"try it without torch: python -m mgs.scoring.onnx.scorer {folder} IMAGE --prompt TEXT")
