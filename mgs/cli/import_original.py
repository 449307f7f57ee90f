"""`mgs import-original`: a checkpoint of the original project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_original(
    file: Annotated[Path, typer.Argument(help="a .pt checkpoint of the original project")],
    folder: Annotated[Path, typer.Argument(help="where to write best.safetensors")],
    dataset: Annotated[
        str | None, typer.Option(help="AGIQA-1K, AGIQA-3K or AIGCIQA2023; by default what the file names")
    ] = None,
) -> None:
    """Make a checkpoint of the original project into one of ours."""
    from mgs.training.import_original import import_original as convert

    left_out = convert(file, folder, dataset=dataset)
    print(f"{folder}: imported; score with --checkpoint {folder}")
    if left_out:
        print(f"not used: {', '.join(left_out)}")
