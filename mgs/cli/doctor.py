"""`mgs doctor`: what is installed and found, and whether scoring works."""

from __future__ import annotations

from pathlib import Path

import typer


def doctor() -> None:
    """Say what is installed and found, and test the scoring of a known drawing; exit code 1 if something is wrong."""
    from mgs.scoring.doctor import BAD, examine

    wrong = 0
    for verdict in examine(Path("runs")):
        print(verdict, flush=True)
        wrong += verdict.kind == BAD
    print("all well" if not wrong else f"{wrong} problem{'s' * (wrong != 1)}; each line says what to do or what failed")
    if wrong:
        raise typer.Exit(1)
