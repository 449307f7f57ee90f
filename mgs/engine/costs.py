"""What a method costs: parameters, and operations for one image."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mgs.datasets.samples import Sample
from mgs.dimensions import Prompt
from mgs.engine.engine import Engine
from mgs.engine.loader import Loader
from mgs.evaluation.costs import Costs
from mgs.machine import device_name

GIGA = 1e9
Result = TypeVar("Result")


def measure_costs(
    loader: Loader, samples: Sequence[Sample], score: Callable[[], Result], *, train_s: float | None
) -> tuple[Result, Costs]:
    """What `score` gives, which scores these samples, and what that costs; operations are those of the first sample.

    `train_s` is how many seconds the method trained, if that is known.
    """
    engine, first = loader.engine, samples[0]
    gflop = count_gflop(engine, loader.read(first), Prompt(first.prompt, first.prompt_style))
    began = time.perf_counter()
    result = score()
    images_s = len(samples) / (time.perf_counter() - began)
    place = device_name(engine.machine.device), torch.get_num_threads()
    parameters, trained = count_parameters(engine.method)
    return result, Costs(parameters, trained if train_s != 0 else 0, *gflop, images_s, train_s, *place)


def count_parameters(method: nn.Module) -> tuple[int, int]:
    """All parameters of a method, its backbone included, and those that train."""
    sizes = [(p.numel(), p.requires_grad) for p in method.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)


@torch.inference_mode()
def count_gflop(engine: Engine, picture: Tensor, prompt: Prompt) -> tuple[float, float]:
    """Operations that scoring one image takes, in 10^9, and how many of them go into its texts.

    They are those of matrix products, convolutions and attention, a multiplication and an addition counting as two.
    Texts are all those that the method asks for, its fixed sentences too: their embeddings are forgotten before.
    `picture` is uint8, (3, H, W). The engine keeps no text afterwards.
    """
    counts = []
    engine.method.eval()
    engine.texts.embeddings.forget()
    # Not every device's fused attention is counted, but the products that it is made of are.
    with sdpa_kernel(SDPBackend.MATH):
        for _ in range(2):  # the second time, texts are kept
            with FlopCounterMode(display=False) as counter:
                engine.score(engine.stage([picture], [prompt]))
            counts.append(counter.get_total_flops() / GIGA)
    engine.texts.embeddings.forget()
    return counts[0], counts[0] - counts[1]
