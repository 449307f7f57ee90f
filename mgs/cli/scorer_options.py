"""What commands that score have in common: which model, on what machine."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mgs.errors import UserError

if TYPE_CHECKING:
    from mgs.scoring.scorer import Scorer


CHECKPOINT_HELP = "a checkpoint file, its fold or run folder; default: the newest under runs/ that saw real images"
DEFAULT_CLIP = "ViT-B/16"
CLIP_HELP = (
    f"a bare CLIP, zero-shot: an OpenAI name, a local file or folder, or demo; --zero-shot alone is {DEFAULT_CLIP}"
)
METHOD_HELP = "score by another method (ipce, liqe, clip-iqa, clip-iqa-plus, clip-score) with the weights of --clip"
SETTINGS_HELP = "device=..., precision=...; with --method options.NAME=...; with --clip model.activation=..."
STYLE_HELP = "keywords, hybrid or sentence; default: the checkpoint's, else sentence"
MAY_BE_SET = ("device", "precision")
ACTIVATION = "model.activation"  # of the weights that --clip names


@dataclass(frozen=True)
class ScorerWords:
    """The options that name a scorer. They can be pickled, so that other processes open the same one."""

    checkpoint: Path | None = None
    settings: tuple[str, ...] = ()
    zero_shot: bool = False
    clip: str | None = None
    method: str | None = None

    def on(self, device: str, precision: str | None = None) -> ScorerWords:
        """The same scorer on another device, perhaps in another precision."""
        told = {"device": device, "precision": precision or self.setting("precision") or "auto"}
        others = [word for word in self.settings if word.partition("=")[0] not in told]
        return replace(self, settings=(*others, *(f"{key}={value}" for key, value in told.items())))

    def exactly(self, scorer: Scorer) -> ScorerWords:
        """The words for a scorer that these words chose, whatever is trained meanwhile."""
        file = scorer.source.file
        return replace(self, checkpoint=file) if file else replace(self, zero_shot=True)

    def setting(self, key: str) -> str:
        """What is set for device or precision; "" where nothing is."""
        return next((word.partition("=")[2] for word in self.settings if word.startswith(f"{key}=")), "")

    def device_on_ray(self) -> str:
        """`auto`, `cpu` or `cuda`; raises `UserError` for a GPU by its number."""
        device = self.setting("device") or "auto"
        if device not in ("auto", "cpu", "cuda"):
            raise UserError(f"--set device={device}: with --ray, say cpu or cuda, or leave it out")
        return device


def open_on(device: str, words: ScorerWords) -> Scorer:
    """The scorer of a process of its own, on its device."""
    return open_scorer(words.on(device))


def open_scorer(words: ScorerWords, images: Iterable[Path | None] = ()) -> Scorer:
    """The scorer that the options name; where they name none, `choose_checkpoint`'s, else a bare CLIP."""
    from mgs.backbones.table import load_backbone
    from mgs.config_files import load_elsewhere
    from mgs.machine import keep_freed_memory
    from mgs.scoring.scorer import Scorer

    checkpoint, clip, method = words.checkpoint, words.clip, words.method
    zero_shot = words.zero_shot or clip is not None or method is not None
    if checkpoint and zero_shot:
        raise UserError("--zero-shot, --clip, --method: score without a checkpoint; leave out these, or --checkpoint")
    if method == "mgs":
        raise UserError("--method mgs: is what scores without --method; leave it out")
    for word in words.settings:
        key = word.partition("=")[0]
        allowed = key in MAY_BE_SET or (method and key.startswith("options.")) or (zero_shot and key == ACTIVATION)
        if not allowed:
            remedy = "all else comes from the checkpoint"
            raise UserError(f"--set {word}: only {' and '.join(MAY_BE_SET)} can be set here; {remedy}")
    keep_freed_memory()  # the process is our own
    machine = load_elsewhere(method or "mgs", list(words.settings))
    runs = Path(machine.runs)
    path = None if zero_shot else checkpoint or choose_checkpoint(runs, images)
    if path:
        return Scorer.load(path, device=machine.device, precision=machine.precision)
    try:
        name = clip or (machine.model.clip if method else DEFAULT_CLIP)
        backbone = load_backbone(name, option="--clip", activation=machine.model.activation)
    except UserError as error:
        if zero_shot:
            raise
        remedies = "train one, name one with --checkpoint, or score drawings with --clip demo"
        raise UserError(f"{runs}: no checkpoint that saw real images; {remedies}; {error}") from None
    if not zero_shot:
        print(
            f"{runs}: no checkpoint that saw real images, so a bare {DEFAULT_CLIP} scores, zero-shot", file=sys.stderr
        )
    return Scorer.of_backbone(
        backbone,
        method=method or "mgs",
        options=machine.options,
        device=machine.device,
        precision=machine.precision,
    )


def choose_checkpoint(runs: Path, images: Iterable[Path | None]) -> Path | None:
    """The newest checkpoint that was trained on real images; if all images are the demo's, the demo's is preferred."""
    from mgs.demo.recognise import is_drawing
    from mgs.training.find_checkpoint import newest_checkpoint

    places = iter(images)
    first = next(places, None)
    drawn = first is not None and is_drawing(first) and all(one is not None and is_drawing(one) for one in places)
    return (drawn and newest_checkpoint(runs, of_drawings=True)) or newest_checkpoint(runs)
