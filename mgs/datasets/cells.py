"""Read a row's cells: a name, a style, a subset, a MOS. An invalid cell is a `UserError` with file and row."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from mgs.dimensions import MOS_MAX, PROMPT_STYLES
from mgs.errors import UserError

FULL_SCALE = [0.0, MOS_MAX]
SUBSET_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def to_record(header: list[str], cells: list[str], where: str) -> dict[str, str]:
    """Column -> cell."""
    if len(cells) != len(header):
        problem = f"{len(cells)} fields where the header has {len(header)}"
        raise UserError(f"{where}: {problem}; put text that holds the separator in quotation marks")
    return dict(zip(header, cells, strict=True))


def read_name(record: dict[str, str], columns: tuple[str, ...], where: str) -> str:
    """The image's path as the table gives it, with forward slashes."""
    parts = [record[column].strip().replace("\\", "/") for column in columns]
    if not all(parts):
        raise UserError(f"{where}: blank {columns[parts.index('')]}; name the image, or delete the row")
    if CONTROL.search(name := "/".join(parts)):
        raise UserError(f"{where}: the image's name {name[:60]!r} holds control characters; rename the file")
    return name


def read_style(record: dict[str, str], where: str) -> str:
    """The row's own prompt style, "" where it has none."""
    style = record.get("prompt_style", "").strip()
    if style and style not in PROMPT_STYLES:
        raise UserError(f"{where}: prompt_style is {style!r}; write {', '.join(PROMPT_STYLES)} or nothing")
    return style


def read_subset(record: dict[str, str], where: str) -> str:
    """Which of train, val and test the row is in, by its column split."""
    text = record["split"].strip()
    if text.casefold() not in SUBSET_NAMES:
        raise UserError(f"{where}: split is {text!r}; write train, val or test, or rename the column")
    return SUBSET_NAMES[text.casefold()]


def check_std(record: dict[str, str], where: str) -> None:
    """Raise a `UserError` where the column std, of MOS's standard deviations, has what cannot be one; blank is none."""
    text = record.get("std", "").strip()
    if text and not 0 <= read_number(text) < math.inf:
        raise UserError(f"{where}: std is {text!r}; write a number, 0 or more, or nothing")


def read_number(text: str, *, decimal_comma: bool = True) -> float:
    """The number in a cell, NaN where there is none; "3,4" is read as 3.4 if that is allowed."""
    if decimal_comma and DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    try:
        return math.nan if "_" in text else float(text)  # Python reads 3_5 as 35
    except ValueError:
        return math.nan


def read_mos(text: str, scale: Sequence[float], where: str) -> float:
    """A cell as MOS on 0-5, mapped linearly from `scale`, its worst and its best; "3,4" is read as 3.4."""
    worst, best = scale
    lowest, highest = sorted(scale)
    value = read_number(text, decimal_comma=highest < 1000)  # on a wider scale the comma may separate thousands
    if not math.isfinite(value):
        raise UserError(f"{where} is {text!r}; write a number from {lowest:g} to {highest:g}, or delete the row")
    if not lowest <= value <= highest:
        remedy = "correct it, or read the table as data.dataset=custom with data.mos_range=[worst,best]"
        raise UserError(f"{where} is {text}, outside {lowest:g} to {highest:g}; {remedy}")
    if [worst, best] == FULL_SCALE:
        return value  # dividing by 5 and multiplying again could change the last digit
    return (value - worst) / (best - worst) * MOS_MAX
