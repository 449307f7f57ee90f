"""`best.safetensors`: the trained tensors and, as metadata, everything needed to score with them again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

import mgs
from mgs.backbones.architecture import recorded_architecture
from mgs.backbones.backbone import Backbone
from mgs.backbones.build import build_clip
from mgs.backbones.local import make_backbone
from mgs.backbones.table import is_published, load_backbone
from mgs.backbones.weights import as_tensors
from mgs.config import Config
from mgs.config_files import config_of
from mgs.dimensions import DIMENSIONS
from mgs.errors import UserError
from mgs.files import whole_file
from mgs.methods.method import Method
from mgs.methods.table import METHODS, choose_cuts, make_method

CHECKPOINT = "best.safetensors"
FINISHED = "predictions_val.csv"  # written last, so a fold folder that has it is complete
FORMAT, OLDER = "mgs-2", "mgs-1"
BACKBONE = "backbone."  # before the names of a backbone's tensors; in the older format it was "clip."
KINDS = {  # what metadata may hold; the facts of a training are not there in every checkpoint
    "mgs_version": str, "config": dict, "sentences": list, "backbone": dict, "dataset": str, "protocol": str,
    "fold": int, "fold_sha256": str, "epoch": int, "val": dict,
}  # fmt: skip
MAY_LACK = ("dataset", "protocol", "fold", "fold_sha256", "epoch", "val", "architecture")
BACKBONE_KINDS = {"name": str, "sha256": str, "embedded": bool, "architecture": dict}


def fold_folder(run: Path, number: int) -> Path:
    """Where a run keeps one fold."""
    return run / f"fold_{number:02d}"


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to score, the config that it was trained with, and what its file says about itself."""

    model: Method
    config: Config
    metadata: dict[str, Any]


def save_checkpoint(path: Path, model: Method, config: Config, facts: dict[str, Any]) -> None:
    """Write what was trained; also the whole backbone, if not everybody can fetch it by name.

    `facts` (dataset, fold, epoch, val metrics, ...) goes into the metadata unchanged.
    """
    write_checkpoint(path, *copy_for_checkpoint(model, config, facts))


def copy_for_checkpoint(
    model: Method, config: Config, facts: dict[str, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the metadata of a checkpoint; the tensors are copies, which further training does not change."""
    tensors = {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in checkpoint_tensors(model).items()
    }
    backbone = model.backbone
    metadata = {
        "format": FORMAT,
        "mgs_version": mgs.__version__,
        "config": OmegaConf.to_container(OmegaConf.structured(config)),
        "sentences": list(model.sentences),
        "backbone": {
            "name": backbone.name,
            "sha256": backbone.sha256,
            "embedded": not backbone.published,
            "mean": backbone.mean.flatten().tolist(),
            "std": backbone.std.flatten().tolist(),
            "architecture": backbone.architecture.describe(),
        },
        **describe_row(config),
        **facts,
    }
    return tensors, metadata


def describe_row(config: Config) -> dict[str, Any]:
    """What of the config's method decides scores and stands neither in the config nor among the weights."""
    return {
        "cuts": asdict(choose_cuts(config.method, config.views)),
        "scale": list(METHODS[config.method].scale),
    }


def checkpoint_tensors(model: Method) -> dict[str, torch.Tensor]:
    """What a checkpoint holds of a model: what trains, and all of a backbone that cannot be fetched by name."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name in trained or not name.startswith(BACKBONE) or not model.backbone.published
    }


def write_checkpoint(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> None:
    """Write a checkpoint's file, wholly or not at all."""
    content = save(tensors, metadata={"mgs": json.dumps(metadata, ensure_ascii=False)})
    with whole_file(path) as temporary:  # safetensors' own writing would leave a temporary file of its own behind
        temporary.write_bytes(content)


def read_metadata(path: Path) -> dict[str, Any]:
    """What a checkpoint says about itself, without its tensors, with its types checked. Raises `UserError`."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = json.loads((file.metadata() or {})["mgs"])
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: no readable checkpoint ({error}); train one with train.py") from None
    except (KeyError, ValueError, RecursionError):
        raise UserError(f"{path}: not an MGS checkpoint: it has no metadata of ours; train one with train.py") from None
    try:
        if metadata["format"] not in (FORMAT, OLDER):
            raise UserError(f"{path}: in format {metadata['format']}, this version reads {FORMAT}; use another mgs")
        check_kinds(metadata, KINDS)
        check_kinds(metadata["backbone"], BACKBONE_KINDS)
        recorded_architecture(metadata["backbone"])
        config_of(metadata["config"])
        if strange := set(metadata.get("val", {})) - set(DIMENSIONS):
            raise ValueError(f"val: {strange.pop()} is no dimension")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not an MGS checkpoint ({' '.join(str(error).split())})") from None
    return metadata


def check_kinds(content: dict[str, Any], kinds: Mapping[str, type]) -> None:
    """Raise `ValueError` for a value of the wrong type, and `KeyError` for a missing one that is required."""
    for key, kind in kinds.items():
        if key not in content and key in MAY_LACK:
            continue
        if not isinstance(content[key], kind) or (isinstance(content[key], bool) and kind is not bool):
            raise ValueError(f"{key}: must be of type {kind.__name__}")


def refuse_other_fold(folder: Path, sha256: str) -> None:
    """Raise a `UserError` where a finished fold was trained on other samples than those with this hash."""
    if read_metadata(folder / CHECKPOINT).get("fold_sha256") != sha256:
        raise UserError(
            f"{folder}: trained on other data than there is now (images, prompts, MOS or splits changed); "
            "train it again with overwrite=true, or say name=ANOTHER"
        )


def refuse_other_backbone(folder: Path, backbone: Backbone) -> None:
    """Raise a `UserError` where a finished fold was trained from other weights than a backbone's."""
    recorded = read_metadata(folder / CHECKPOINT)["backbone"]["sha256"]
    if recorded != backbone.sha256:
        raise UserError(
            f"{folder}: trained from another {backbone.name} (SHA-256 {recorded[:12]}...); put its weights back, "
            "train it again with overwrite=true, or say name=ANOTHER"
        )


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, on the CPU, in eval mode; nothing in it is unpickled or run. Raises `UserError`."""
    metadata = read_metadata(path)
    config = config_of(metadata["config"])
    try:
        tensors = as_tensors(load_file(path))
        for name, tensor in tensors.items():
            if tensor.dtype != torch.float32:
                raise ValueError(f"{name}: {tensor.dtype} where checkpoints hold torch.float32")
        if metadata["format"] == OLDER:
            tensors = {re.sub(r"^clip\.", BACKBONE, name): tensor for name, tensor in tensors.items()}
        for fact, now in describe_row(config).items():
            before = metadata.get(fact, now)  # of cuts, older versions have recorded less
            if (now | before if isinstance(now, dict) and isinstance(before, dict) else before) != now:
                raise UserError(f"{path}: trained with another {fact}; score with mgs {metadata['mgs_version']}")
        model = make_method(find_backbone(path, metadata["backbone"], tensors), config, new=False)
        if list(model.sentences) != metadata["sentences"]:
            raise UserError(
                f"{path}: trained with other sentences than this version's; score with mgs {metadata['mgs_version']}"
            )
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise UserError(f"{path}: not an MGS checkpoint ({' '.join(str(error).split())})") from None
    except RuntimeError as error:
        raise UserError(f"{path}: its tensors do not fit its config: {' '.join(str(error).split())[:300]}") from None
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if lost := sorted(trained.intersection(missing)) + sorted(unexpected):
        raise UserError(f"{path}: its tensors do not fit its config: {', '.join(lost[:5])}")
    return Checkpoint(model.eval(), config, metadata)


def find_backbone(path: Path, facts: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Backbone:
    """The backbone below a checkpoint: built from its own tensors where they are embedded, else fetched by name."""
    name, sha256 = facts["name"], facts["sha256"]
    if facts["embedded"]:
        own = {k.removeprefix(BACKBONE): v for k, v in tensors.items() if k.startswith(BACKBONE)}
        architecture = recorded_architecture(facts)
        return make_backbone(build_clip(own, path, architecture), name, sha256, architecture)
    if not is_published(name):  # a path is of use only on the machine that wrote the checkpoint
        raise UserError(f"{path}: holds no backbone, and {name!r} is none that can be fetched by name")
    found = load_backbone(name, option=None)
    if found.sha256 != sha256:
        raise UserError(f"{path}: trained on another {name} (SHA-256 {sha256[:12]}...)")
    return found
