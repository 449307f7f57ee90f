"""The command `mgs`: one file for each of its commands. `python -m mgs COMMAND`, or `mgs COMMAND` once installed.

A command's file imports what it runs inside the command, so that `mgs --help` need not load torch.
"""

from __future__ import annotations

import typer

from mgs.cli import (
    audit,
    clean,
    demo_data,
    doctor,
    explain,
    export,
    filter,
    import_original,
    prepare,
    score,
    serve,
    test,
    train,
)
from mgs.errors import exit_on_user_error

app = typer.Typer(
    help="Score AI-generated images on quality, authenticity and text-image correspondence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(score.score)
app.command()(filter.filter)
app.command()(explain.explain)
app.command()(serve.serve)
app.command(**train.OPTIONS)(train.train)
app.command(**test.OPTIONS)(test.test)
app.command()(prepare.prepare)
app.command()(audit.audit)
app.command()(doctor.doctor)
app.command()(export.export)
app.command()(import_original.import_original)
app.command()(demo_data.demo_data)
app.command()(clean.clean)


def main() -> None:
    """The command `mgs`."""
    exit_on_user_error(app)
