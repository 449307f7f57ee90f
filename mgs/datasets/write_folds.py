"""Write folds that `make_folds` makes, so that `find_folds` finds them: a folder is written wholly or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from mgs.datasets.folds import content_sha256
from mgs.datasets.make_folds import SUBSETS, make_folds
from mgs.datasets.samples import Sample, dimensions_of
from mgs.datasets.tables import write_table
from mgs.files import write_json


def write_folds(folder: Path, samples: Sequence[Sample], *, dataset: str, protocol: str, seed: int) -> Path:
    """Make ten folds and write `<folder>/<fold>/{train,val,test}.csv` and protocol.json, all of it or nothing.

    A folder that already holds just that is left as it is; one that holds something else is replaced at the end.
    """
    folds = make_folds(samples, protocol, seed)
    hashes = []
    with whole_folder(folder) as unfinished:
        for number, rows in enumerate(folds, 1):
            subsets = {subset: [samples[i] for i in rows[subset]] for subset in SUBSETS}
            for subset, members in subsets.items():
                write_samples(unfinished / str(number) / f"{subset}.csv", members)
            hashes.append(content_sha256(subsets))
        digest = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
        record = {"dataset": dataset, "protocol": protocol, "seed": seed, "sha256": digest}
        write_json(unfinished / "protocol.json", record)
    return folder


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Write samples in the project's own columns: image, prompt and the dimensions, MOS to the last digit."""
    dimensions = dimensions_of(samples)
    rows: list[list[str | float]] = [["image", "prompt", *dimensions]]
    rows += [[sample.name, sample.prompt, *(sample.targets.get(d, "") for d in dimensions)] for sample in samples]
    write_table(path, rows)


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Write a folder wholly or not at all: yields a hidden sibling, which takes the folder's place on success."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    unfinished, retired = scratch / "new", scratch / "old"
    unfinished.mkdir()
    try:
        yield unfinished
        if folder.exists() and contents(folder) == contents(unfinished):
            return
        if folder.exists():
            folder.rename(retired)
        try:
            unfinished.rename(folder)
        except OSError:
            if retired.exists():
                retired.rename(folder)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path -> bytes of every file below."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
