"""`mgs prepare`: a dataset's official download as one table and ten folds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mgs.errors import UserError


def prepare(
    dataset: Annotated[str, typer.Argument(help="AGIQA-1K, AGIQA-3K, AIGCIQA2023 or AIGIQA-20K")],
    root: Annotated[Path | None, typer.Option(help="where the download lies; default data/DATASET")] = None,
    protocol: Annotated[str | None, typer.Option(help="prompt-disjoint, the default, or random-image")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="decides the folds; default 42")] = None,
    published: Annotated[Path | None, typer.Option(help="a folder of ten published folds to check and link")] = None,
) -> None:
    """Turn a dataset's official download into one table and ten folds, or put published folds in their place."""
    from mgs.datasets.facts import facts_of
    from mgs.datasets.prepare import prepare as prepare_dataset
    from mgs.datasets.published import place_published

    if published and not (protocol is None and seed is None):
        raise UserError("--published: takes folds as they are; leave out --protocol and --seed")
    place = root or Path(facts_of(dataset).root)
    if published:
        folder, protocol = place_published(dataset, place, published), "published"
    else:
        protocol = protocol or "prompt-disjoint"
        folder = prepare_dataset(dataset, place, protocol=protocol, seed=42 if seed is None else seed)
    where = f" data.root={root}" if root else ""
    print(f"ten folds: {folder}\ntrain on them with: data.protocol={protocol}{where}")
