"""`best.safetensors`: the trained tensors and, as metadata, everything needed to score with them again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

import mgs
from mgs.config import Config
from mgs.model.clip_backbone import Backbone, build_clip, load_backbone
from mgs.model.mgs import MGS
from mgs.runtime import UserError, whole_file

CHECKPOINT = "best.safetensors"
FINISHED = "predictions_val.csv"  # written last, so a fold folder that has it is complete
FORMAT = "mgs-1"
CLIP_PREFIX = "clip."


def fold_folder(run: Path, number: int) -> Path:
    """Where a run keeps one fold."""
    return run / f"fold_{number:02d}"


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to score, the config that it was trained with, and what its file says about itself."""

    model: MGS
    config: Config
    metadata: dict[str, Any]


def save_checkpoint(path: Path, model: MGS, config: Config, backbone: Backbone, facts: dict[str, Any]) -> None:
    """Write what was trained; the whole backbone too where it is not one that anybody can fetch by name.

    `facts` (dataset, fold, epoch, val metrics, ...) goes into the metadata as it is.
    """
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name in trained or not name.startswith(CLIP_PREFIX) or not backbone.published
    }
    metadata = {
        "format": FORMAT,
        "mgs_version": mgs.__version__,
        "config": OmegaConf.to_container(OmegaConf.structured(config)),
        "sentences": model.sentences,
        "backbone": {"name": backbone.name, "sha256": backbone.sha256, "embedded": not backbone.published},
        **facts,
    }
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata={"mgs": json.dumps(metadata, ensure_ascii=False)})


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, on the CPU, in eval mode; nothing in it is unpickled or run. Raises `UserError`."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["mgs"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        merged = OmegaConf.merge(OmegaConf.structured(Config), metadata["config"])
        config: Config = OmegaConf.to_object(merged)  # type: ignore[assignment]
        clip = find_clip(path, metadata["backbone"], tensors)
        model = MGS(clip, config.model)
        if model.sentences != metadata["sentences"]:
            raise UserError(
                f"{path}: trained with other sentences than this version's; score with mgs {metadata['mgs_version']}"
            )
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: no readable checkpoint ({error}); train one with train.py") from None
    except (KeyError, TypeError, ValueError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: not an MGS checkpoint ({' '.join(str(error).split())})") from None
    except RuntimeError as error:
        raise UserError(f"{path}: its tensors do not fit its config: {' '.join(str(error).split())[:300]}") from None
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if lost := sorted(trained.intersection(missing)) + sorted(unexpected):
        raise UserError(f"{path}: its tensors do not fit its config: {', '.join(lost[:5])}")
    return Checkpoint(model.eval(), config, metadata)


def find_clip(path: Path, backbone: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    """The CLIP below a checkpoint: built from its own tensors where they are embedded, else fetched by name."""
    if backbone["embedded"]:
        own = {k.removeprefix(CLIP_PREFIX): v for k, v in tensors.items() if k.startswith(CLIP_PREFIX)}
        return build_clip(own, path)
    found = load_backbone(backbone["name"])
    if found.sha256 != backbone["sha256"]:
        raise UserError(f"{path}: trained on another {backbone['name']} (SHA-256 {backbone['sha256'][:12]}...)")
    return found.clip
