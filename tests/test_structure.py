"""The house keeps its shape: imports point one way, and a file that grows long holds two ideas."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mgs"
GROUND = {
    "config",
    "config_layers",
    "dimensions",
    "errors",
    "files",
    "interrupts",
    "machine",
    "progress_bar",
    "prompts",
    "renamed_keys",
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
    "renamed_keys": {"errors"},
    "errors": {"interrupts", "safe_text"},
    "config": {"dimensions"},
    "config_layers": {"errors"},
    "files": {"errors"},
    "machine": {"errors"},
    "images": GROUND,
    "backbones": GROUND,
    "demo": GROUND,
    "evaluation": GROUND,
    "methods": GROUND | {"backbones", "images"},
    "config_files": GROUND | {"methods"},
    "datasets": GROUND | {"images"},
    "engine": METHODS | {"datasets"},
    "sources": GROUND | {"images", "datasets"},
    "running": GROUND,
    "training": ENGINE,
    "scoring": ENGINE | {"running", "sources", "training"},
    "filtering": GROUND | {"datasets", "images", "scoring", "sources"},
    "ask_server": {"errors"},
    "client": GROUND | {"ask_server", "images", "scoring"},
    "serve": ENGINE | {"running", "scoring", "sources"},
    "recipes": ENGINE | {"running", "training"},
    "cli": ENGINE | {"filtering", "recipes", "running", "scoring", "serve", "sources", "training"},
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


def dotted(path, package):
    """A file's name in an import; a room's `__init__.py` has the room's."""
    return ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")


def find_circle(files, package):
    """Names of files that import one another, also inside a room or a function, or that import those; else none."""
    names = {dotted(path, package): path for path in files}
    del names["mgs"]  # which everybody may ask for the version; it imports the scorer late
    waiting = {name: set() for name in names}
    for name, path in names.items():
        for wanted in imports_of(path):
            waiting[name] |= {wanted, wanted.rpartition(".")[0]} & names.keys() - {name}
    while free := [name for name, wanted in waiting.items() if not wanted & waiting.keys()]:
        for name in free:
            del waiting[name]
    return sorted(waiting)


def test_no_circle_of_files():
    """A file can be read without those that import it."""
    assert find_circle(FILES, PACKAGE) == []


@pytest.mark.parametrize(
    "line",
    [
        "from mgs.room.low import thing",
        "from mgs.room import low",
        "import mgs.room.low",
        "def f():\n    from mgs.room.low import thing",
        "if TYPE_CHECKING:\n    from mgs.room.low import thing",
    ],
)
@pytest.mark.parametrize("closed_by", ["high", "__init__"])
def test_a_circle_made_on_purpose_is_found(tmp_path, line, closed_by):
    package = tmp_path / "mgs"
    low = "import mgs.room.high\nfrom mgs.room import high"
    contents = {"__init__": "", "room/__init__": "", "room/high": "", "room/low": low, "top": line}
    for name, content in contents.items():
        (package / name).with_suffix(".py").parent.mkdir(parents=True, exist_ok=True)
        (package / name).with_suffix(".py").write_text(content + "\n")
    files = sorted(package.rglob("*.py"))
    assert find_circle(files, package) == []
    (package / "room" / f"{closed_by}.py").write_text(line + "\n")
    room = "mgs.room" if closed_by == "__init__" else "mgs.room.high"
    assert {room, "mgs.room.low"} <= set(find_circle(files, package))


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


def test_every_file_that_the_docs_name_is_there():
    root = PACKAGE.parent
    named = re.compile(r"\b(?:mgs|tests|benchmarks|scripts|configs)/[\w./-]*\w")
    for page in [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("data/*.md")]:
        for name in set(named.findall(page.read_text(encoding="utf-8"))):
            assert (root / name).exists() or f"# {name}" in page.read_text(encoding="utf-8"), f"{page.name}: {name}"
