"""Every option, its type and its default, once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

DIMENSIONS = ("quality", "authenticity", "correspondence", "overall")
ImagePlace = Literal["auto", "ram", "disk", "gpu", "off"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
MOS_MAX = 5.0  # scores and MOS live on 0-5, higher is better


@dataclass
class DataConfig:
    dataset: str = "custom"  # a row of DATASETS: AGIQA-1K, AGIQA-3K, AIGCIQA2023, demo, or custom for a CSV of your own
    root: str = ""  # the folder that image paths start from
    table: str | None = None  # custom only: one CSV with image, prompt and any of the four dimensions
    splits: str | None = None  # folder with <fold>/{train,val,test}.csv; default <root>/splits/<protocol>
    protocol: Literal["published", "prompt-disjoint", "random-image"] = "published"
    fold_seed: int = 42  # decides the folds that are drawn from `table`; apart from `seed`, so that runs share folds
    prompt_style: Literal["keywords", "hybrid", "sentence"] | None = None  # default: the dataset's own
    mos_range: list[float] = field(default_factory=lambda: [0.0, MOS_MAX])  # the table's scale, mapped onto 0-5
    on_bad_image: Literal["error", "skip"] = "error"
    allow_leaks: bool = False  # train although images are in train and test; every table then says so
    cache: ImagePlace = "auto"  # where decoded images are kept; auto: GPU, RAM or disk, whichever has room
    cache_folder: str = "data/.cache"  # what is kept on disk; `python -m mgs clean` removes it
    workers: int = 2  # processes that decode images where they are not kept


@dataclass
class ViewsConfig:
    layout: Literal["grid", "cover"] = "grid"  # cover adds windows on sides above 1152 pixels
    antialias: bool = False


@dataclass
class ModelConfig:
    clip: str = "ViT-B/16"  # an OpenAI name, a local file, or demo
    templates: Literal["joint", "separate", "swapped"] = "joint"  # swapped: for imported weights, see templates.py
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
    cache_gb: float = 20.0  # disk for the frozen half's activations, with model.freeze_stem; 0: computed every time


@dataclass
class Config:
    name: str = ""  # runs/<name>; default: the YAML file's own name
    base: str | None = None  # another YAML that this one changes; relative to this one
    runs: str = "runs"
    folds: list[int] = field(default_factory=list)  # empty: every fold there is
    seed: int = 42
    device: str = "auto"
    precision: Precision = "auto"
    compile: bool = False  # torch.compile the image tower's blocks in training
    overwrite: bool = False  # train again over a finished run
    data: DataConfig = field(default_factory=DataConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @property
    def run_folder(self) -> Path:
        return Path(self.runs) / self.name
