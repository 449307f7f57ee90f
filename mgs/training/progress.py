"""`last.pt`: all that an unfinished fold needs to resume as if it had never stopped; removed once the fold is done."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import torch
from omegaconf import OmegaConf
from torch import Tensor

import mgs
from mgs.backbones.backbone import Backbone
from mgs.config import NOT_THE_RUN, Config, config_sha256, differing_keys
from mgs.config_files import config_of
from mgs.datasets.folds import Fold
from mgs.errors import UserError
from mgs.files import whole_file
from mgs.machine import environment
from mgs.training.trainer import Trainer

PROGRESS = "last.pt"
FORMAT = "mgs-progress-2"
PARTS = {"fold", "fold_sha256", "backbone_sha256", "environment", "trainer", "history"}
AGAIN = "train it again with overwrite=true"


@dataclass
class History:
    """What a fold's finished epochs left, and which of them did best on val."""

    lines: list[dict[str, Any]] = field(default_factory=list)  # of metrics.jsonl, one an epoch
    best: float = math.nan  # mean of SRCC and PLCC
    best_epoch: int = 0
    best_predictions: list[dict[str, Any]] = field(default_factory=list)  # rows of predictions_val.csv
    seconds: list[float] = field(default_factory=list)  # that each epoch took, val included
    running: float = 0.0  # seconds of the epoch in training, so far

    def add(self, line: dict[str, Any], value: float, predictions: pd.DataFrame) -> bool:
        """Record an epoch; returns whether it is the best so far. Any value replaces an undefined one."""
        self.lines.append(line)
        better = math.isnan(self.best) or value > self.best
        if better:
            self.best, self.best_epoch = float(value), line["epoch"]
            self.best_predictions = [{str(k): v for k, v in row.items()} for row in predictions.to_dict("records")]
        return better

    def best_row(self, number: int) -> pd.Series:
        """One image's row of the best epoch's predictions."""
        return pd.Series(self.best_predictions[number])


@dataclass(frozen=True)
class Setting:
    """The config, fold, backbone and device that progress belongs to."""

    config: Config
    fold: Fold
    backbone: Backbone
    device: torch.device

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "format": FORMAT,
            "config": OmegaConf.to_container(OmegaConf.structured(self.config)),
            "config_sha256": config_sha256(self.config),
            "fold": self.fold.number,
            "fold_sha256": self.fold.sha256,
            "backbone_sha256": self.backbone.sha256,
            "environment": environment(self.device),
        }


def copy_progress(setting: Setting, trainer: Trainer, history: History) -> dict[str, Any]:
    """All that `resume` needs, as tensors on the CPU and plain values, which further training does not change."""
    content = {
        **setting.describe(),
        "trainer": trainer.state_dict(),
        "history": asdict(history),
    }
    copied: dict[str, Any] = copy_to_cpu(content)
    return copied


def copy_to_cpu(value: Any) -> Any:
    """Nested values with every tensor copied to the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copy_to_cpu(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(copy_to_cpu(part) for part in value)
    return value


class Sink:
    """A file that remembers the system's error, which torch.save replaces by one of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def write_progress(path: Path, content: dict[str, Any]) -> None:
    """Write what `copy_progress` gave, wholly or not at all."""
    with whole_file(path) as temporary, temporary.open("wb") as file:
        sink = Sink(file)
        try:
            torch.save(content, sink)  # type: ignore[arg-type]
        except RuntimeError:
            if sink.error:
                raise sink.error from None
            raise


def read_progress(path: Path) -> dict[str, Any] | None:
    """What an unfinished fold left, None where it left nothing.

    Nothing in the file is run. Raises `UserError` for a file that is damaged or not ours.
    """
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != FORMAT:
            raise ValueError(f"in format {content['format']}, this version reads {FORMAT}")
        if lacking := PARTS - content.keys():
            raise ValueError(f"without its {', '.join(sorted(lacking))}")
        config = config_of(content["config"])
        if config_sha256(config) != content["config_sha256"]:
            written = content["environment"].get("mgs")
            raise ValueError(
                f"its config is not the one it was written with, by mgs {written}; this is {mgs.__version__}"
            )
    except Exception as error:  # readers of zip and pickle raise errors of their own
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not readable as an unfinished fold ({reason}); {AGAIN}, or remove it") from None
    return {**content, "config": config}


def refuse_other_progress(path: Path, config: Config, fold: Fold) -> dict[str, Any] | None:
    """What an unfinished fold left; `UserError` where it was begun with another config or on other data."""
    content = read_progress(path)
    if content is None:
        return None
    if changed := differing_keys(content["config"], config, ignored=NOT_THE_RUN):
        raise UserError(f"{path}: begun with another {', '.join(changed)}; set it back, {AGAIN}, or say name=ANOTHER")
    if content["fold_sha256"] != fold.sha256:
        raise UserError(
            f"{path}: begun on other data than there is now (images, prompts, MOS or splits changed); {AGAIN}, "
            "or say name=ANOTHER"
        )
    return content


def resume(path: Path, setting: Setting, trainer: Trainer) -> tuple[History, list[str]]:
    """Put a trainer where an unfinished fold stopped; returns its history, and what has changed since.

    Without such a file, the history is empty. Raises `UserError` for progress of other weights, config or data.
    """
    content = refuse_other_progress(path, setting.config, setting.fold)
    if content is None:
        return History(), []
    if content["backbone_sha256"] != setting.backbone.sha256:
        raise UserError(f"{path}: begun with another {setting.backbone.name}; put its weights back, or {AGAIN}")
    try:
        trainer.load_state_dict(content["trainer"])
        history = History(**content["history"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: does not fit this model ({reason}); {AGAIN}, or remove it") from None
    now, then = setting.describe()["environment"], content["environment"]
    return history, [f"{key} was {then.get(key)}, is {now[key]}" for key in now if then.get(key) != now[key]]
