"""What a table's columns hold: which have image, prompt and MOS, and on which scale MOS is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mgs.config import DataConfig
from mgs.datasets.cells import FULL_SCALE, SUBSET_NAMES, read_number
from mgs.datasets.facts import NEED_A_PROMPT, Columns, DatasetFacts
from mgs.datasets.tables import README, Row, name_columns
from mgs.dimensions import DIMENSIONS, Dimension
from mgs.errors import UserError

SCORES = ("mos", "dmos")  # columns that do not say what they judge, as image-quality sets have them
RANGE = "data.mos_range=[lowest,highest]"
LIKE_PROMPT = ("text", "caption", "captions", "description")  # other names that tables have for prompts


def add_header(rows: Sequence[Row], facts: DatasetFacts) -> Sequence[Row]:
    """The rows, below a header where the dataset's official table has none: its first row ends with a number then."""
    first = rows[0][1]
    if len(first) == len(facts.headerless) and math.isfinite(read_number(first[-1])):
        return [(0, list(facts.headerless)), *rows]
    return rows


def choose_scale(data: DataConfig, facts: DatasetFacts) -> list[float]:
    """The worst and the best of the table's scale; `UserError` for a dataset whose scale is known."""
    if facts.own:
        return sorted(data.mos_range, reverse=True) if data.lower_better else list(data.mos_range)
    if list(data.mos_range) != FULL_SCALE or data.lower_better is not None:
        key = "data.mos_range" if data.lower_better is None else "data.lower_better"
        raise UserError(f"{key}: {data.dataset} is on 0-5 already; leave it out, or set data.dataset=custom")
    if data.dimension:
        raise UserError(f"data.dimension: {data.dataset} has its own; leave it out, or set data.dataset=custom")
    return FULL_SCALE


def choose_columns(header: list[str], facts: DatasetFacts, data: DataConfig, where: str) -> Columns:
    """The published or the project's own columns, whichever the header fits better; `UserError` if one is missing."""
    found = f"found {name_columns(header)}" + (
        "; separate columns with commas, semicolons or tabs" if len(header) == 1 else ""
    )
    columns = Columns(("image",), "prompt", {dimension: dimension for dimension in facts.dimensions})
    if facts.own:
        columns = choose_own(header, data, where, found)
    named = facts.published or facts.official
    if named and len(set(named.all()) & set(header)) > len(set(columns.all()) & set(header)):
        columns = named
    for column in (*columns.all(), *({"prompt_style", "split"} & set(header))):
        if header.count(column) != 1:
            problem = "more than one column" if column in header else "no column"
            raise UserError(f"{where}: {problem} {column!r}; {found}; {README}")
    if not columns.targets:
        raise UserError(
            f"{where}: no column with MOS, such as {', '.join(map(repr, DIMENSIONS))}; "
            f"{name_remedy(header) or found}; {README}"
        )
    return columns


def choose_own(header: list[str], data: DataConfig, where: str, found: str) -> Columns:
    """The columns of a user's own table; `found` names all of them. There may be none with MOS.

    A column mos or dmos judges `data.dimension`, or quality where the table has no prompts, as image-quality sets do.
    """
    targets: dict[Dimension, str] = {dimension: dimension for dimension in DIMENSIONS if dimension in header}
    scores = [column for column in SCORES if column in header]
    dimension: Dimension | None = data.dimension
    if scores and "quality" not in targets and "prompt" not in header:
        dimension = dimension or "quality"
    if dimension:
        if len(scores) > 1:
            raise UserError(f"{where}: columns 'mos' and 'dmos' would both judge {dimension}; remove one; {README}")
        if not scores:
            problem = f"no column 'mos' or 'dmos'; {found}"
            raise UserError(f"{where}: data.dimension={dimension} says what one column judges: {problem}; {README}")
        if dimension in targets:
            problem = f"columns {dimension!r} and {scores[0]!r} both judge {dimension}"
            raise UserError(f"{where}: {problem}; remove one, or set another data.dimension")
        targets[dimension] = scores[0]
        if scores == ["dmos"] and data.lower_better is None and data.mos_range[0] < data.mos_range[1]:
            remedy = f"set data.lower_better=true and {RANGE}, or data.lower_better=false if higher is better"
            raise UserError(f"{where}: in a column 'dmos' lower is mostly better; {remedy}; {README}")
    alike = [name for name in header if name in LIKE_PROMPT or ("prompt" in name and name != "prompt_style")]
    if "image" in header and "prompt" not in header and alike:
        raise UserError(f"{where}: no column 'prompt'; {found}; call {alike[0]!r} prompt, or remove it; {README}")
    if "prompt" not in header and any(dimension in targets for dimension in NEED_A_PROMPT):
        problem = f"no column 'prompt'; {found}; {' and '.join(NEED_A_PROMPT)} are judged against a prompt"
        raise UserError(f"{where}: {problem}; {README}")
    return Columns(("image",), "prompt" * ("prompt" in header), {d: targets[d] for d in DIMENSIONS if d in targets})


def name_remedy(header: Sequence[str]) -> str:
    """What to do with a column mos or dmos of a table with prompts; "" where there is none."""
    if scores := [column for column in SCORES if column in header]:
        lower = " and, as lower is better, set data.mos_range=[worst,best], such as [100,0]" * (scores[0] == "dmos")
        return f"rename {scores[0]!r} to the one that it judges, or name that in data.dimension{lower}"
    return ""


def refuse_other_split(header: Sequence[str], records: Sequence[dict[str, str]], where: str) -> None:
    """Raise a `UserError` for a column of train, val and test that is not called split: test rows must not train."""
    for column in header:
        if all(record[column].strip().casefold() in SUBSET_NAMES for record in records):
            remedy = "call it split to use it, or remove it to have folds drawn"
            raise UserError(f"{where}: column {column!r} says what is train, val and test; {remedy}")
