"""What of a CLIP its tensors do not show: activations, the width of heads, and how pixels are normalized."""

from __future__ import annotations

import dataclasses
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]
Channels: TypeAlias = tuple[float, float, float]
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
MOST_WIDTH = 1 << 16  # of a head, far above any


@dataclass(frozen=True)
class Tower:
    """What one tower's tensors do not show; by default as OpenAI has it."""

    activation: Activation = "quick_gelu"
    head_width: int = 64  # a block has width / head_width attention heads
    epsilon: float = 1e-5  # of its layer norms

    def __post_init__(self) -> None:
        if self.activation not in get_args(Activation):
            raise ValueError(f"activation: must be one of {', '.join(get_args(Activation))}")
        if type(self.head_width) is not int or not 1 <= self.head_width <= MOST_WIDTH:
            raise ValueError("head_width: must be a whole number above 0")
        if type(self.epsilon) is not float or not 0 < self.epsilon < 0.1:  # NaN is not
            raise ValueError("epsilon: must be a number from 0 to 0.1")


@dataclass(frozen=True)
class Architecture:
    """What a CLIP's tensors do not show; by default as OpenAI has it. Values that cannot be are a `ValueError`."""

    image: Tower = dataclasses.field(default_factory=Tower)
    text: Tower = dataclasses.field(default_factory=Tower)
    mean: Channels = MEAN  # subtracted from pixels on 0-1
    std: Channels = STD  # by which they are divided then

    def __post_init__(self) -> None:
        for name, least in (("mean", 0.0), ("std", 1e-6)):
            object.__setattr__(self, name, as_channels(name, getattr(self, name), least))

    def with_activation(self, activation: Activation) -> Architecture:
        """The same with that activation in both towers."""
        replace = dataclasses.replace
        towers = {name: replace(getattr(self, name), activation=activation) for name in ("image", "text")}
        return replace(self, **towers)

    def describe(self) -> dict[str, Any]:
        """It as plain values, for a file; `architecture_of` reads them."""
        return dataclasses.asdict(self) | {"mean": list(self.mean), "std": list(self.std)}


def architecture_of(content: Any) -> Architecture:
    """What `Architecture.describe` gave, read from a file; `ValueError` for anything else."""
    try:
        towers = {name: Tower(**dict(content[name])) for name in ("image", "text")}
        return Architecture(**{**content, **towers})
    except (TypeError, KeyError) as error:
        raise ValueError(f"architecture: {' '.join(str(error).split())[:200]}") from None


def recorded_architecture(facts: Mapping[str, Any]) -> Architecture:
    """What a checkpoint says of its backbone; older ones say only mean and std, or nothing. Raises `ValueError`."""
    statistics = {name: facts[name] for name in ("mean", "std") if name in facts}
    return architecture_of({**OPENAI.describe(), **facts.get("architecture", {}), **statistics})


def as_channels(name: str, values: Any, least: float) -> Channels:
    """Three finite numbers, one a color, from `least` to 10; `ValueError` for anything else."""
    numbers = list(values) if isinstance(values, (list, tuple)) else []
    plain = all(type(n) in (int, float) and math.isfinite(n) and least <= n < 10 for n in numbers)
    if len(numbers) != 3 or not plain:
        raise ValueError(f"{name}: must be three numbers from {least:g} to 10")
    red, green, blue = array("f", numbers)  # rounded to float32, as tensors have them
    return red, green, blue


def section(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A part of a JSON file that is a mapping itself, empty where it is absent; `ValueError` for anything else."""
    part = content.get(key)
    if part is None:
        return {}
    if not isinstance(part, dict):
        raise ValueError(f"{key}: must be a mapping")
    return part


def whole_number(name: str, value: Any, most: int = 1 << 20) -> int:
    """A whole number above 0; `ValueError` for anything else."""
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"{name}: must be a whole number from 1 to {most:,}")
    return value


OPENAI = Architecture()
