"""Every option, with its type, its default and its allowed values."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf

from mgs.dimensions import MOS_MAX, Dimension

ImagePlace = Literal["auto", "ram", "disk", "gpu", "none"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
NOT_THE_RUN = (
    "folds",
    "device",
    "data.allow_leaks",
    "data.cache",
    "data.cache_folder",
    "data.workers",
    "train.save_minutes",
    "overwrite",
)  # may change between two calls for the same run


@dataclass
class DataConfig:
    dataset: str = "custom"  # a row of DATASETS, such as AGIQA-3K or demo; custom: a CSV of your own
    root: str = ""  # the folder that image paths start from
    table: str | None = None  # custom only: a CSV with image, prompt and any of the four dimensions
    splits: str | None = None  # folder with <fold>/{train,val,test}.csv; default <root>/splits/<protocol>
    protocol: Literal["published", "prompt-disjoint", "random-image"] = "published"
    fold_seed: int = 42  # decides the folds drawn from `table`; apart from `seed`, so runs of any seed share folds
    prompt_style: Literal["keywords", "hybrid", "sentence"] | None = None  # default: the dataset's own
    mos_range: list[float] = field(default_factory=lambda: [0.0, MOS_MAX])  # worst and best of the table's scale
    dimension: Dimension | None = None  # what a column mos or dmos judges; without prompts quality is the default
    lower_better: bool | None = None  # true: the low end of mos_range is the best; null: as mos_range says
    on_bad_image: Literal["error", "skip"] = "error"
    allow_leaks: bool = False  # folds of your own: train although images are in train and test; every table says so
    cache: ImagePlace = "auto"  # where decoded images are kept; auto: GPU, RAM or disk, whichever has room
    cache_folder: str = "data/.cache"  # what is kept on disk; `python -m mgs clean` removes it
    workers: int = 2  # threads that decode images where they are not kept


@dataclass
class ViewsConfig:
    # null, in both: as the method has it. cover adds windows on sides above 1152 pixels; none: the whole image alone
    layout: Literal["grid", "cover", "none", "even"] | None = None
    antialias: bool | None = None


@dataclass
class ModelConfig:
    clip: str = "ViT-B/16"  # an OpenAI name, a local file or folder, demo, or what docs/backbones.md lists
    activation: Literal["quick_gelu", "gelu"] | None = None  # null: as the file says; for a file that does not say it
    frozen_blocks: float = 0.5  # share of each tower's residual blocks, counted from the input
    freeze_stem: bool = False  # freeze also the layers below the first block: patch, token and position embeddings


@dataclass
class TrainConfig:
    epochs: int = 15  # 0: nothing trains; the weights are tested as they are
    batch_size: int = 12
    lr: float = 5e-6
    final_lr: float = 5e-7  # where the cosine ends
    wave_epochs: int | None = None  # IPCE's and LIQE's own schedule has 5: lr falls to 0 in as many, and rises again
    head_lr: float | None = None  # of what a method has besides its backbone, such as MGS's alpha; default: lr
    weight_decay: float = 5e-4
    clip_gradient: float | None = 1.0  # null: never clipped
    save_minutes: float = 10.0  # last.pt is written after every epoch, and at this interval within one
    cache_gb: float = 20.0  # disk for the frozen half's activations, with model.freeze_stem; 0: computed every time


@dataclass
class Config:
    name: str = ""  # runs/<name>; default: the YAML file's own name
    base: str | None = None  # another YAML file that this one changes; its path is relative to this one
    runs: str = "runs"
    folds: list[int] = field(default_factory=list)  # empty: every fold that exists
    seed: int = 42
    device: str = "auto"
    precision: Precision = "auto"
    compile: bool = False  # torch.compile the image tower's blocks in training
    overwrite: bool = False  # train again over a finished run
    method: str = "mgs"  # a row of METHODS
    options: Any = None  # the method's own, a dataclass in its file; None: its defaults
    data: DataConfig = field(default_factory=DataConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @property
    def run_folder(self) -> Path:
        return Path(self.runs) / self.name

    @property
    def whole_run(self) -> Path | None:
        """Of a part of a run of several targets, whose name is its target, the folder of the run; else None."""
        return Path(self.runs) if self.name == getattr(self.options, "target", None) else None


def config_sha256(config: Config) -> str:
    """SHA-256, in hex, of all options by which two runs can differ."""
    kept = {key: value for key, value in flat_config(config).items() if key not in NOT_THE_RUN}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def differing_keys(one: Config, other: Config, *, ignored: Sequence[str] = ()) -> list[str]:
    """Dotted keys whose values differ between two configs, which may be of two methods."""
    flat = [flat_config(config) for config in (one, other)]
    keys = (flat[0].keys() | flat[1].keys()).difference(ignored)
    return sorted(key for key in keys if flat[0].get(key) != flat[1].get(key))


def flat_config(config: Config) -> dict[str, Any]:
    """Dotted key -> value, of all options."""
    return flatten(OmegaConf.to_container(OmegaConf.structured(config)))


def flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings to one with dotted keys."""
    if not isinstance(content, dict):
        return {prefix: content}
    return {k: v for key, part in content.items() for k, v in flatten(part, f"{prefix}.{key}".lstrip(".")).items()}


def find_impossible_values(config: Config) -> list[tuple[str, str]]:
    """Keys whose value has the right type and still cannot work, each with what it must be."""
    data, model, train = config.data, config.model, config.train
    rules = [
        (
            "name",
            config.name not in ("", ".", "..") and not set("/\\") & set(config.name) and config.name.isprintable(),
            "a folder's name, without /",
        ),
        ("seed", 0 <= config.seed < 2**32, "from 0 to 4294967295"),
        ("folds", all(isinstance(n, int) and n >= 1 for n in config.folds), "fold numbers begin at 1"),
        ("folds", len(set(map(str, config.folds))) == len(config.folds), "each fold once"),
        ("data.fold_seed", data.fold_seed >= 0, "0 or more"),
        ("data.workers", data.workers >= 0, "0 or more"),
        ("data.mos_range", is_range(data.mos_range), "[worst, best], two different numbers"),
        (
            "data.lower_better",
            data.lower_better is not False or not is_range(data.mos_range) or data.mos_range[0] < data.mos_range[1],
            "true or left out, since data.mos_range names the higher number first, as the worst",
        ),
        ("model.frozen_blocks", 0 <= model.frozen_blocks <= 1, "a share, from 0 to 1"),
        ("train.epochs", train.epochs >= 0, "0 or more"),
        ("train.batch_size", train.batch_size >= 1, "1 or more"),
        ("train.lr", is_positive(train.lr), "a number above 0"),
        ("train.final_lr", 0 <= train.final_lr <= train.lr, "from 0 to train.lr"),
        ("train.wave_epochs", train.wave_epochs is None or train.wave_epochs >= 1, "1 or more, or null"),
        (
            "train.head_lr",
            train.head_lr is None or (is_positive(train.head_lr) and train.head_lr >= train.final_lr),
            "a number above 0, and not below train.final_lr",
        ),
        ("train.weight_decay", train.weight_decay >= 0, "0 or more"),
        ("train.save_minutes", is_positive(train.save_minutes), "a number above 0"),
        ("train.cache_gb", train.cache_gb >= 0 and math.isfinite(train.cache_gb), "0 or more"),
        (
            "train.clip_gradient",
            train.clip_gradient is None or is_positive(train.clip_gradient),
            "a number above 0, or null",
        ),
    ]
    options = config.options.find_impossible_values() if config.options else []
    broken = [(key, expected) for key, holds, expected in rules if not holds]
    return [(key, f"must be {expected}") for key, expected in [*broken, *((f"options.{k}", e) for k, e in options)]]


def is_range(numbers: Sequence[float]) -> bool:
    """Whether it is two finite numbers that differ."""
    finite = all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers)
    return finite and len(numbers) == 2 and numbers[0] != numbers[1]


def is_positive(number: float) -> bool:
    """Whether it is above zero and finite."""
    return math.isfinite(number) and number > 0
