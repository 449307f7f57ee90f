"""The house keeps its shape: imports point one way, and a file that grows long holds two ideas."""

import ast
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mgs"
GROUND = {
    "config",
    "dimensions",
    "errors",
    "files",
    "interrupts",
    "machine",
    "progress_bar",
    "prompts",
    "safe_text",
}
LOW = GROUND | {"backbones", "demo", "evaluation", "images"}
METHODS = LOW | {"config_files", "methods"}
ENGINE = METHODS | {"datasets", "engine"}
MAY_IMPORT = {
    "safe_text": set(),
    "interrupts": set(),
    "progress_bar": set(),
    "dimensions": set(),
    "prompts": set(),
    "errors": {"interrupts", "safe_text"},
    "config": {"dimensions"},
    "files": {"errors"},
    "machine": {"errors"},
    "images": GROUND,
    "backbones": GROUND,
    "demo": GROUND,
    "evaluation": GROUND,
    "methods": GROUND | {"backbones"},
    "config_files": GROUND | {"methods"},
    "datasets": GROUND | {"demo", "images"},
    "engine": METHODS | {"datasets"},
    "training": ENGINE,
    "scoring": ENGINE | {"training"},
    "recipes": ENGINE | {"training"},
    "cli": ENGINE | {"recipes", "scoring", "training"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides which room it comes from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(path):
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    rooms = {name.split(".")[1] for name in imports_of(path) if name.startswith("mgs.")}
    assert rooms - MAY_IMPORT[room] - {room, "__version__"} == set()


def test_no_circle_of_files():
    """A file can be read without those that import it: also inside a room, and imports inside functions count."""
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in FILES}
    waiting = {
        name: {found for wanted in imports_of(path) for found in (wanted, wanted.rpartition(".")[0]) if found in names}
        for name, path in names.items()
    }
    while free := [name for name, wanted in waiting.items() if not wanted & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert not waiting, f"a circle is among these: {sorted(waiting)}"


def test_only_one_file_touches_openai_clip():
    assert [p.name for p in FILES if any(n.split(".")[0] == "clip" for n in imports_of(p))] == ["openai.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_file_holds_two_ideas(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250


def test_every_room_is_in_the_wheel_and_the_configs_too():
    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    rooms = {".".join(path.relative_to(PACKAGE.parent).parent.parts) for path in FILES}
    assert set(settings["packages"]) == rooms | {"mgs.configs"}
    assert settings["package-dir"] == {"mgs.configs": "configs"}
