"""How a table of images, prompts and MOS becomes checked samples, whose images are found."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from mgs.config import DataConfig
from mgs.datasets.cells import check_std, read_mos, read_name, read_style, read_subset, to_record
from mgs.datasets.columns import SCORES, add_header, choose_columns, choose_scale, refuse_other_split
from mgs.datasets.facts import NEED_A_PROMPT, DatasetFacts, facts_of
from mgs.datasets.samples import Sample, dimensions_of
from mgs.datasets.tables import README, Row, find_file, read_header, read_rows
from mgs.errors import UserError
from mgs.files import Fence

NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
FIRST_NAMED = 3  # missing images that an error names; the others are counted


def read_table(path: Path, data: DataConfig) -> list[Sample]:
    """Read a CSV (UTF-8) or an .xlsx sheet into samples, in the table's order.

    The header, in any case, decides between the dataset's published columns and the project's own: `image,prompt`, any
    of quality, authenticity, correspondence and overall, and perhaps `prompt_style`; other columns are ignored.
    `data.prompt_style` overrides the column, which overrides the dataset's own style. `data.mos_range` is mapped
    onto 0-5, the better end onto 5. In a table of the user's own some MOS may be blank, `prompt` may lack where no
    dimension needs it, MOS may be in a column `mos` or `dmos` (`data.dimension`), and `data.table` may have a column
    `split`. Raises `UserError` with file, row and remedy for whatever is missing, malformed or outside the
    scale; with `data.on_bad_image: skip` a missing image is a sample like any other, and fails on reading.
    """
    return to_samples(read_rows(path), path, data)


def to_samples(rows: Sequence[Row], path: Path, data: DataConfig) -> list[Sample]:
    """Check `rows`, header first, and find their images; `path` is the file that errors name."""
    facts = facts_of(data.dataset)
    scale = choose_scale(data, facts)
    if not rows:
        raise UserError(f"{path}: empty; it must hold a header and rows; {README}")
    rows = add_header(rows, facts)
    places = [f"{path}:{line}" for line, _ in rows]
    header = read_header(rows[0])
    columns = choose_columns(header, facts, data, places[0])
    divided = facts.own and bool(data.table) and not data.splits and "split" in header
    if len(rows) == 1:
        raise UserError(f"{places[0]}: no rows below the header; {README}")
    records = [to_record(header, cells, where) for where, (_, cells) in zip(places, rows, strict=True)][1:]
    places = places[1:]
    if facts.own and data.table and not (divided or data.splits):
        refuse_other_split(header, records, places[0])
    names = [read_name(record, columns.image, where) for where, record in zip(places, records, strict=True)]
    root = Path(data.root or facts.root or path.parent)
    found = find_images(names, root, facts)
    refuse_escapes([image or root / name for image, name in zip(found, names, strict=True)], root, facts, places)
    if data.on_bad_image == "error" and (missing := [i for i, image in enumerate(found) if image is None]):
        named = ", ".join(names[i] for i in missing[:FIRST_NAMED])
        more = f" (and {len(missing) - FIRST_NAMED} more)" if len(missing) > FIRST_NAMED else ""
        remedy = f"set data.root to where paths begin; {README}" if facts.own else README
        raise UserError(f"{places[missing[0]]}: no image {named}{more} under {root}; {remedy}")
    images = [image or root / name for image, name in zip(found, names, strict=True)]  # a missing one fails on reading
    samples = []
    for where, record, name, image in zip(places, records, names, images, strict=True):
        targets = {
            dimension: read_mos(record[column], scale, f"{where}: {column}")
            for dimension, column in columns.targets.items()
            if record[column].strip() or not facts.own  # only in a table of one's own a MOS may be missing
        }
        if not targets:
            raise UserError(f"{where}: no MOS; write {' or '.join(columns.targets)}, or delete the row")
        if not set(SCORES).isdisjoint(columns.targets.values()):
            check_std(record, where)
        prompt = record[columns.prompt] if columns.prompt else ""
        if not prompt.strip() and (judged := [d for d in NEED_A_PROMPT if d in targets]):
            raise UserError(f"{where}: {judged[0]} is judged against the prompt, which is blank; fill it in")
        style = data.prompt_style or read_style(record, where) or facts.prompt_style
        samples.append(Sample(name, image, prompt, style, targets, read_subset(record, where) if divided else ""))
    if blank := [dimension for dimension in columns.targets if dimension not in dimensions_of(samples)]:
        raise UserError(f"{path}: no row has MOS in the column {blank[0]!r}; fill it in, or remove the column")
    return samples


def refuse_escapes(images: Sequence[Path], root: Path, facts: DatasetFacts, places: Sequence[str]) -> None:
    """Raise a `UserError` for the first image outside the image folders, by `..`, an absolute path or a link.

    The folders themselves may be links.
    """
    fences = [Fence(root / folder) for folder in (*facts.image_folders, *facts.numbered_folders)]
    for where, image in zip(places, images, strict=True):
        if not any(fence.holds(image) for fence in fences):
            remedy = "put the file there, link its whole folder, or set data.root to one that holds all images"
            raise UserError(f"{where}: {image} leads out of {root}; {remedy}")


def list_folder(folder: Path) -> set[str]:
    """The names in a folder; none if there is no such folder, or if its name is impossible."""
    try:
        return set(os.listdir(folder))
    except OSError as error:
        if error.errno not in NO_FOLDER:
            raise
        return set()


def find_images(names: Sequence[str], root: Path, facts: DatasetFacts) -> list[Path | None]:
    """Each image's path, None if it is missing; every folder is listed once, and no file is opened."""
    listings: dict[Path, set[str]] = {}

    def exists(path: Path) -> bool:
        if path.parent not in listings:
            listings[path.parent] = list_folder(path.parent)
        return path.name in listings[path.parent]

    folders = [root / folder for folder in facts.image_folders]
    found = [next((folder / name for folder in folders if exists(folder / name)), None) for name in names]
    numbered = [root / folder for folder in facts.numbered_folders if (root / folder).is_dir()]
    if all(found) or not numbered:
        return found
    index = find_file(root, facts.official_table)
    if index is None:
        problem = "numbered images need the index that says which is which"
        raise UserError(f"{numbered[0]}: {problem}; put {facts.official_table} into {root}; {README}")
    positions = {"/".join(cells[:2]): position for position, (_, cells) in enumerate(read_rows(index))}
    for i, name in enumerate(names):
        paths = [folder / f"{positions[name]}.png" for folder in numbered if name in positions]
        found[i] = found[i] or next((path for path in paths if exists(path)), None)
    return found
