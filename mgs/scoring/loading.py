"""Open what a scorer is made from: a checkpoint, or a bare CLIP."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

from mgs.backbones.backbone import Backbone
from mgs.config import Config, ModelConfig
from mgs.datasets.facts import facts_of
from mgs.dimensions import DIMENSIONS, Dimension
from mgs.engine.engine import Engine, make_engine
from mgs.errors import UserError
from mgs.files import file_sha256
from mgs.machine import Machine
from mgs.methods.method import Options
from mgs.methods.table import METHODS, make_method
from mgs.scoring.wording import UNTRAINED, remark_on_checkpoint
from mgs.training.checkpoint import load_checkpoint
from mgs.training.find_checkpoint import find_checkpoint


@dataclass(frozen=True)
class Source:
    """Where a scorer comes from, and what follows from that."""

    name: str  # for people; of a checkpoint, its file
    fingerprint: str  # a hash of its weights
    scored: tuple[Dimension, ...]  # the dimensions that it gives
    prompt_style: str = "sentence"
    remarks: str = ""  # what each status says
    file: Path | None = None  # the checkpoint
    method: str = "mgs"  # a row of METHODS


def open_checkpoint(path: Path, machine: Machine) -> tuple[Engine, Source]:
    """A checkpoint file, a fold folder, or a run folder, whose first finished fold it takes. Raises `UserError`."""
    file = find_checkpoint(path)
    checkpoint = load_checkpoint(file)
    config, facts = checkpoint.config, checkpoint.metadata
    scored = tuple(dimension for dimension in DIMENSIONS if dimension in facts.get("val", {}))
    if not scored:
        raise UserError(f"{file}: does not say which dimensions it was trained on; train it again")
    style = config.data.prompt_style or facts_of(config.data.dataset).prompt_style
    source = Source(str(file), file_sha256(file), scored, style, remark_on_checkpoint(facts), file, config.method)
    return make_engine(checkpoint.model, config, machine), source


def open_bare(
    backbone: Backbone, machine: Machine, method: str = "mgs", options: Options | None = None
) -> tuple[Engine, Source]:
    """Weights that are not known to have seen MOS, scored by a method, by default with its options for such."""
    row = METHODS[method]
    options = options or row.options(**row.elsewhere)
    for missing in (name for name in row.needs if getattr(options, name) is None):
        raise UserError(f"method {method}: what it learns is not in a CLIP; name a file of it with options.{missing}")
    config = Config(method=method, model=ModelConfig(clip=backbone.name), options=options)
    made = make_method(backbone, config)
    scored = tuple(dimension for dimension in made.gives if dimension != "overall")  # whose shares nobody learned
    told = ", ".join(f"{name} {value}" for name, value in asdict(options).items() if value is not None)
    title = row.title or method
    how = f"{title} ({told})" if told else title
    remarks = UNTRAINED if method == "mgs" else f"{how}, as the weights were trained; not by MGS on MOS"
    name = f"zero-shot {backbone.name}" if method == "mgs" else f"{title} with {backbone.name}"
    digest = hashlib.sha256(f"{backbone.sha256} {config}".encode())
    for own in (weight for part, weight in made.named_parameters() if not part.startswith("backbone.")):
        digest.update(own.detach().numpy().tobytes())  # a file may have had other content under the same name
    engine = make_engine(made, config, machine)
    return engine, Source(name, digest.hexdigest(), scored or made.gives, remarks=remarks, method=method)
