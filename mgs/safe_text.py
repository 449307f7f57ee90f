"""Make untrusted text harmless where it is shown: in terminals, in spreadsheets, in HTML."""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2
    import pandas as pd

FORMULA = re.compile(r"'*[=+\-@＝＋－＠]")  # the start of a cell that spreadsheets compute
QUOTED_FORMULA = re.compile(r"'+[=+\-@＝＋－＠]")
LONGEST = 1500  # characters of an error
PICTURES = {code: 0x2400 + code for code in range(32)} | {0x7F: 0x2421}  # such as ␛, for the control characters
PICTURES |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
IN_CELLS = {code: picture for code, picture in PICTURES.items() if code != ord("\n")}
DIRECTIONS = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD)  # they reorder what follows


def printable(text: str) -> str:
    """Text for a terminal: what could move its cursor, change its title or reorder its line is written as escapes."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str) -> str:
    """An error's text on one line; a long one loses its middle, since the remedy is at its end."""
    text = " ".join(text.splitlines())
    return text if len(text) <= LONGEST else f"{text[: LONGEST * 2 // 3]} ... {text[-LONGEST // 3 :]}"


def safe_cell(text: str) -> str:
    """Text for a CSV: control characters as pictures, and an apostrophe before what a spreadsheet would compute."""
    text = text.translate(IN_CELLS)
    return f"'{text}" if FORMULA.match(text) else text


def original_cell(cell: str) -> str:
    """The text that `safe_cell` made this from, except for control characters."""
    return cell[1:] if QUOTED_FORMULA.match(cell) else cell


def safe_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table with all its texts through `safe_cell`."""
    return table.map(lambda value: safe_cell(value) if isinstance(value, str) else value)


def visible(value: Any) -> Any:
    """A value for HTML: text without control characters that do something; markup as it is."""
    if not isinstance(value, str) or hasattr(value, "__html__"):  # markupsafe's mark of text that is HTML already
        return value
    pictures = {code: picture for code, picture in PICTURES.items() if chr(code) not in "\n\t"}
    return value.translate(pictures | DIRECTIONS)


def html_template(package: str, name: str) -> jinja2.Template:
    """A template of the package, in which every text that it is given is escaped and made visible."""
    import jinja2  # here, so that errors, which need this file, can be shown without loading it

    text = (resources.files(package) / name).read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=visible)
    return environment.from_string(text)


def plain(text: str) -> str:
    """Text that matplotlib shows unchanged, and does not read as mathematics."""
    return visible(text).encode("utf-8", "replace").decode().replace("$", r"\$")
