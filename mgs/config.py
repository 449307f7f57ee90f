"""Every option, its type and its default, once; and how a YAML file and `key=value` words become a checked `Config`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mgs.runtime import UserError, whole_file

DIMENSIONS = ("quality", "authenticity", "correspondence", "overall")
MOS_MAX = 5.0  # scores and MOS live on 0-5, higher is better
SHIPPED_CONFIGS = {  # dataset folder under data/ -> what trains it when no config is named
    "AGIQA-1K": "configs/agiqa1k.yaml",
    "AGIQA-3K": "configs/agiqa3k.yaml",
    "AIGCIQA2023": "configs/aigciqa2023.yaml",
}
DEMO_CONFIG = "configs/demo.yaml"
DEMO_BANNER = """\
+---------------------------------------------------------------------------+
| No dataset under data/: this is the DEMO, on generated drawings, with a   |
| small CLIP that knows drawings. Its numbers say nothing about real images.|
| data/README.md tells where the real datasets go.                          |
+---------------------------------------------------------------------------+"""


@dataclass
class DataConfig:
    dataset: str = "custom"  # a row of DATASETS: AGIQA-1K, AGIQA-3K, AIGCIQA2023, demo, or custom for a CSV of your own
    root: str = ""  # the folder that image paths start from
    table: str | None = None  # custom only: one CSV with image, prompt and any of the four dimensions
    splits: str | None = None  # folder with <fold>/{train,val,test}.csv; default <root>/splits/<protocol>
    protocol: Literal["published", "prompt-disjoint", "random-image"] = "published"
    prompt_style: Literal["keywords", "hybrid", "sentence"] | None = None  # default: the dataset's own
    mos_range: list[float] = field(default_factory=lambda: [0.0, MOS_MAX])  # the table's scale, mapped onto 0-5
    on_bad_image: Literal["error", "skip"] = "error"
    workers: int = 2  # processes that decode images


@dataclass
class ViewsConfig:
    layout: Literal["grid", "cover"] = "grid"  # cover adds windows on sides above 1152 pixels
    antialias: bool = False


@dataclass
class ModelConfig:
    clip: str = "ViT-B/16"  # an OpenAI name, a local file, or demo
    templates: Literal["joint", "separate"] = "joint"
    correspondence: Literal["both", "whole", "fragments"] = "both"
    patches: bool = True  # false: the whole image alone, in both branches
    temperature: int | float | str = 1.0  # a number, learned, or clip (CLIP's own logit scale)
    frozen_blocks: float = 0.5  # share of each tower's residual blocks, counted from the input
    freeze_stem: bool = False  # also what lies below the first block: patch, token and position embeddings


@dataclass
class TrainConfig:
    epochs: int = 15
    batch_size: int = 12
    lr: float = 5e-6
    final_lr: float = 5e-7
    head_lr: float | None = None  # alpha, overall weights and learned temperature; default: lr
    weight_decay: float = 5e-4
    clip_gradient: float = 1.0


@dataclass
class Config:
    name: str = ""  # runs/<name>; default: the YAML file's own name
    base: str | None = None  # another YAML that this one changes; relative to this one
    runs: str = "runs"
    folds: list[int] = field(default_factory=list)  # empty: every fold there is
    seed: int = 42
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    overwrite: bool = False  # train again over a finished run
    data: DataConfig = field(default_factory=DataConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @property
    def run_folder(self) -> Path:
        return Path(self.runs) / self.name


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, lay it over its `base` and the defaults, then lay `key=value` words over it.

    An unknown key, a wrong type or an impossible value raises a `UserError` naming the place and the key.
    """
    words = read_words(overrides)
    own = read_yaml(path)
    base = words.get("base") or (own.get("base") and path.parent / str(own.get("base")))
    layers = [*([(str(base), read_yaml(Path(str(base))))] if base else []), (str(path), own), ("command line", words)]
    merged = OmegaConf.structured(Config)
    for source, layer in layers:
        try:
            merged = OmegaConf.merge(merged, layer)
        except OmegaConfBaseException as error:
            raise UserError(f"{source}: {explain(error, merged, layer)}") from None
    try:
        config: Config = OmegaConf.to_object(merged)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {explain(error, merged, own)}") from None
    config.name = config.name or path.stem
    config.base = None  # its values are in the config now
    for key, problem in find_impossible_values(config):
        source = next((name for name, layer in reversed(layers) if OmegaConf.select(layer, key) is not None), str(path))
        raise UserError(f"{source}: {key}={OmegaConf.select(merged, key)}: {problem}")
    return config


def find_configs(argv: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Tell a command line's YAML files from its `key=value` words.

    With no file among them: the shipped config of every dataset found under data/, or the demo's, with a banner.
    """
    paths = [Path(word) for word in argv if word.endswith((".yaml", ".yml")) and "=" not in word]
    overrides = [word for word in argv if Path(word) not in paths]
    if not paths:
        paths = [Path(file) for name, file in SHIPPED_CONFIGS.items() if any(Path("data", name).glob("*"))]
    if not paths:
        print(DEMO_BANNER, flush=True)
        paths = [Path(DEMO_CONFIG)]
    return paths, overrides


def read_yaml(path: Path) -> DictConfig:
    """One YAML file as a mapping; a missing, malformed or non-mapping file is a `UserError`."""
    try:
        content = OmegaConf.load(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file; see configs/ for those that ship") from None
    except Exception as error:  # PyYAML and OSError have no common base; each says what is wrong with the file
        raise UserError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, DictConfig):
        raise UserError(f"{path}: a config is a mapping of keys to values, this is not")
    return content


def read_words(words: Sequence[str]) -> DictConfig:
    """`key=value` words of a command line as a mapping."""
    for word in words:
        if "=" not in word:
            raise UserError(f"command line: {word!r} is neither a .yaml file nor key=value")
    try:
        return OmegaConf.from_dotlist(list(words))
    except Exception as error:  # PyYAML parses the values and raises its own errors
        raise UserError(f"command line: {' '.join(str(error).split())}") from None


def explain(error: OmegaConfBaseException, merged: Any, layer: DictConfig) -> str:
    """OmegaConf's error on laying `layer` over `merged`, as `key: problem` on one line with the keys that are right."""
    for name, value in layer.items_ex(resolve=False):
        section = OmegaConf.select(merged, str(name))
        if OmegaConf.is_dict(section) and not OmegaConf.is_dict(value):
            return f"{name!s}={value}: a section of keys, such as {name!s}.{next(iter(section))}=..."
    key = str(getattr(error, "full_key", "") or "")
    problem = str(error).splitlines()[0].rstrip(".")
    if "not in" in problem and "Key" in problem:
        parent = key.rpartition(".")[0]
        section = OmegaConf.select(merged, parent) if parent else merged
        return f"{key}: unknown key; known here: {', '.join(map(str, section))}"
    return f"{key}: {problem}"


def find_impossible_values(config: Config) -> list[tuple[str, str]]:
    """Keys whose value has the right type and still cannot work, each with what it must be."""
    data, model, train = config.data, config.model, config.train
    temperature = model.temperature
    rules = [
        ("name", not Path(config.name).is_absolute() and ".." not in Path(config.name).parts, "a name without .. or /"),
        ("seed", 0 <= config.seed < 2**32, "from 0 to 4294967295"),
        ("folds", all(n >= 1 for n in config.folds), "fold numbers begin at 1"),
        ("folds", len(set(config.folds)) == len(config.folds), "each fold once"),
        ("data.workers", data.workers >= 0, "0 or more"),
        ("data.mos_range", is_range(data.mos_range), "[lowest, highest]"),
        ("model.frozen_blocks", 0 <= model.frozen_blocks <= 1, "a share, from 0 to 1"),
        (
            "model.temperature",
            temperature in ("learned", "clip") if isinstance(temperature, str) else is_positive(temperature),
            "a number above 0, learned, or clip",
        ),
        ("train.epochs", train.epochs >= 1, "1 or more"),
        ("train.batch_size", train.batch_size >= 1, "1 or more"),
        ("train.lr", is_positive(train.lr), "a number above 0"),
        ("train.final_lr", 0 <= train.final_lr <= train.lr, "from 0 to train.lr"),
        ("train.head_lr", train.head_lr is None or is_positive(train.head_lr), "a number above 0"),
        ("train.weight_decay", train.weight_decay >= 0, "0 or more"),
        ("train.clip_gradient", is_positive(train.clip_gradient), "a number above 0"),
    ]
    return [(key, f"must be {expected}") for key, holds, expected in rules if not holds]


def is_range(numbers: Sequence[float]) -> bool:
    """Whether it is two finite numbers, the lower one first."""
    return len(numbers) == 2 and all(map(math.isfinite, numbers)) and numbers[0] < numbers[1]


def is_positive(number: float) -> bool:
    """Whether it is above zero and finite."""
    return math.isfinite(number) and number > 0


def save_config(config: Config, path: Path) -> None:
    """Write the complete config, defaults and all, as YAML."""
    with whole_file(path) as temporary:
        OmegaConf.save(OmegaConf.structured(config), temporary)


def differing_keys(one: Config, other: Config, *, ignored: Sequence[str] = ()) -> list[str]:
    """Dotted keys whose values differ between two configs."""
    flat = [flatten(OmegaConf.to_container(OmegaConf.structured(config))) for config in (one, other)]
    return sorted(key for key in flat[0] if flat[0][key] != flat[1][key] and key not in ignored)


def flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings to one with dotted keys."""
    if not isinstance(content, dict):
        return {prefix: content}
    return {k: v for key, part in content.items() for k, v in flatten(part, f"{prefix}.{key}".lstrip(".")).items()}
