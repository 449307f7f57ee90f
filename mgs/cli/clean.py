"""`mgs clean`: remove what training keeps on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def clean(
    folder: Annotated[Path, typer.Argument(help="what data.cache_folder says")] = Path("data/.cache"),
) -> None:
    """Remove the decoded images and activations that training keeps on disk; they are made again when needed."""
    import shutil

    from mgs.data.image_cache import KEPT_ON_DISK
    from mgs.files import folder_bytes

    freed = 0
    for kept in (folder / name for name in KEPT_ON_DISK):
        freed += folder_bytes(kept)
        shutil.rmtree(kept, ignore_errors=True)
    print(f"{folder}: {freed / 1e9:.2f} GB removed")
