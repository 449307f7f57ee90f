"""What commands that score have in common: which model, on what machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mgs.errors import UserError

if TYPE_CHECKING:
    from mgs.scoring.scorer import Scorer


CHECKPOINT_HELP = "a checkpoint file, its fold folder or its run folder; default: the newest under runs/"
DEFAULT_CLIP = "ViT-B/16"
CLIP_HELP = f"for --zero-shot: an OpenAI name, a local file, or demo; default: {DEFAULT_CLIP}"
STYLE_HELP = "keywords, hybrid or sentence; default: the checkpoint's, else sentence"
MAY_BE_SET = ("device", "precision")


def open_scorer(
    checkpoint: Path | None, settings: list[str], *, zero_shot: bool = False, clip: str | None = None
) -> Scorer:
    """The scorer that the options name: a bare CLIP, a checkpoint, or the newest one under runs/."""
    from mgs.config_files import load_config
    from mgs.scoring.scorer import Scorer
    from mgs.training.checkpoint import newest_checkpoint

    if clip and not zero_shot:
        raise UserError("--clip: is for --zero-shot; leave it out, or add that")
    if checkpoint and zero_shot:
        raise UserError("--zero-shot: goes without a checkpoint; leave out one of --zero-shot and --checkpoint")
    for word in settings:
        if word.partition("=")[0] not in MAY_BE_SET:
            remedy = "all else comes from the checkpoint"
            raise UserError(f"--set {word}: only {' and '.join(MAY_BE_SET)} can be set here; {remedy}")
    machine = load_config(None, ["name=score", *settings])
    if zero_shot:
        return Scorer.zero_shot(clip or DEFAULT_CLIP, device=machine.device, precision=machine.precision)
    path = checkpoint or newest_checkpoint(Path(machine.runs))
    return Scorer.load(path, device=machine.device, precision=machine.precision)
