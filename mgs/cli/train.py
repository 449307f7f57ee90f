"""`mgs train`: what `python train.py` does, from any folder."""

from __future__ import annotations

from typing import Any

import typer

# the recipe parses every word, also --help
OPTIONS: dict[str, Any] = {
    "context_settings": {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
}


def train(context: typer.Context) -> None:
    """Train the datasets under data/, or the configs named; the demo where there is neither."""
    from mgs.recipes.train_by_tasks import main

    main(context.args)
