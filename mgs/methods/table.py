"""`METHODS`: the ways to score, as rows of one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from mgs.backbones.backbone import Backbone
from mgs.config import Config, ViewsConfig
from mgs.dimensions import MOS_MAX
from mgs.images.cuts import Cuts
from mgs.images.fit import Fit
from mgs.methods.clip_iqa import CLIPIQA
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
    title: str = ""  # as tables call it; by default its name in this table


CENTRE = Cuts("none", whole="centre", fit=Fit(224, 224, "bicubic", "cut"))
METHODS = {
    "mgs": MethodFacts(MGS, MGSOptions, Cuts(), title="MGS"),
    "ipce": MethodFacts(
        IPCE,
        TargetOptions,
        Cuts("even", 224, count=15, fit=Fit(longer="cut")),
        training_cuts=Cuts("random", 224, count=8, flip=True, fit=Fit(longer="cut")),
        title="IPCE",
    ),
    "liqe": MethodFacts(
        LIQE,
        LIQEOptions,
        Cuts("even", 224, whole="none", count=15, fit=Fit(0, 768, longer="cut")),
        scale=SCALE,
        training_cuts=Cuts("random", 224, whole="none", count=3, flip=True, fit=Fit(0, 768, longer="cut")),
        title="LIQE",
    ),
    "clip-iqa": MethodFacts(CLIPIQA, Options, CENTRE, scale=(0.0, 1.0), title="CLIP-IQA"),
    "clip-score": MethodFacts(CLIPScore, Options, CENTRE, scale=(0.0, WEIGHT), title="CLIPScore"),
}


def make_method(backbone: Backbone, config: Config) -> Method:
    """The config's method on a backbone, of which what the config says is frozen."""
    backbone.freeze(config.model.frozen_blocks, stem=config.model.freeze_stem)
    row = METHODS[config.method]
    with torch.random.fork_rng(devices=[]):  # the weights that it begins with follow from the config's seed alone
        torch.default_generator.manual_seed(config.seed)
        return row.make(backbone, config.options or row.options())


def choose_cuts(method: str, views: ViewsConfig) -> Cuts:
    """A method's cuts, changed as a config says."""
    cuts = METHODS[method].cuts
    antialias = cuts.antialias if views.antialias is None else views.antialias
    return replace(cuts, windows=views.layout or cuts.windows, antialias=antialias)
