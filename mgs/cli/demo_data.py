"""`mgs demo-data`: the demo's drawings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo_data(
    root: Annotated[Path, typer.Argument(help="folder to draw into")] = Path("data/demo"),
    seed: Annotated[int, typer.Option(min=0, help="decides the drawings")] = 7,
) -> None:
    """Draw the demo's pictures, prompts and MOS."""
    from mgs.demo.write import write_demo

    write_demo(root, seed=seed)
    print(f"drawn: {root}")
