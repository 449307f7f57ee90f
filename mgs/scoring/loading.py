"""Open what a scorer is made from: a checkpoint, or a bare CLIP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mgs.backbones.backbone import Backbone
from mgs.config import Config, ModelConfig
from mgs.datasets.facts import facts_of
from mgs.dimensions import DIMENSIONS, Dimension
from mgs.engine.engine import Engine, make_engine
from mgs.errors import UserError
from mgs.files import file_sha256
from mgs.machine import Machine
from mgs.methods.mgs import MGSOptions
from mgs.methods.table import make_method
from mgs.scoring.wording import remark_on_checkpoint
from mgs.training.checkpoint import find_checkpoint, load_checkpoint

ZERO_SHOT = "zero-shot, never trained on MOS"


@dataclass(frozen=True)
class Source:
    """Where a scorer comes from, and what follows from that."""

    name: str  # for people; of a checkpoint, its file
    fingerprint: str  # a hash of its weights
    scored: tuple[Dimension, ...]  # the dimensions that it gives
    prompt_style: str = "sentence"
    remarks: str = ""  # what each status says
    file: Path | None = None  # the checkpoint


def open_checkpoint(path: Path, machine: Machine) -> tuple[Engine, Source]:
    """A checkpoint file, a fold folder, or a run folder, whose first finished fold it takes. Raises `UserError`."""
    file = find_checkpoint(path)
    checkpoint = load_checkpoint(file)
    config, facts = checkpoint.config, checkpoint.metadata
    scored = tuple(dimension for dimension in DIMENSIONS if dimension in facts.get("val", {}))
    if not scored:
        raise UserError(f"{file}: does not say which dimensions it was trained on; train it again")
    style = config.data.prompt_style or facts_of(config.data.dataset).prompt_style
    source = Source(str(file), file_sha256(file), scored, style, remark_on_checkpoint(facts), file)
    return make_engine(checkpoint.model, config, machine), source


def open_bare(backbone: Backbone, machine: Machine) -> tuple[Engine, Source]:
    """A CLIP that has seen no MOS, at its own temperature."""
    config = Config(model=ModelConfig(clip=backbone.name), options=MGSOptions(temperature="clip"))
    source = Source(f"zero-shot {backbone.name}", backbone.sha256, DIMENSIONS[:3], remarks=ZERO_SHOT)
    return make_engine(make_method(backbone, config), config, machine), source
