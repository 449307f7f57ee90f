"""Frozen weights in the precision of matrix products, cast once rather than in every forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Casts:
    """A function from weights to what matrix products use of them: under autocast, a cast copy that is kept.

    A weight that trains is returned as it is: autocast casts it, with its gradient. Copies follow a weight that is
    changed or moved.
    """

    def __init__(self) -> None:
        # Weight -> what its copy depends on, and the copy. A tensor's hash is its identity, whatever it holds.
        self.kept: dict[Tensor, tuple[Any, Tensor]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"kept": {}}  # for another process, which has other weights

    def __deepcopy__(self, memo: dict) -> Casts:
        return Casts()

    def __call__(self, weight: Tensor) -> Tensor:
        """The weight, or its copy in autocast's precision."""
        kind = weight.device.type
        if weight.requires_grad or not torch.is_autocast_enabled(kind):
            return weight
        state = (torch.get_autocast_dtype(kind), weight.device, weight.data_ptr(), version(weight))
        if weight not in self.kept or self.kept[weight][0] != state:
            with torch.inference_mode(False), torch.no_grad():  # a copy may be part of a backward pass later
                self.kept[weight] = state, weight.detach().to(state[0])
        return self.kept[weight][1]


def version(weight: Tensor) -> int:
    """How often a weight was changed, as torch counts it; it does not count what was made in inference mode."""
    return 0 if weight.is_inference() else weight._version
