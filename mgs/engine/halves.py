"""The frozen half of the image tower, a constant function with `model.freeze_stem`, computed once per image.

One file per image lies in a folder that is named after everything the output depends on: the frozen weights, the views
and the precision. So every epoch, fold and run that needs the same output finds it, and no other does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from mgs.backbones.architecture import OPENAI
from mgs.config import Config
from mgs.datasets.samples import Sample
from mgs.engine.engine import Engine
from mgs.errors import UserError
from mgs.files import folder_bytes, free_disk
from mgs.images.cache import ACTIVATIONS, ImageCache, has_array, mark_cache, read_array, write_array
from mgs.interrupts import stop_if_interrupted
from mgs.progress_bar import progress

FORMAT = 2
GB = 1e9
DISK_SHARE = 0.9  # the share of the free disk that may be used; a larger cache is not made


@dataclass(frozen=True)
class KeptHalves:
    """Where each image's activations lie."""

    folder: Path
    images: ImageCache

    def file(self, sample: Sample) -> Path:
        """One image's activations, (V, L, W)."""
        return self.folder / f"{self.images.keys[sample.image]}.npy"

    def read(self, sample: Sample) -> Tensor:
        """One image's activations, (V, L, W); a `UserError` where they were removed meanwhile."""
        kept = read_array(self.file(sample))
        if kept is None:
            raise UserError(f"{self.file(sample)}: gone or damaged since training began; train again to have it made")
        return torch.from_numpy(kept)


def open_halves(engine: Engine, samples: Sequence[Sample], images: ImageCache, config: Config) -> KeptHalves | None:
    """The activations of all these samples' images; computes and writes those that are missing.

    None if the backbone has no constant part, or if the images would take more disk than `train.cache_gb` or the free
    space allow; a line says so then. Float32 runs keep float32; others keep float16, whose rounding is finer
    than that of the products around it.
    """
    if engine.training_cuts.drawn:  # other views in every epoch
        return None
    if not engine.backbone.constant_weights() or not config.train.cache_gb:
        return None
    dtype = torch.float32 if engine.machine.dtype == torch.float32 else torch.float16
    root = Path(config.data.cache_folder) / ACTIVATIONS
    cache = KeptHalves(root / describe_key(engine, dtype), images)
    distinct = {cache.file(sample): sample for sample in samples}
    missing = [sample for file, sample in distinct.items() if not has_array(file)]
    if not missing:
        return cache
    example = compute(engine, images, missing[0])
    needed, there = len(missing) * example.numel() * dtype.itemsize, folder_bytes(root)
    allowed = min(config.train.cache_gb * GB - there, DISK_SHARE * free_disk(root))
    size = f"{len(missing):,} images x {example.numel() * dtype.itemsize / 1e6:.2f} MB = {needed / GB:.2f} GB"
    if needed > allowed:
        tqdm.write(
            f"frozen half: {size} do not fit beside the {there / GB:.2f} GB in {root}, where train.cache_gb and the "
            f"disk leave {max(allowed, 0) / GB:.2f} GB; computed every time instead (python -m mgs clean makes room)"
        )
        return None
    mark_cache(root)
    tqdm.write(f"frozen half: writing {size} to {cache.folder}; python -m mgs clean removes it")
    for sample in progress(missing, desc="frozen half", unit="image", leave=False):
        stop_if_interrupted()
        write_array(cache.file(sample), compute(engine, images, sample).to(dtype).cpu().numpy())
    return cache


@torch.inference_mode()
def compute(engine: Engine, images: ImageCache, sample: Sample) -> Tensor:
    """A sample's activations after the constant half, (V, L, W).

    Each image is computed alone: its ten views keep a device busy enough, and its bits are the same in a resumed job.
    """
    return engine.start(images.read(sample.image))


def describe_key(engine: Engine, dtype: torch.dtype) -> str:
    """A hash of all that the constant half's output depends on, except for the image."""
    digest = hashlib.sha256()
    for weight in engine.backbone.constant_weights():
        digest.update(weight.detach().cpu().numpy().tobytes())
    settings = {
        "format": FORMAT,
        "weights": len(engine.backbone.constant_weights()),
        "cuts": asdict(engine.cuts),
        "size": engine.backbone.size,
        "computed_in": str(engine.machine.dtype),
        "kept_in": str(dtype),
    }
    if engine.backbone.architecture != OPENAI:
        settings["architecture"] = engine.backbone.architecture.describe()
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()[:16]
