"""`mgs test`: what `python test.py` does, from any folder."""

from __future__ import annotations

from typing import Any

import typer

# the recipe parses every word, also --help
OPTIONS: dict[str, Any] = {
    "context_settings": {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
}


def test(context: typer.Context) -> None:
    """Test what `mgs train` left under runs/ and write the tables; --compare and --checkpoint as in --help."""
    from mgs.recipes.test import main

    main(context.args)
