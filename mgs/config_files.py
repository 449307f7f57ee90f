"""From words, YAML files and checkpoints to a checked `Config`, and back to a file beside the results."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import mgs
from mgs.config import NOT_THE_RUN, Config, ViewsConfig, differing_keys, find_impossible_values, flatten
from mgs.errors import UserError
from mgs.files import whole_file
from mgs.methods.table import METHODS, choose_cuts
from mgs.renamed_keys import with_new_names

CONFIGS = "configs"  # the folder of configs that ship: at the root of a checkout, in the package once installed
SHIPPED_CONFIGS = {  # dataset folder under data/ -> what trains it when no config is named
    "AGIQA-1K": Path(CONFIGS, "agiqa1k.yaml"),
    "AGIQA-3K": Path(CONFIGS, "agiqa3k.yaml"),
    "AIGCIQA2023": Path(CONFIGS, "aigciqa2023.yaml"),
}
DEMO_CONFIG = Path(CONFIGS, "demo.yaml")
DEMO_BANNER = """\
+---------------------------------------------------------------------------+
| No dataset under data/: this is the DEMO, on generated drawings, with a   |
| small CLIP that knows drawings. Its numbers say nothing about real images.|
| data/README.md says where the real datasets go.                           |
+---------------------------------------------------------------------------+"""


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, lay it over its `base` and the defaults, then lay `key=value` words over it.

    Without a file the words alone are laid over the defaults, and must give a name or a table. An unknown key, a wrong
    type or an impossible value raises a `UserError` naming the place and the key.
    """
    words = read_words(overrides)
    layers = [("command line", words)]
    if path:
        own = read_yaml(path)
        named = words.get("base")
        base = find_shipped(Path(str(named))) if named else base_of(path, own)
        bases = read_bases(base, [path]) if base else []
        layers = [*bases, (str(path), own), *layers]
    without = [source for source, layer in layers if OmegaConf.select(layer, "model.patches") is False]
    layers = [(source, with_new_names(source, layer)) for source, layer in layers]
    drop_other_options(layers)
    merged = schema_for(layers)
    for source, layer in layers:
        try:
            merged = OmegaConf.merge(merged, layer)
        except (OmegaConfBaseException, TypeError) as error:
            raise UserError(f"{source}: {explain(error, merged, layer)}") from None
    try:
        config: Config = OmegaConf.to_object(merged)  # type: ignore[assignment]
    except OmegaConfBaseException as error:  # of ???, which stands for a missing value
        raise UserError(f"{path or 'command line'}: {error.full_key}: {str(error).splitlines()[0]}") from None
    fill_views(config)
    if without and config.views.layout != "none":
        raise UserError(
            f"{without[0]}: model.patches=false, beside views.layout={config.views.layout}: say the latter alone"
        )
    config.name = config.name or (path.stem if path else Path(config.data.table or "").stem)
    config.base = None  # its values are in the config now
    config.options = config.options or METHODS[config.method].options()  # an empty section
    for key, problem in find_impossible_values(config):
        set_by = [place for place, layer in layers if OmegaConf.select(layer, key) is not None]
        source = set_by[-1] if set_by else str(path)
        raise UserError(f"{source}: {key}={OmegaConf.select(merged, key)}: {problem}")
    return config


def config_of(content: Any) -> Config:
    """The config that a checkpoint holds as plain values; `ValueError` if it is no config or has impossible values.

    References such as `${oc.env:HOME}` are refused, since somebody else may have written the file.
    """
    if not isinstance(content, dict):  # OmegaConf would read a text as YAML
        raise ValueError("a config is a mapping of keys to values, this is not")
    try:
        for key, value in flatten(content).items():
            if "${" in f"{key}{value}":
                raise ValueError(f"{key}: refers to something outside")
        layer = with_new_names("config", OmegaConf.create(content))
        config: Config = OmegaConf.to_object(OmegaConf.merge(schema_for([("method", layer)]), layer))  # type: ignore[assignment]
        fill_views(config)
    except (OmegaConfBaseException, TypeError, AttributeError, RecursionError, UserError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    for key, problem in find_impossible_values(config):
        raise ValueError(f"{key}: {problem}")
    return config


def drop_other_options(layers: Sequence[tuple[str, DictConfig]]) -> None:
    """Where a layer changes the method, the options in those below are of another one, and are forgotten."""
    method = "mgs"
    for i, (_, layer) in enumerate(layers):
        named = layer.get("method")
        if named is not None and named != method:
            method = named
            for _, below in layers[:i]:
                below.pop("options", None)


def schema_for(layers: Sequence[tuple[str, DictConfig]]) -> Any:
    """The defaults, with the options of the method that the last of the layers to do so names."""
    source, method = next(
        ((s, layer["method"]) for s, layer in reversed(layers) if layer.get("method") is not None), ("", "mgs")
    )
    if str(method) not in METHODS:
        raise UserError(f"{source}: method={method}: no such method; choose from {', '.join(METHODS)}")
    return OmegaConf.structured(Config(options=METHODS[str(method)].options()))


def fill_views(config: Config) -> None:
    """Write down the cuts that the method decides, so that two configs of equal cuts are equal."""
    cuts = choose_cuts(config.method, config.views)
    layout = cuts.windows if cuts.windows != "random" else None
    config.views = ViewsConfig(layout, cuts.antialias)


def load_configs(argv: Sequence[str]) -> list[Config]:
    """The configs that a command line asks for: its YAML files, each with the `key=value` words laid over it.

    Without a file: one config of the words alone, if they name the user's own table; else the shipped config of every
    dataset found under data/ of the working directory; else the demo's, with a banner.
    """
    files = [word for word in argv if word.endswith((".yaml", ".yml")) and "=" not in word]
    overrides = [word for word in argv if word not in files]
    words = read_words(overrides)
    if not files and OmegaConf.select(words, "data.table"):
        return [load_config(None, overrides)]
    paths = [find_shipped(Path(file)) for file in files]
    if not paths:
        there = [file for name, file in SHIPPED_CONFIGS.items() if any(Path("data", name).glob("[!.]*"))]
        paths = [find_shipped(file) for file in there or [DEMO_CONFIG]]
    configs = [load_config(path, overrides) for path in paths]
    if not files and paths == [find_shipped(DEMO_CONFIG)]:
        print(DEMO_BANNER, flush=True)
    return configs


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


def explain(error: Exception, merged: Any, layer: DictConfig) -> str:
    """OmegaConf's error on laying `layer` over `merged`, as `key: problem` on one line, with the valid keys."""
    for name, value in layer.items_ex(resolve=False):
        section = OmegaConf.select(merged, str(name))
        if OmegaConf.is_dict(section) and not OmegaConf.is_dict(value):
            return f"{name!s}={value}: a section of keys, such as {name!s}.{next(iter(section))}=..."
    key = str(getattr(error, "full_key", "") or ", ".join(map(str, layer)))
    problem = str(error).splitlines()[0].rstrip(".")
    if "not in" in problem and "Key" in problem:
        parent = key.rpartition(".")[0]
        section = OmegaConf.select(merged, parent) if parent else merged
        if not OmegaConf.is_dict(section):  # a key that itself holds a dot
            section = merged
        return f"{key}: unknown key; known here: {', '.join(map(str, section))}"
    return f"{key}: {problem}"


def save_config(config: Config, path: Path) -> None:
    """Write the complete config, defaults and all, as YAML."""
    with whole_file(path) as temporary:
        OmegaConf.save(OmegaConf.structured(config), temporary)


def refuse_other_run(config: Config, record: Path) -> None:
    """Raise a `UserError` where `record`, a run's saved config, differs from `config` in what its results depend on."""
    changed = differing_keys(load_config(record), config, ignored=NOT_THE_RUN)
    if changed:
        raise UserError(
            f"{record.parent}: holds a run with another {', '.join(changed)}; "
            "say name=ANOTHER for a run of its own, or train it again with overwrite=true"
        )
