"""Draw the package's rooms, one floor above another, from what their files import.

python -m scripts.draw_rooms [docs/images/rooms.png]
"""

from __future__ import annotations

import ast
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import mgs
from mgs.errors import exit_on_user_error

PACKAGE = Path(mgs.__file__).parent
GROUND = "ground"  # the package's single files, which all may import
INK, PALE, LINE = "#222222", "#e8f1f8", "#0072b2"
WIDTH, HEIGHT = 2.5, 0.86  # of a box
STEP_X, STEP_Y = 2.8, 1.35  # between boxes
TEXT = 38  # characters in a line of a box


def room_of(path: Path) -> str:
    """The room that a file of the package is in."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else GROUND


def read_rooms() -> tuple[dict[str, int], dict[str, set[str]]]:
    """Each room's lines of code, and the rooms that it imports."""
    lines: dict[str, int] = {}
    imports: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room, text = room_of(path), path.read_text(encoding="utf-8")
        lines[room] = lines.get(room, 0) + len(text.splitlines())
        names = [node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
        found = {name.split(".")[1] for name in names if name.startswith("mgs.")}
        folders = {name if (PACKAGE / name).is_dir() else GROUND for name in found}
        if room != GROUND:  # config_files, which is read after methods, stands with the files that it belongs to
            imports.setdefault(room, set()).update(folders - {room})
    return lines, {room: imports.get(room, set()) for room in lines}


def describe_rooms(rooms: Iterable[str]) -> dict[str, str]:
    """What each room is for: the first sentence of its docstring's first line."""
    texts = {GROUND: "Names, errors, config, files, the machine: what every room may import"}
    for room in set(rooms) - {GROUND}:
        tree = ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))
        texts[room] = (ast.get_docstring(tree) or "").splitlines()[0].partition(". ")[0].rstrip(".")
    return texts


def floors(imports: Mapping[str, set[str]]) -> dict[str, int]:
    """The floor of each room: one above the highest that it imports."""
    found: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in found:
            found[room] = 1 + max((floor(other) for other in imports[room]), default=-1)
        return found[room]

    for room in imports:
        floor(room)
    return found


def draw_rooms() -> Figure:
    """Rooms as boxes with their lines of code, and arrows to what each imports of the floor below."""
    lines, imports = read_rooms()
    level, texts = floors(imports), describe_rooms(lines)
    rows: dict[int, list[str]] = {}
    for room in sorted(level):
        rows.setdefault(level[room], []).append(room)
    widest = max(map(len, rows.values()))
    place = {
        room: ((i + (widest - len(row)) / 2) * STEP_X, floor * STEP_Y)
        for floor, row in rows.items()
        for i, room in enumerate(row)
    }
    figure = Figure(figsize=(widest * STEP_X + 0.4, (max(rows) + 1) * STEP_Y), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    for room, others in imports.items():
        for other in (other for other in others if level[room] - level[other] == 1):
            (x, y), (u, v) = place[room], place[other]
            ends = ((x, y - HEIGHT / 2), (u, v + HEIGHT / 2))
            axes.add_patch(
                FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=11, color=LINE, shrinkA=0, shrinkB=0)
            )
    for room, (x, y) in place.items():
        corner = (x - WIDTH / 2, y - HEIGHT / 2)
        axes.add_patch(FancyBboxPatch(corner, WIDTH, HEIGHT, "round,pad=0", facecolor=PALE, edgecolor=INK))
        axes.text(x, y + 0.26, f"{room}: {lines[room]:,} lines", ha="center", va="center", fontsize=10, color=INK)
        about = "\n".join(textwrap.wrap(texts[room], TEXT))
        axes.text(x, y - 0.12, about, ha="center", va="center", fontsize=7, color=INK)
    axes.set_xlim(-WIDTH, (widest - 1) * STEP_X + WIDTH)
    axes.set_ylim(-HEIGHT, max(rows) * STEP_Y + HEIGHT)
    return figure


def main(argv: Sequence[str]) -> None:
    """Draw the picture."""
    path = Path(argv[0] if argv else "docs/images/rooms.png")
    draw_rooms().savefig(path, dpi=130)
    print(path)


if __name__ == "__main__":
    exit_on_user_error(main, sys.argv[1:])
