"""Turn a dataset as its authors publish it into one table and ten folds: `python -m mgs prepare AGIQA-3K`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from mgs.config import DataConfig
from mgs.datasets.facts import DATASETS, facts_of
from mgs.datasets.make_folds import KEPT_APART
from mgs.datasets.read_table import read_table, to_samples
from mgs.datasets.samples import Sample
from mgs.datasets.tables import README, Row, find_file, read_rows
from mgs.datasets.write_folds import write_folds, write_samples
from mgs.dimensions import MOS_MAX
from mgs.errors import UserError

MAT_VARIABLE = "MOSz"
MAT_MAX = 100.0  # the .mat files' scale begins at 0
PROMPT_NUMBER = re.compile(r"(\d+)-\d+\.\w+")  # 037-1.png is the first picture of the prompt in row 37, counted from 0
PROMPT_CELL = 2  # in the list of prompts, after category and challenge


def prepare(dataset: str, root: Path, *, protocol: str, seed: int = 42) -> Path:
    """Write `<root>/table.csv` and ten folds under `<root>/splits/<protocol>`; returns that folder.

    `protocol` is prompt-disjoint or random-image. Running it again changes nothing. Raises `UserError` for a dataset
    without an official download, one that is incomplete, and a folder that cannot be written.
    """
    if protocol not in KEPT_APART:
        remedy = f"choose {' or '.join(KEPT_APART)}, or name published folds with --published FOLDER"
        raise UserError(f"--protocol {protocol}: no way to make folds; {remedy}; {README}")
    samples = read_official(dataset, root)
    try:
        write_samples(root / "table.csv", samples)
        return write_folds(root / "splits" / protocol, samples, dataset=dataset, protocol=protocol, seed=seed)
    except OSError as error:
        raise UserError(f"{error.filename or root}: cannot be written ({error.strerror}); check the folder") from None


def read_official(dataset: str, root: Path) -> list[Sample]:
    """All images of an official download under `root`, in its own order, prompts as given and MOS on 0-5.

    Raises `UserError` naming what is missing and where it comes from.
    """
    facts = facts_of(dataset)
    data = DataConfig(dataset=dataset, root=str(root))
    if not facts.official_table:
        known = ", ".join(name for name, row in DATASETS.items() if row.official_table)
        raise UserError(f"dataset {dataset}: no official download to prepare; there is one for {known}; {README}")
    table = find_official(root, facts.official_table, dataset)
    assemble = ASSEMBLED.get(dataset)
    samples = to_samples(assemble(table, root), table, data) if assemble else read_table(table, data)
    if len(samples) != facts.images:
        raise UserError(
            f"{table}: {len(samples)} rows where {dataset} has {facts.images}; download it again; {facts.link}"
        )
    return samples


def find_official(root: Path, pattern: str, dataset: str) -> Path:
    """The file of the official download; `UserError` saying where it comes from if it is not under `root`."""
    path = find_file(root, pattern)
    if path is None:
        raise UserError(f"{root}: no {pattern} of {dataset} there; download it from {facts_of(dataset).link}; {README}")
    return path


def assemble_aigciqa2023(index: Path, root: Path) -> list[Row]:
    """Index, prompts and three .mat files as the rows of one table, in the columns of the published CSVs."""
    columns = DATASETS["AIGCIQA2023"].published
    assert columns is not None
    prompts = find_official(root, "*prompts.xlsx", "AIGCIQA2023")
    texts = [cells[PROMPT_CELL] if len(cells) > PROMPT_CELL else "" for _, cells in read_rows(prompts)]
    images = read_rows(index)
    mos = [
        read_mat(find_official(root, f"{name}.mat", "AIGCIQA2023"), len(images)) for name in columns.targets.values()
    ]
    rows: list[Row] = [(0, columns.all())]
    for (line, cells), *values in zip(images, *mos, strict=True):
        match = PROMPT_NUMBER.fullmatch(cells[-1])
        if not match or int(match[1]) >= len(texts):
            raise UserError(
                f"{index}:{line}: {cells[-1]} is no NNN-k.png with NNN below the {len(texts)} rows of {prompts}"
            )
        rows.append((line, [*cells[:2], texts[int(match[1])], *map(repr, values)]))
    return rows


def read_mat(path: Path, count: int) -> list[float]:
    """MOS on 0-5 from a .mat file that holds `count` values on 0-100 in the variable MOSz."""
    try:
        variables = loadmat(path)
        found = ", ".join(name for name in variables if not name.startswith("__"))
        if MAT_VARIABLE not in variables:
            raise UserError(f"{path}: no variable {MAT_VARIABLE}; found {found}; download it again")
        values = np.asarray(variables[MAT_VARIABLE], dtype=np.float64).ravel()
    except (OSError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable .mat file ({reason}); download it again") from None
    if len(values) != count:
        raise UserError(f"{path}: {len(values)} values for {count} images; download it again")
    outside = np.flatnonzero(~((values >= 0) & (values <= MAT_MAX)))  # NaN too
    if outside.size:
        position, value = outside[0] + 1, values[outside[0]]
        raise UserError(f"{path}: value {position} is {value}, outside 0 to {MAT_MAX:g}; download it again")
    return [float(value) for value in values / (MAT_MAX / MOS_MAX)]


ASSEMBLED: dict[str, Callable[[Path, Path], Sequence[Row]]] = {"AIGCIQA2023": assemble_aigciqa2023}
