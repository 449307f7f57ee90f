"""Checkpoints of the original project made into ours: `{'model_state_dict': {...}}`, quality and realism swapped."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from mgs.config import Config, DataConfig, ModelConfig
from mgs.data.datasets import facts_of
from mgs.errors import UserError
from mgs.files import file_sha256
from mgs.model.clip_backbone import Backbone, build_clip
from mgs.model.mgs import MGS
from mgs.model.weights import as_tensors, read_weights
from mgs.training.checkpoint import CHECKPOINT, save_checkpoint

MARK = "visual.conv1.weight"  # every CLIP with a vision transformer has it; what stands before it is the prefix
UNUSED = ("input_resolution", "context_length", "vocab_size")  # numbers that OpenAI stores beside the weights


def import_original(path: Path, folder: Path, *, dataset: str) -> list[str]:
    """Write `<folder>/best.safetensors` from a checkpoint of the original project; returns the tensors left out.

    It read quality off the realism words' axis and realism off the quality words'; our model reads them the same way
    (`model.templates: swapped`), under their right names. `dataset` says which dimensions were trained. Nothing in the
    file is run: anything but tensors and numbers is refused. Raises `UserError`.
    """
    dimensions = facts_of(dataset).dimensions
    if not dimensions:
        raise UserError(f"--dataset {dataset}: says nothing of the dimensions; name the dataset it was trained on")
    state = read_state(path)
    prefixes = [name.removesuffix(MARK) for name in state if name.endswith(MARK)]
    if len(prefixes) != 1:
        raise UserError(
            f"{path}: {len(prefixes)} tensors called ...{MARK}, where one CLIP has one; not such a checkpoint"
        )
    own = {name.removeprefix(prefixes[0]): value for name, value in state.items() if name.startswith(prefixes[0])}
    clip_state, others = split_clip(own)
    model = MGS(build_clip(clip_state, path), ModelConfig(clip=str(path), templates="swapped"))
    others |= {name: value for name, value in state.items() if not name.startswith(prefixes[0])}
    for name in [name for name, value in others.items() if name.split(".")[-1] == "alpha" and value.numel() == 1]:
        model.alpha.data.copy_(others.pop(name).reshape(()))
    data = DataConfig(dataset=dataset)
    config = Config(name=path.stem, data=data, model=model.config)
    facts = {
        "dataset": dataset,
        "protocol": "published",
        "fold": 0,
        "epoch": 0,
        "val": {dimension: {} for dimension in dimensions},
        "imported_from": path.name,
    }
    backbone = Backbone(model.clip, "original", file_sha256(path), published=False)
    save_checkpoint(folder / CHECKPOINT, model, config, backbone, facts)
    return sorted(others)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors below `model_state_dict`, or of a bare state dict."""
    try:
        content = read_weights(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception:  # readers of zip and pickle raise errors of their own
        raise UserError(
            f"{path}: not a .pt file of tensors and numbers alone; what else it holds could run code, so it is not read"
        ) from None
    state = content.get("model_state_dict", content) if isinstance(content, dict) else None
    try:
        state = as_tensors(state)
    except ValueError as error:
        problem = f"no dict of tensors under model_state_dict that could be used ({error})"
        raise UserError(f"{path}: {problem}; not a checkpoint of the original project") from None
    return {name.removeprefix("module."): value.float() for name, value in state.items()}  # module.: of DataParallel


def split_clip(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A CLIP's own tensors, and whatever else stood beside them."""
    roots = ("visual", "transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection")
    ours = {k: v for k, v in state.items() if k.split(".")[0] in (*roots, "logit_scale")}
    return ours, {k: v for k, v in state.items() if k not in ours and k not in UNUSED}
