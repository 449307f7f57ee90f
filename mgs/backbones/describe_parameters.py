"""Which parts of a model train and which are frozen, for the log."""

from __future__ import annotations

import re

from torch import nn

PARTS = {  # pattern in a parameter's name -> what the log calls its part
    r"resblocks|blocks\.\d|stages\.\d|layers?\.?\d": "blocks",
    r"conv1|class_embedding|positional_embedding|token_embedding|ln_pre": "stem",
    r"ln_post|ln_final|proj": "projection",
}


def describe_parameters(model: nn.Module) -> str:
    """A table of the model's parts: how many parameters train and how many are frozen, and in which blocks."""
    counts: dict[str, list[int]] = {}
    blocks: dict[str, dict[int, bool]] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        counts.setdefault(part, [0, 0])[not parameter.requires_grad] += parameter.numel()
        if block := re.search(r"blocks\.(\d+)\.", name):
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
    own = name.removeprefix("backbone.")
    return own if own == name or "." not in own else f"{tower} rest"
