"""Freeze parts of a CLIP, and describe what trains and what is frozen."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from mgs.backbones.openai import Clip
from mgs.config import ModelConfig

PARTS = {  # pattern in a parameter's name -> what the log calls its part
    r"resblocks": "blocks",
    r"conv1|class_embedding|positional_embedding|token_embedding|ln_pre": "stem",
    r"ln_post|ln_final|proj": "projection",
}


def freeze(clip: Clip, share: float, *, stem: bool) -> None:
    """Freeze `logit_scale`, the first `share` of each tower's blocks, and with `stem` all that lies below them."""
    frozen: list[nn.Parameter] = [clip.logit_scale]
    for transformer in (clip.visual.transformer, clip.transformer):
        blocks = list(transformer.resblocks)
        for block in blocks[: int(share * len(blocks))]:
            frozen.extend(block.parameters())
    if stem:
        visual = clip.visual
        frozen += [visual.class_embedding, visual.positional_embedding, clip.positional_embedding]
        frozen += [*visual.conv1.parameters(), *visual.ln_pre.parameters(), *clip.token_embedding.parameters()]
    for parameter in frozen:
        parameter.requires_grad_(False)


def constant_blocks(transformer: Any, config: ModelConfig) -> int:
    """How many of a tower's first blocks are a constant function of its input; none if the stem below them trains.

    The last block never counts, even if it is frozen: it runs on one token only, so keeping its output saves little.
    """
    blocks = len(transformer.resblocks)
    return min(int(config.frozen_blocks * blocks), blocks - 1) if config.freeze_stem else 0


def describe_parameters(model: nn.Module) -> str:
    """A table of the model's parts: how many parameters train and how many are frozen, and in which blocks."""
    counts: dict[str, list[int]] = {}
    blocks: dict[str, dict[int, bool]] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        counts.setdefault(part, [0, 0])[not parameter.requires_grad] += parameter.numel()
        if block := re.search(r"resblocks\.(\d+)\.", name):
            blocks.setdefault(part, {})[int(block[1])] = parameter.requires_grad
    counts["all"] = [sum(column) for column in zip(*counts.values(), strict=True)]
    lines = [f"{'part':<32}{'trains':>14}{'frozen':>14}"]
    for part, (trains, frozen) in counts.items():
        trained = blocks.get(part)
        note = f", first {list(trained.values()).count(False)} of {len(trained)} frozen" if trained else ""
        lines.append(f"{part + note:<32}{trains:>14,}{frozen:>14,}")
    return "\n".join(lines)


def part_of(name: str) -> str:
    """The part of the model that a parameter belongs to, as the log names it."""
    tower = "image" if "visual." in name else "text"
    for pattern, part in PARTS.items():
        if re.search(pattern, name):
            return f"{tower} {part}"
    return name.removeprefix("clip.")
