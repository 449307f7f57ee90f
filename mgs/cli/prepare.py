"""`mgs prepare`: a dataset's official download as one table and ten folds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def prepare(
    dataset: Annotated[str, typer.Argument(help="AGIQA-1K, AGIQA-3K or AIGCIQA2023")],
    root: Annotated[Path | None, typer.Option(help="where the download lies; default data/DATASET")] = None,
    protocol: Annotated[str, typer.Option(help="prompt-disjoint or random-image")] = "prompt-disjoint",
    seed: Annotated[int, typer.Option(min=0, help="decides the folds")] = 42,
) -> None:
    """Turn a dataset's official download into one table and ten folds."""
    from mgs.data.datasets import facts_of
    from mgs.data.prepare import prepare as prepare_dataset

    folder = prepare_dataset(dataset, root or Path(facts_of(dataset).root), protocol=protocol, seed=seed)
    where = f" data.root={root}" if root else ""
    print(f"ten folds: {folder}\ntrain on them with: data.protocol={protocol}{where}")
