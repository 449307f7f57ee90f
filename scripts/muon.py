"""Muon, in float32."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

STEPS, COEFFICIENTS = 5, (3.4445, -4.775, 2.0315)


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal, for matrices of hidden layers (Jordan 2024).

    torch.optim.Muon computes in bfloat16, which takes many times longer on a CPU that lacks it. A matrix that holds
    three (queries, keys, values) is taken as three.
    """

    def __init__(self, params: Iterable[Tensor], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; parameters without a gradient stay."""
        for group in self.param_groups:
            momentum = group["momentum"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - momentum)
                ahead = mean.lerp(p.grad, 1 - momentum)  # as Nesterov's
                several = 3 if len(p) == 3 * p.shape[1] else 1
                change = torch.cat([orthogonal(one) for one in ahead.chunk(several)])
                scale = max(1, len(p) // several / p.shape[1]) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(change, alpha=-group["lr"] * scale)


def orthogonal(matrix: Tensor) -> Tensor:
    """About U @ V.T of `matrix` = U @ S @ V.T, with singular values of 0.7 to 1.2, by Newton-Schulz steps."""
    tall = len(matrix) > matrix.shape[1]
    x = (matrix.T if tall else matrix) / (matrix.norm() + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
