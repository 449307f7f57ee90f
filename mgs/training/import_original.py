"""Checkpoints of the original project, `{'model_state_dict', 'fold', 'dataset'}`, made into ours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mgs.backbones.build import build_clip
from mgs.backbones.clip import CLIPBackbone
from mgs.backbones.state import CONVOLUTION, SCRIPT_CONSTANTS
from mgs.backbones.weights import as_tensors, read_weights
from mgs.config import Config, DataConfig, ModelConfig
from mgs.datasets.facts import DATASETS, facts_of
from mgs.errors import UserError
from mgs.files import file_sha256
from mgs.methods.mgs import MGS, MGSOptions
from mgs.training.checkpoint import CHECKPOINT, save_checkpoint

FOLD = re.compile(r"[0-9]{1,3}", re.ASCII)


@dataclass(frozen=True)
class Original:
    """What a checkpoint of the original project holds; some have the tensors alone."""

    state: dict[str, Tensor]
    dataset: str  # a row of DATASETS, or what else the file says; "" where it does not name one
    fold: int  # 0 where the file does not say


def import_original(path: Path, folder: Path, *, dataset: str | None = None) -> list[str]:
    """Write `<folder>/best.safetensors` from a checkpoint of the original project; returns the tensors left out.

    It read quality off the realism words' axis and realism off the quality words'; our model reads them the same way
    (`options.templates: swapped`), under their right names, so that its `mos_fusion` is our `fusion` in the same order.
    `dataset` says which dimensions were trained, by default the one that the file names. Nothing in the file is run:
    anything but tensors, texts and numbers is refused. Raises `UserError`.
    """
    original = read_original(path)
    dataset = choose_dataset(original.dataset, dataset, path)
    dimensions = facts_of(dataset).dimensions
    state = original.state
    prefixes = [name.removesuffix(CONVOLUTION) for name in state if name.endswith(CONVOLUTION)]
    if len(prefixes) != 1:
        raise UserError(
            f"{path}: {len(prefixes)} tensors called ...{CONVOLUTION}, where one CLIP has one; not such a checkpoint"
        )
    own = {name.removeprefix(prefixes[0]): value for name, value in state.items() if name.startswith(prefixes[0])}
    clip_state, others = split_clip(own)
    backbone = CLIPBackbone(build_clip(clip_state, path), "original", file_sha256(path))
    model = MGS(backbone, MGSOptions(templates="swapped"))
    others |= {name: value for name, value in state.items() if not name.startswith(prefixes[0])}
    for name, head in (("alpha", model.alpha), ("mos_fusion", model.fusion)):
        names = [other for other in others if other.split(".")[-1] == name]
        if not names and (name == "alpha" or "overall" in dimensions):
            raise UserError(f"{path}: no tensor called {name}, which scores of {dataset} need; not a whole checkpoint")
        for found in names:
            value = others.pop(found)
            if value.numel() != head.numel():
                raise UserError(
                    f"{path}: {found} holds {value.numel()} numbers, not {head.numel()}; not the original's"
                )
            head.data.copy_(value.reshape(head.shape))
    data = DataConfig(dataset=dataset)
    config = Config(name=path.stem, data=data, model=ModelConfig(clip=str(path)), options=model.options)
    facts = {
        "dataset": dataset,
        "protocol": "published",
        "fold": original.fold,
        "epoch": 0,
        "val": {dimension: {} for dimension in dimensions},
        "imported_from": path.name,
    }
    save_checkpoint(folder / CHECKPOINT, model, config, facts)
    return sorted(others)


def choose_dataset(named: str, asked: str | None, path: Path) -> str:
    """The dataset to import for: what the file names and the user asks for, which may not contradict each other."""
    known = ", ".join(name for name, row in DATASETS.items() if row.published)
    if asked and not facts_of(asked).published:
        raise UserError(f"--dataset {asked}: not what the original trains on; it is one of {known}")
    if named and named not in DATASETS:
        raise UserError(f"{path}: says that it was trained on {named}; only {known} can be imported")
    if asked and named and asked != named:
        raise UserError(f"--dataset {asked}: {path} says that it was trained on {named}; leave the option out")
    if not (asked or named):
        raise UserError(f"{path}: does not name its dataset; say it with --dataset, one of {known}")
    return asked or named


def read_original(path: Path) -> Original:
    """The tensors below `model_state_dict`, or of a bare state dict, and what stands beside them."""
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
    named = str(content.get("dataset") or "")
    known = {plain_name(name): name for name, row in DATASETS.items() if row.published}
    dataset = known.get(plain_name(named), named)
    fold = content.get("fold")
    if isinstance(fold, str) and FOLD.fullmatch(fold):
        fold = int(fold)
    tensors = {name.removeprefix("module."): value.float() for name, value in state.items()}  # module.: DataParallel's
    return Original(tensors, dataset, fold if type(fold) is int and fold > 0 else 0)


def plain_name(name: str) -> str:
    """A dataset's name without hyphens and the like, in lower case: AGIQA-1K is also written agiqa1k."""
    return re.sub(r"[\W_]", "", name.casefold())


def split_clip(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A CLIP's own tensors, and the other tensors of the checkpoint."""
    roots = ("visual", "transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection")
    ours = {k: v for k, v in state.items() if k.split(".")[0] in (*roots, "logit_scale")}
    return ours, {k: v for k, v in state.items() if k not in ours and k not in SCRIPT_CONSTANTS}
