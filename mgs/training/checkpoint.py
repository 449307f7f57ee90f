"""`best.safetensors`: the trained tensors and, as metadata, everything needed to score with them again."""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

import mgs
from mgs.config import Config
from mgs.files import whole_file
from mgs.model.clip_backbone import Backbone, build_clip, load_backbone
from mgs.model.mgs import MGS
from mgs.runtime import UserError

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


class Writer:
    """Writes files in a thread, in order, while training goes on; a context manager, which waits for the last one.

    A write that failed raises at the next `submit`, at `wait` or on leaving, and none after it is begun.
    """

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(max_workers=1)
        self.pending: deque[Future] = deque()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.thread.shutdown(wait=True)
        if kind is None:
            self.wait()

    def submit(self, write: Callable[..., None], *args: Any) -> None:
        """Begin `write(*args)` once those before are done; at most two of them wait, since each holds a copy."""
        before = self.pending[-1] if self.pending else None

        def job() -> None:
            if before:
                before.result()
            write(*args)

        while len(self.pending) > 1:
            self.pending.popleft().result()
        self.pending.append(self.thread.submit(job))

    def wait(self) -> None:
        """Until all is written."""
        while self.pending:
            self.pending.popleft().result()


def save_checkpoint(path: Path, model: MGS, config: Config, backbone: Backbone, facts: dict[str, Any]) -> None:
    """Write what was trained; the whole backbone too where it is not one that anybody can fetch by name.

    `facts` (dataset, fold, epoch, val metrics, ...) goes into the metadata as it is.
    """
    write_checkpoint(path, *copy_for_checkpoint(model, config, backbone, facts))


def copy_for_checkpoint(
    model: MGS, config: Config, backbone: Backbone, facts: dict[str, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the metadata of a checkpoint; the tensors are copies, which further training leaves alone."""
    tensors = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in checkpoint_tensors(model, backbone).items()
    }
    metadata = {
        "format": FORMAT,
        "mgs_version": mgs.__version__,
        "config": OmegaConf.to_container(OmegaConf.structured(config)),
        "sentences": model.sentences,
        "backbone": {"name": backbone.name, "sha256": backbone.sha256, "embedded": not backbone.published},
        **facts,
    }
    return tensors, metadata


def checkpoint_tensors(model: MGS, backbone: Backbone) -> dict[str, torch.Tensor]:
    """What a checkpoint holds of a model: what trains, and all of a backbone that cannot be fetched by name."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name in trained or not name.startswith(CLIP_PREFIX) or not backbone.published
    }


def write_checkpoint(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> None:
    """Write a checkpoint's file, wholly or not at all."""
    with whole_file(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"mgs": json.dumps(metadata, ensure_ascii=False)})
        except SafetensorError as error:
            if not (found := re.search(r"os error (\d+)", str(error))):
                raise
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from error


def read_metadata(path: Path) -> dict[str, Any]:
    """What a checkpoint says about itself, without its tensors. Raises `UserError`."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = json.loads((file.metadata() or {})["mgs"])
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: no readable checkpoint ({error}); train one with train.py") from None
    except (KeyError, ValueError):
        raise UserError(f"{path}: not an MGS checkpoint: it has no metadata of ours; train one with train.py") from None
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path}: in format {metadata.get('format')}, this version reads {FORMAT}; use another mgs")
    return metadata


def refuse_other_fold(folder: Path, sha256: str) -> None:
    """Raise a `UserError` where a finished fold was trained on other samples than those with this hash."""
    if read_metadata(folder / CHECKPOINT).get("fold_sha256") != sha256:
        raise UserError(
            f"{folder}: trained on other data than there is now (images, prompts, MOS or splits changed); "
            "train it again with overwrite=true, or say name=ANOTHER"
        )


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, on the CPU, in eval mode; nothing in it is unpickled or run. Raises `UserError`."""
    metadata = read_metadata(path)
    try:
        tensors = load_file(path)
        merged = OmegaConf.merge(OmegaConf.structured(Config), metadata["config"])
        config: Config = OmegaConf.to_object(merged)  # type: ignore[assignment]
        clip = find_clip(path, metadata["backbone"], tensors)
        model = MGS(clip, config.model)
        if model.sentences != metadata["sentences"]:
            raise UserError(
                f"{path}: trained with other sentences than this version's; score with mgs {metadata['mgs_version']}"
            )
        missing, unexpected = model.load_state_dict(tensors, strict=False)
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


def newest_checkpoint(runs: Path) -> Path:
    """The checkpoint of the run that finished a fold last; `UserError` where none has."""
    finished = sorted(runs.glob(f"*/fold_*/{FINISHED}"), key=lambda mark: mark.stat().st_mtime)
    if not finished:
        raise UserError(
            f"{runs}: no trained checkpoint there; name one with --checkpoint, train the demo's with "
            "bash start_training.sh, or go without by --zero-shot"
        )
    return finished[-1].with_name(CHECKPOINT)


def find_checkpoint(path: Path) -> Path:
    """The checkpoint file that a path means: itself, its fold folder, or its run folder's first finished fold."""
    if not path.is_dir():
        return path
    folds = sorted(mark.parent for mark in path.glob(f"fold_*/{FINISHED}"))
    if (path / CHECKPOINT).exists():
        return path / CHECKPOINT
    if not folds:
        raise UserError(f"{path}: no {CHECKPOINT}, and no finished fold; train first, or name a checkpoint")
    return folds[0] / CHECKPOINT


def fetch_checkpoint(name: str | Path) -> Path:
    """A folder or file as it is, or the checkpoint of a Hugging Face hub repository, downloaded. Raises `UserError`."""
    if Path(name).exists():
        return Path(name)
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise UserError(f"{name}: no such folder, and the hub needs: pip install huggingface_hub") from None
    try:
        return Path(hf_hub_download(str(name), CHECKPOINT))
    except Exception as error:  # of the network, the hub and the name's syntax; they have no common base
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{name}: no such folder, and not to be had from the hub: {reason}") from None
