"""What the words of a command stand for: images, folders, tables, Parquet files, archives, and patterns of them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mgs.errors import UserError
from mgs.progress_bar import progress
from mgs.safe_text import printable
from mgs.sources.archives import ArchiveShard, read_part
from mgs.sources.find_files import choose_images, is_hidden
from mgs.sources.item import Item, Shard, absolute, cut, shard_size
from mgs.sources.members import SUFFIXES
from mgs.sources.parquet import ARROW, ParquetShard, read_parquet, reading
from mgs.sources.places import (
    expand,
    files_below,
    is_folder,
    is_pattern,
    is_remote,
    join,
    name_of,
    open_place,
    parent_of,
    stamp,
)
from mgs.sources.tables import STDIN, TableOptions, TableReader

PARQUET = (".parquet", *ARROW)
TABLES = (".csv", ".tsv", ".xlsx", ".jsonl", ".ndjson", ".json")
BESIDE = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # Hugging Face's tables of a folder's images
JOB = "job.mgs.json"  # lies beside the parts of scores
PART_NAME = re.compile(r"\.?part-(\d{5,})\.(?:parquet|jsonl|partial)")  # of scores
OPENED = 32  # at once, where one of them is a URL
Part = Item | Shard


@dataclass
class Source:
    """Images to score, which can be gone through again and again, in the same order, without holding them all."""

    readers: list[Iterable[Part]]
    count: int | None = field(init=False)  # of images; None where only reading them all would tell
    wants_prompts: bool = field(init=False)  # whether there may be images to which no prompt is given
    listed: int = field(init=False)  # of images that are listed one by one

    def __post_init__(self) -> None:
        """Go through everything once, so that a mistake in the last row is found before anything is scored."""
        known, self.listed, self.wants_prompts = 0, 0, False
        unknown = False
        for part in progress(self.parts(), desc="listing", unit=" files", delay=2, leave=False):
            if isinstance(part, Item):
                self.listed += 1
                self.wants_prompts |= part.prompt is None
            else:
                known, unknown = known + (part.count or 0), unknown or part.count is None
                self.wants_prompts |= part.wants_prompts
        self.count = None if unknown else known + self.listed

    def parts(self) -> Iterator[Part]:
        """Images, and shards of what holds many."""
        for reader in self.readers:
            yield from reader

    def shards(self) -> Iterator[Shard]:
        """All of it in pieces of work."""
        return cut(self.parts(), shard_size(self.listed))

    def items(self) -> Iterator[Item]:
        """All images."""
        return (item for shard in self.shards() for item in shard.items())

    def paths(self) -> Iterator[Path | None]:
        """The image files, None for what holds images."""
        return (Path(part.place) if isinstance(part, Item) else None for part in self.parts())


def find_sources(words: Sequence[str], options: TableOptions, *, table: str | None = None) -> Source:
    """Everything that the words stand for, in their order, and a table, of whatever suffix. Raises `UserError`.

    Hidden files and folders are passed over, unless they are named. Images in a folder whose format cannot be read
    are counted on stderr.
    """
    places = [place for word in words for place in places_of(word)]
    with ThreadPoolExecutor(OPENED) as pool:  # a store takes its time to answer
        reading = (pool.map if any(map(is_remote, places)) else map)(partial(read_place, options=options), places)
        opened = progress(reading, desc="opening", unit="file", total=len(places), delay=2, leave=False)
        readers: list[Iterable[Part]] = [reader for readers in opened for reader in readers]
    if table is not None:
        readers.append(list(read_parquet(table, options)) if is_parquet(table) else TableReader(table, options))
    for name, asked in {"--images": options.images, "--columns": options.columns}.items():
        if asked and not any(isinstance(reader, TableReader) or has_columns(reader) for reader in readers):
            raise UserError(f"{name}: says how tables are read; leave it out, or name a --table")
    if options.images and not is_folder(options.images):
        raise UserError(f"--images {options.images}: no such folder; name the one where the table's image paths begin")
    return Source(readers)


def has_columns(reader: Iterable[Part]) -> bool:
    """Whether a reader is of Parquet."""
    return isinstance(reader, list) and any(isinstance(part, ParquetShard) for part in reader)


def places_of(word: str) -> list[str]:
    """The files and folders that a word stands for."""
    places = expand(word)
    if not is_pattern(word):
        return places
    files = [place for place in places if not is_folder(place) and not is_hidden(place, word)]
    if not files:
        raise UserError(f"{word}: no file fits this pattern; quote it if the shell changes it")
    return files


def read_place(place: str, options: TableOptions) -> list[Iterable[Part]]:
    """What a file or a folder holds; a file of an unknown kind is taken for an image."""
    name = place.lower()
    if place == STDIN or name.endswith(TABLES):
        return [TableReader(place, options)]
    if is_parquet(name):
        return [list(read_parquet(place, options))]
    if name.endswith(SUFFIXES):
        return [[read_archive(place, options)]]
    return read_folder(place, options) if is_folder(place) else [[Item(place, place, options.prompt)]]


def read_archive(file: str, options: TableOptions) -> ArchiveShard:
    """A tar or a zip. Raises `UserError` if it is not there."""
    return ArchiveShard(file, stamp(file), options.prompt)


def is_parquet(name: str) -> bool:
    """Whether a file is Parquet or Arrow, by its name."""
    return name.lower().endswith(PARQUET)


def read_folder(folder: str, options: TableOptions) -> list[Iterable[Part]]:
    """A folder's images, those of its archives where it has none, or else of its Parquet files.

    A table metadata.csv, .jsonl or .parquet with a column file_name decides which images there are in its folder, as in
    Hugging Face's, and so does DiffusionDB's JSON in a folder of its name. Scores are no source.
    """
    files = sorted(file for file in files_below(folder) if not is_hidden(file, folder))
    scored = {parent_of(file) for file in files if name_of(file) == JOB}
    files = [file for file in files if parent_of(file) not in scored or not PART_NAME.fullmatch(name_of(file))]
    beside = {parent_of(file): file for file in files if name_of(file) in BESIDE}
    readers: list[Iterable[Part]] = []
    for place, table in sorted(beside.items()):
        if table in files and (reader := read_metadata_table(table, options)):  # unless one above has it all
            print(printable(f"{place}: its images and prompts are those of {table}"), file=sys.stderr)
            readers.append(reader)
            files = [file for file in files if place != "." and not file.startswith(f"{place}/")]
    images, left_out = choose_images(files)
    archived = [file for file in files if file.lower().endswith(SUFFIXES)]
    tables = [file for file in files if is_parquet(file)]
    if not images and not readers:
        if archived:
            return [[read_archive(file, options) for file in archived]]
        if tables:
            return [[shard for file in tables for shard in read_parquet(file, options)]]
        problem = f"no image that can be read ({left_out})" if left_out else "no image"
        raise UserError(f"{folder}: {problem} in this folder; name another, or the files themselves")
    counts = {"archives": len(archived), "Parquet files": len(tables)}
    others = [f"{count} {kind} (name them to score what is in them)" for kind, count in counts.items() if count]
    if told := ", ".join(filter(None, [left_out, *others])):
        print(f"{printable(folder)}: left out {told}", file=sys.stderr)
    given = {} if options.prompt is not None else prompts_of_parts(files)
    return [*readers, [Item(image, image, given.get(image, options.prompt)) for image in images]]


def read_metadata_table(table: str, options: TableOptions) -> Iterable[Part] | None:
    """A table of a folder's images, if it has a column file_name."""
    if is_parquet(table):
        with reading(table) as opened:
            if "file_name" not in opened.names:
                return None
        return list(read_parquet(table, options))
    reader = TableReader(table, options)
    return reader if "file_name" in reader.column_names() else None


def prompts_of_parts(files: Sequence[str]) -> dict[str, str]:
    """The prompts by image file that DiffusionDB's JSON files give; each is named like the folder of its images."""
    prompts: dict[str, str] = {}
    for file in files:
        folder = parent_of(file)
        if name_of(file).lower() == f"{name_of(absolute(folder))}.json".lower():
            with open_place(file) as stream:
                found = read_part(stream.read())
            prompts |= {join(folder, name): prompt for name, prompt in found.items()}
    return prompts
