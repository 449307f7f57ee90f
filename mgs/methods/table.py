"""`METHODS`: the ways to score, as rows of one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from mgs.backbones.backbone import Backbone
from mgs.config import Config, ViewsConfig
from mgs.dimensions import MOS_MAX
from mgs.images.cuts import Cuts, Windows
from mgs.images.fit import Fit
from mgs.methods.clip_iqa import CLIPIQA
from mgs.methods.clip_iqa_plus import CLIPIQAPlus, CLIPIQAPlusOptions
from mgs.methods.clip_score import WEIGHT, CLIPScore
from mgs.methods.ipce import IPCE, TargetOptions
from mgs.methods.liqe import LIQE, SCALE, LIQEOptions
from mgs.methods.method import Method, Options
from mgs.methods.mgs import MGS, MGSOptions


@dataclass(frozen=True)
class MethodFacts:
    """One method's row of the table."""

    make: Callable[[Backbone, Any], Method]  # from a backbone and an instance of `options`
    options: type[Options]
    cuts: Cuts
    scale: tuple[float, float] = (0.0, MOS_MAX)  # worst and best of its scores, which are mapped linearly onto 0-5
    training_cuts: Cuts | None = None  # by default the same
    layouts: tuple[Windows, ...] = ()  # other windows that a config may ask for
    title: str = ""  # as tables call it; by default its name in this table
    trains: Literal["all", "own", "nothing"] = "all"  # own: what the method has besides its backbone
    defaults: Mapping[str, Any] = field(default_factory=dict)  # of a config, where they are not MGS's
    elsewhere: Mapping[str, Any] = field(default_factory=dict)  # options for weights that were trained elsewhere
    needs: tuple[str, ...] = ()  # options without which such weights cannot score


# as IPCE's and LIQE's authors train
FULLY = {
    "model": {"clip": "ViT-B/32", "frozen_blocks": 0.0},
    "train": {"batch_size": 16, "weight_decay": 1e-3, "clip_gradient": None},
}
CENTRE = Cuts("none", whole="centre", fit=Fit(224, 224, "bicubic", "cut"))
NATIVE = replace(CENTRE, whole="native")
METHODS = {
    "mgs": MethodFacts(
        MGS, MGSOptions, Cuts(), layouts=("cover", "none"), title="MGS", elsewhere={"temperature": "clip"}
    ),
    "ipce": MethodFacts(
        IPCE,
        TargetOptions,
        Cuts("even", 224, count=15, fit=Fit(longer="cut")),
        training_cuts=Cuts("random", 224, count=8, flip=True, fit=Fit(longer="cut")),
        title="IPCE",
        defaults=FULLY,
    ),
    "liqe": MethodFacts(
        LIQE,
        LIQEOptions,
        Cuts("even", 224, whole="none", count=15, fit=Fit(0, 768, longer="cut")),
        scale=SCALE,
        training_cuts=Cuts("random", 224, whole="none", count=3, flip=True, fit=Fit(0, 768, longer="cut")),
        title="LIQE",
        defaults=FULLY,
        elsewhere={"form": "full"},
    ),
    "clip-iqa": MethodFacts(
        CLIPIQA,
        Options,
        NATIVE,
        scale=(0.0, 1.0),
        title="CLIP-IQA",
        trains="nothing",
        defaults={"model": {"clip": "RN50"}, "train": {"epochs": 0}},
    ),
    "clip-iqa-plus": MethodFacts(
        CLIPIQAPlus,
        CLIPIQAPlusOptions,
        NATIVE,
        training_cuts=replace(NATIVE, flip=True),
        scale=(0.0, 1.0),
        title="CLIP-IQA+",
        trains="own",
        needs=("context",),
        defaults={
            "model": {"clip": "RN50"},
            "train": {"lr": 2e-3, "final_lr": 1e-7, "batch_size": 8, "weight_decay": 0.0, "clip_gradient": None},
        },
    ),
    "clip-score": MethodFacts(
        CLIPScore,
        Options,
        CENTRE,
        scale=(0.0, WEIGHT),
        title="CLIPScore",
        trains="nothing",
        defaults={"model": {"clip": "ViT-B/32"}, "train": {"epochs": 0}},
    ),
}


def make_method(backbone: Backbone, config: Config, *, new: bool = True) -> Method:
    """The config's method on a backbone, of which what the config says is frozen.

    One that is not new gets all its weights from a checkpoint. Raises `UserError` for files that the options name.
    """
    row = METHODS[config.method]
    if row.trains == "all":
        backbone.freeze(config.model.frozen_blocks, stem=config.model.freeze_stem)
    else:
        backbone.freeze(1.0, stem=True)
        backbone.requires_grad_(False)  # what lies above the blocks too
    with torch.random.fork_rng(devices=[]):  # the weights that it begins with follow from the config's seed alone
        torch.default_generator.manual_seed(config.seed)
        method = row.make(backbone, config.options or row.options())
    if new:
        method.begin()
    return method


def choose_cuts(method: str, views: ViewsConfig) -> Cuts:
    """A method's cuts, changed as a config says."""
    cuts = METHODS[method].cuts
    antialias = cuts.antialias if views.antialias is None else views.antialias
    return replace(cuts, windows=views.layout or cuts.windows, antialias=antialias)
