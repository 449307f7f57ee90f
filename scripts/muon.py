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
            momentum, lr = group["momentum"], group["lr"]
            alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}  # matrices of one shape, and their steps
            for p in group["params"]:
                if p.grad is None:
                    continue
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - momentum)
                ahead = mean.lerp(p.grad, 1 - momentum)  # as Nesterov's
                several = 3 if len(p) == 3 * p.shape[1] else 1
                for matrix, step in zip(p.chunk(several), ahead.chunk(several), strict=True):
                    alike.setdefault(matrix.shape, []).append((matrix, step))
            for (rows, columns), pairs in alike.items():
                changes = orthogonal(torch.stack([step for _, step in pairs]))
                for (matrix, _), change in zip(pairs, changes, strict=True):
                    scale = max(1, rows / columns) ** 0.5
                    matrix.mul_(1 - lr * group["weight_decay"]).add_(change, alpha=-lr * scale)


def orthogonal(matrices: Tensor) -> Tensor:
    """About U @ V.T of each of N matrices U @ S @ V.T, (N, R, C), by Newton-Schulz steps: singular values of 0.7-1.2.

    Together, since small products one by one cost most of their time in calls.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
