"""From words, YAML files and checkpoints to a checked `Config`, and back to a file beside the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mgs.config import NOT_THE_RUN, Config, ViewsConfig, differing_keys, find_impossible_values, flatten
from mgs.config_layers import CONFIGS, find_shipped, read_layers, read_words
from mgs.errors import UserError
from mgs.files import whole_file
from mgs.methods.table import METHODS, choose_cuts
from mgs.renamed_keys import with_new_names

SHIPPED_CONFIGS = {  # dataset folder under data/ -> what trains it when no config is named
    "AGIQA-1K": Path(CONFIGS, "agiqa1k.yaml"),
    "AGIQA-3K": Path(CONFIGS, "agiqa3k.yaml"),
    "AIGCIQA2023": Path(CONFIGS, "aigciqa2023.yaml"),
    "AIGIQA-20K": Path(CONFIGS, "aigiqa20k.yaml"),
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
    return lay_together(read_layers(path, overrides), path)


def lay_together(layers: Sequence[tuple[str, DictConfig]], path: Path | None) -> Config:
    """The checked config that layers make up, the later over the earlier; each comes with the place that errors name.

    `path` is the file that they come from. Raises `UserError`.
    """
    without = [source for source, layer in layers if OmegaConf.select(layer, "model.patches") is False]
    layers = [(source, with_new_names(source, layer)) for source, layer in layers]
    drop_other_options(layers)
    keep_last_target(layers)
    method = method_of(layers)
    layers = [(f"method {method}", OmegaConf.create(dict(METHODS[method].defaults))), *layers]
    merged = schema_for(method)
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
    problems = find_impossible_values(config)
    if METHODS[method].trains == "nothing" and config.train.epochs:
        problems.append(("train.epochs", f"must be 0, since {method} trains nothing"))
    for key, problem in problems:
        set_by = [place for place, layer in layers if OmegaConf.select(layer, key) is not None]
        source = set_by[-1] if set_by else str(path)
        raise UserError(f"{source}: {key}={OmegaConf.select(merged, key)}: {problem}")
    return config


def load_run(path: Path | None, overrides: Sequence[str] = ()) -> list[Config]:
    """A run's config; or, where `options.target` lists several targets, one config for each.

    Those train into folders of their own within the run's, which are called like the targets.
    """
    layers = read_layers(path, overrides)
    drop_other_options(layers)
    targets = [OmegaConf.select(layer, "options.target") for _, layer in layers]
    listed = next((target for target in reversed(targets) if target is not None), None)
    if listed is None or not OmegaConf.is_list(listed):
        return [lay_together(layers, path)]
    named = list(map(str, listed))
    if not named or len(set(named)) < len(named):
        raise UserError(f"{path or 'command line'}: options.target={named}: name one target or more, each once")
    own = [(str(path or "command line"), OmegaConf.create({"options": {"target": target}})) for target in named]
    parts = [lay_together([*((source, layer.copy()) for source, layer in layers), one], path) for one in own]
    if len(parts) == 1:
        return parts
    return [replace(part, runs=str(part.run_folder), name=target) for part, target in zip(parts, named, strict=True)]


def load_elsewhere(method: str, words: Sequence[str]) -> Config:
    """A config for scoring by a method with weights that were trained elsewhere; `words` change it. No run is named."""
    options = METHODS[method].elsewhere if method in METHODS else {}  # an unknown one is an error of `load_config`
    own = [f"options.{name}={value}" for name, value in options.items()]
    return load_config(None, ["name=score", f"method={method}", *own, *words])


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
        method = method_of([("method", layer)])
        config: Config = OmegaConf.to_object(OmegaConf.merge(schema_for(method), layer))  # type: ignore[assignment]
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


def keep_last_target(layers: Sequence[tuple[str, DictConfig]]) -> None:
    """Forget all values of `options.target` but the last: one that lists several does not fit where one is meant."""
    naming = [layer for _, layer in layers if OmegaConf.select(layer, "options.target") is not None]
    for layer in naming[:-1]:
        layer["options"].pop("target")


def method_of(layers: Sequence[tuple[str, DictConfig]]) -> str:
    """The method that the last of the layers to do so names; an unknown one is a `UserError`."""
    source, method = next(
        ((s, layer["method"]) for s, layer in reversed(layers) if layer.get("method") is not None), ("", "mgs")
    )
    if str(method) not in METHODS:
        raise UserError(f"{source}: method={method}: no such method; choose from {', '.join(METHODS)}")
    return str(method)


def schema_for(method: str) -> Any:
    """Every key with its type and default, and the method's own options."""
    return OmegaConf.structured(Config(options=METHODS[method].options()))


def fill_views(config: Config) -> None:
    """Write down the cuts that the method decides, so that two configs of equal cuts are equal.

    Raises `UserError` for a layout that the method cannot work with.
    """
    row, layout = METHODS[config.method], config.views.layout
    if layout not in (None, row.cuts.windows, *row.layouts):
        known = ", ".join(dict.fromkeys([row.cuts.windows, *row.layouts]))
        raise UserError(f"views.layout={layout}: {config.method} takes {known} alone")
    cuts = choose_cuts(config.method, config.views)
    layout = cuts.windows if cuts.windows != "random" else None
    config.views = ViewsConfig(layout, cuts.antialias)


def load_runs(argv: Sequence[str]) -> list[list[Config]]:
    """The runs that a command line asks for, as `load_run` gives them, of its YAML files.

    The `key=value` words are laid over each of them.

    Without a file: one config of the words alone, if they name the user's own table; else the shipped config of every
    dataset found under data/ of the working directory; else the demo's, with a banner.
    """
    files = [word for word in argv if word.endswith((".yaml", ".yml")) and "=" not in word]
    overrides = [word for word in argv if word not in files]
    words = read_words(overrides)
    if not files and OmegaConf.select(words, "data.table"):
        return [load_run(None, overrides)]
    paths = [find_shipped(Path(file)) for file in files]
    if not paths:
        there = [file for name, file in SHIPPED_CONFIGS.items() if any(Path("data", name).glob("[!.]*"))]
        paths = [find_shipped(file) for file in there or [DEMO_CONFIG]]
    runs = [load_run(path, overrides) for path in paths]
    if not files and paths == [find_shipped(DEMO_CONFIG)]:
        print(DEMO_BANNER, flush=True)
    return runs


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
