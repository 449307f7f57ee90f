"""`mgs clean`: remove what training keeps on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def clean(
    folder: Annotated[Path, typer.Argument(help="what data.cache_folder says")] = Path("data/.cache"),
) -> None:
    """Remove the decoded images and activations that training keeps on disk; they are made again when needed."""
    from mgs.images.cache import remove_cache

    if not folder.is_dir():
        print(f"{folder}: no such folder, so there is nothing to remove")
        return
    print(f"{folder}: {remove_cache(folder) / 1e9:.2f} GB removed")
