"""YAML files with their bases, and `key=value` words, as layers that a config is laid together from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import mgs
from mgs.errors import UserError

CONFIGS = "configs"  # the folder of configs that ship: at the root of a checkout, in the package once installed


def read_layers(path: Path | None, overrides: Sequence[str]) -> list[tuple[str, DictConfig]]:
    """What a config is laid together from, each with the place that errors name: bases, the file, the words."""
    words = read_words(overrides)
    if not path:
        return [("command line", words)]
    own = read_yaml(path)
    named = words.get("base")
    base = find_shipped(Path(str(named))) if named else base_of(path, own)
    return [*(read_bases(base, [path]) if base else []), (str(path), own), ("command line", words)]


def find_shipped(path: Path) -> Path:
    """The path itself; or, if it is configs/... and does not exist, the shipped config of that name."""
    package = Path(mgs.__file__).parent
    for root in (package, package.parent):
        if not os.path.exists(path) and path.parts[:1] == (CONFIGS,) and os.path.exists(root / path):
            return root / path
    return path


def read_yaml(path: Path) -> DictConfig:
    """One YAML file as a mapping; a missing, malformed or non-mapping file is a `UserError`."""
    try:
        content = OmegaConf.load(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file; see configs/ for those that ship") from None
    except Exception as error:  # PyYAML's errors and OSError have no common base; each says what is wrong with the file
        raise UserError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, DictConfig):
        raise UserError(f"{path}: a config is a mapping of keys to values, this is not")
    try:
        OmegaConf.resolve(content)
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {error.full_key}: {str(error).splitlines()[0]}") from None
    return content


def base_of(path: Path, content: DictConfig) -> Path | None:
    """The YAML that this one changes, if it names one."""
    return path.parent / str(content["base"]) if content.get("base") else None


def read_bases(path: Path, seen: list[Path]) -> list[tuple[str, DictConfig]]:
    """A base and its own bases, the deepest first; a file that is its own base is a `UserError`."""
    if path.resolve() in [one.resolve() for one in seen]:
        raise UserError(f"{seen[-1]}: base: {path} is among its own bases; name another")
    content = read_yaml(path)
    deeper = base_of(path, content)
    return [*(read_bases(deeper, [*seen, path]) if deeper else []), (str(path), content)]


def read_words(words: Sequence[str]) -> DictConfig:
    """`key=value` words of a command line as a mapping."""
    for word in words:
        if "=" not in word:
            raise UserError(f"command line: {word!r} is neither a .yaml file nor key=value")
    try:
        content = OmegaConf.from_dotlist(list(words))
        OmegaConf.resolve(content)
    except Exception as error:  # PyYAML parses the values and raises its own errors
        raise UserError(f"command line: {' '.join(str(error).split())}") from None
    return content
