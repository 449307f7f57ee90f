"""`mgs audit`: what is wrong with a dataset's folds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mgs.errors import UserError

if TYPE_CHECKING:
    from mgs.config import Config


def audit(
    place: Annotated[Path, typer.Argument(help="a dataset's folder, such as data/AGIQA-3K, a table, or a config")],
    words: Annotated[list[str] | None, typer.Argument(help="key=value, as for training")] = None,
) -> None:
    """Look for leaks, repeated folds, conflicting MOS and damaged images; exit code 1 if there are any."""
    from mgs.datasets.audit import audit_dataset

    findings = []
    for config in find_audited(place, words or []):
        protocol, found = audit_dataset(data := config.data, config.folds)
        print(f"{data.splits or data.table or data.root}: {data.dataset}, protocol {protocol}", *found, sep="\n")
        findings += found
    if any(finding.kind != "note" for finding in findings):
        raise typer.Exit(1)
    print("clean: no leak, no flaw")


def find_audited(place: Path, words: list[str]) -> list[Config]:
    """The config named, or one for every protocol that the folder has folds for."""
    from mgs.config_files import load_config, load_run
    from mgs.datasets.facts import DATASETS
    from mgs.datasets.folds import PROTOCOLS, fold_folders

    if place.suffix in (".yaml", ".yml"):
        return load_run(place, words)[:1]  # its parts, where it has several targets, are of the same data
    if place.is_file():
        return [load_config(None, [f"data.table={place}", *words])]
    if not place.is_dir():
        raise UserError(f"{place}: no such folder or file; name a dataset's folder, a table, or a config")
    dataset = place.name if place.name in DATASETS else "custom"
    own = ["name=audit", f"data.root={place}", f"data.dataset={dataset}", *words]
    there = [protocol for protocol in PROTOCOLS if fold_folders(place / "splits" / protocol)]
    if not there or any(word.startswith(("data.splits=", "data.protocol=", "data.table=")) for word in words):
        return [load_config(None, own)]
    return [load_config(None, [*own, f"data.protocol={protocol}"]) for protocol in there]
