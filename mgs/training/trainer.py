"""The loop: batches to scores, scores to loss and steps; for any method."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler

from mgs.config import Config, TrainConfig
from mgs.datasets.samples import Sample
from mgs.engine.loader import Loader, epoch_order
from mgs.engine.plan import Batch
from mgs.engine.predict import LOWER_RATE
from mgs.engine.transfer import Late
from mgs.errors import UserError
from mgs.images.cuts import Draw
from mgs.machine import exact_products
from mgs.methods.method import Method
from mgs.progress_bar import progress

MOST_SKIPPED = 10  # steps in a row whose loss or gradient is not finite, before training stops
RESTORED = ("optimizer", "schedule", "scaler")  # of a trainer, beside weights and counts


def make_optimizer(model: Method, train: TrainConfig, *, epoch_steps: int) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """AdamW over what trains, and a cosine from `lr` to `final_lr` over exactly the run's steps, or a wave.

    What the method holds besides its backbone, the heads, may have a learning rate of its own.
    """
    towers = list(model.backbone.parameters())
    heads = [parameter for name, parameter in model.named_parameters() if not name.startswith("backbone.")]
    groups = [
        {"params": [p for p in towers if p.requires_grad], "lr": train.lr},
        {"params": [p for p in heads if p.requires_grad], "lr": train.head_lr or train.lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=train.weight_decay, fused=True)  # one pass over the weights
    if train.wave_epochs is None:
        return optimizer, CosineAnnealingLR(optimizer, T_max=train.epochs * epoch_steps, eta_min=train.final_lr)
    half = train.wave_epochs
    return optimizer, LambdaLR(optimizer, lambda step: wave(step // epoch_steps, half))


def wave(epoch: int, half: int) -> float:
    """The share of the learning rate in an epoch, counted from 0: it falls in `half` epochs, then rises in as many.

    So IPCE and LIQE train: `CosineAnnealingLR(T_max=half)` beyond its period, less the epochs in which it is 0.
    """
    period, place = divmod(epoch, 2 * half - 1)
    return (1 + math.cos(math.pi * (2 * half * period + place + (place >= half)) / half)) / 2


@dataclass
class Counts:
    """How far training has come: the numbers that weights, optimiser and schedule do not hold."""

    epoch: int = 1  # the epoch in progress
    steps: int = 0  # of this epoch, so far
    loss: float = 0.0  # summed over the images below
    images: int = 0  # in this epoch's steps, without the skipped ones
    skipped: int = 0  # steps, in all epochs
    skipped_in_a_row: int = 0


class Trainer:
    """One model, its optimiser and its schedule, advanced an epoch at a time; it can resume at any step."""

    def __init__(self, loader: Loader, samples: Sequence[Sample], config: Config) -> None:
        """Start before the first step of training the loader's method; `samples` are those to train on.

        Nothing is read from disk until `train_epoch`, and nothing is written.
        """
        self.loader, self.engine, self.model, self.config = loader, loader.engine, loader.engine.method, config
        self.samples = samples
        epoch_steps = math.ceil(len(samples) / config.train.batch_size)
        self.steps = config.train.epochs * epoch_steps  # of the whole run
        self.optimizer, self.schedule = make_optimizer(self.model, config.train, epoch_steps=epoch_steps)
        machine = self.engine.machine
        self.scaler = torch.amp.GradScaler(machine.device.type, enabled=machine.dtype == torch.float16)
        self.counts = Counts()
        self.waiting: tuple[Late, int] | None = None  # the last step's loss, and how many images it is of

    @property
    def lr(self) -> float:
        """The towers' learning rate now."""
        return float(self.schedule.get_last_lr()[0])

    def state_dict(self) -> dict[str, Any]:
        """All that training changes, as tensors and plain values; the tensors are those in use, not copies."""
        self.settle()
        weights = {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}
        parts = {name: getattr(self, name).state_dict() for name in RESTORED}
        return {"weights": weights, "counts": asdict(self.counts), **parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from what `state_dict` gave. Raises `KeyError`, `ValueError` or `RuntimeError` if it does not fit."""
        _, unexpected = self.model.load_state_dict(state["weights"], strict=False)
        if unexpected or state["weights"].keys() != self.state_dict()["weights"].keys():
            raise ValueError("the weights are of another model")
        for name in RESTORED:
            if state[name] or name != "scaler":  # one that was off, on another device, has no state
                getattr(self, name).load_state_dict(state[name])
        self.counts = Counts(**state["counts"])

    def train_epoch(self, description: str, after_step: Callable[[], None] = lambda: None) -> float:
        """Train the rest of the epoch, with a progress bar; returns the mean loss per image, NaN if all was skipped.

        A step whose loss or gradient is not finite is skipped and counted: in float16 the first few are normal. Raises
        `UserError` if ten in a row are skipped, even across epochs, or every step of the whole run.
        """
        self.model.train()
        counts, size, total = self.counts, self.config.train.batch_size, len(self.samples)
        done = min(counts.steps * size, total)
        seed = self.config.seed
        rest = [self.samples[i] for i in epoch_order(total, seed, counts.epoch)[done:]]
        draws = [Draw(seed, counts.epoch, position) for position in range(done, total)]
        with progress(total=total, initial=done, desc=description, unit="image", leave=False) as bar:
            for part, batch in self.loader.batches(rest, size, draws):
                loss = Late(self.step(batch))
                self.settle()
                self.waiting = loss, len(part)
                counts.steps += 1
                bar.update(len(part))
                loss_so_far = {"loss": f"{counts.loss / counts.images:.4f}"} if counts.images else {}
                bar.set_postfix(**loss_so_far, lr=f"{self.lr:.1e}", refresh=False)
                after_step()
        self.settle()
        return counts.loss / counts.images if counts.images else math.nan

    def settle(self) -> None:
        """Count the last step, whose loss is read only now, when the next one is on its way. Raises `UserError`."""
        if self.waiting is None:
            return
        (loss, images), self.waiting, counts = self.waiting, None, self.counts
        value = loss.read()
        if math.isfinite(value):
            counts.loss += value * images
            counts.images += images
            counts.skipped_in_a_row = 0
            return
        counts.skipped += 1
        counts.skipped_in_a_row += 1
        if counts.skipped_in_a_row >= MOST_SKIPPED or counts.skipped == self.steps:
            raise UserError(
                f"training: {counts.skipped_in_a_row} steps in a row whose loss or gradient is not finite; {LOWER_RATE}"
            )

    def next_epoch(self) -> None:
        """Move on to the next epoch; call it when everything that depends on this one is done."""
        counts = self.counts
        counts.epoch += 1
        counts.steps, counts.loss, counts.images = 0, 0.0, 0

    def step(self, batch: Batch) -> Tensor:
        """One optimiser step; the batch's loss, (), on the device: NaN for a step that was skipped."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.model.loss(self.engine.score(batch), batch.mos)
        with exact_products:
            self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        limit = self.config.train.clip_gradient
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), math.inf if limit is None else limit)
        failed = ~(torch.isfinite(loss.detach()) & torch.isfinite(norm))
        # The fused optimiser reads on the device whether it shall leave the weights as they are. So the host need not
        # wait. The gradients are scaled back already.
        self.optimizer.grad_scale, self.optimizer.found_inf = None, failed.float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.scaler.update()  # fp16: an overflow lowers the scale
        self.schedule.step()
        self.engine.texts.embeddings.forget()  # a fused optimiser's changes are not counted by torch
        return loss.detach().where(~failed, math.nan)
