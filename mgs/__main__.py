"""`python -m mgs COMMAND`: what one does beside training and testing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mgs.data.datasets import facts_of
from mgs.runtime import exit_on_user_error

app = typer.Typer(
    help="Score AI-generated images on quality, authenticity and text-image correspondence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(help="AGIQA-1K, AGIQA-3K or AIGCIQA2023")],
    root: Annotated[Path | None, typer.Option(help="where the download lies; default data/DATASET")] = None,
    protocol: Annotated[str, typer.Option(help="prompt-disjoint or random-image")] = "prompt-disjoint",
    seed: Annotated[int, typer.Option(min=0, help="decides the folds")] = 42,
) -> None:
    """Turn a dataset's official download into one table and ten folds."""
    from mgs.data.prepare import prepare as prepare_dataset

    folder = prepare_dataset(dataset, root or Path(facts_of(dataset).root), protocol=protocol, seed=seed)
    where = f" data.root={root}" if root else ""
    print(f"ten folds: {folder}\ntrain on them with: data.protocol={protocol}{where}")


@app.command()
def demo_data(
    root: Annotated[Path, typer.Argument(help="folder to draw into")] = Path("data/demo"),
    seed: Annotated[int, typer.Option(min=0, help="decides the drawings")] = 7,
) -> None:
    """Draw the demo's pictures, prompts and MOS."""
    from mgs.data.demo import write_demo

    write_demo(root, seed=seed)
    print(f"drawn: {root}")


if __name__ == "__main__":
    exit_on_user_error(app)
