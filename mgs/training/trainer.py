"""The loop: batches to scores, scores to loss and steps; for any model that maps views and prompts to scores."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from mgs.config import Config, TrainConfig
from mgs.datasets.samples import Sample, dimensions_of
from mgs.engine.engine import Batch, Pipeline, epoch_order, eval_batch
from mgs.errors import UserError
from mgs.machine import exact_products
from mgs.progress_bar import progress

MOST_SKIPPED = 10  # steps in a row whose loss or gradient is not finite, before training stops
RESTORED = ("optimizer", "schedule", "scaler")  # of a trainer, beside weights and counts
LOWER_RATE = "lower train.lr, or set precision=fp32"


def make_optimizer(model: nn.Module, train: TrainConfig, *, steps: int) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """AdamW over what trains, and a cosine from `lr` to `final_lr` over exactly `steps` steps.

    The few parameters that the model holds itself, outside its towers, may have a learning rate of their own.
    """
    heads = list(model.parameters(recurse=False))
    towers = [parameter for part in model.children() for parameter in part.parameters()]
    groups = [
        {"params": [p for p in towers if p.requires_grad], "lr": train.lr},
        {"params": [p for p in heads if p.requires_grad], "lr": train.head_lr or train.lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=train.weight_decay, fused=True)  # one pass over the weights
    return optimizer, CosineAnnealingLR(optimizer, T_max=steps, eta_min=train.final_lr)


def sum_of_errors(scores: dict[str, Tensor], samples: Sequence[Sample]) -> Tensor:
    """The loss: each dimension's mean squared error over the samples that have MOS for it, summed over dimensions."""
    dimensions = dimensions_of(samples)
    predicted = torch.stack([scores[dimension] for dimension in dimensions])  # (D, B)
    mos = torch.tensor([[sample.targets.get(d, math.nan) for sample in samples] for d in dimensions])  # (D, B)
    there = mos.isfinite()
    # a sample without MOS weighs 0, and the others weigh more to compensate; if all have MOS, each weighs 1
    weights = there * (len(samples) / there.sum(1, keepdim=True))
    mos, weights = torch.stack([mos.nan_to_num(0), weights]).to(predicted.device, predicted.dtype)
    return ((predicted - mos).square() * weights).mean(1).sum()


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

    def __init__(self, model: nn.Module, samples: Sequence[Sample], config: Config, pipeline: Pipeline) -> None:
        """Start before the first step. `model` must be on the pipeline's device; `samples` are those to train on.

        Nothing is read from disk until `train_epoch`, and nothing is written.
        """
        self.model, self.config, self.pipeline = model, config, pipeline
        self.samples = samples
        self.steps = config.train.epochs * math.ceil(len(samples) / config.train.batch_size)  # of the whole run
        self.optimizer, self.schedule = make_optimizer(model, config.train, steps=self.steps)
        self.scaler = torch.amp.GradScaler(pipeline.device.type, enabled=pipeline.dtype == torch.float16)
        self.counts = Counts()

    @property
    def lr(self) -> float:
        """The towers' learning rate now."""
        return float(self.schedule.get_last_lr()[0])

    def state_dict(self) -> dict[str, Any]:
        """All that training changes, as tensors and plain values; the tensors are those in use, not copies."""
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
        rest = [self.samples[i] for i in epoch_order(total, self.config.seed, counts.epoch)[done:]]
        with progress(total=total, initial=done, desc=description, unit="image", leave=False) as bar:
            for batch in self.pipeline.batches(rest, size):
                loss = self.step(batch)
                counts.steps += 1
                if loss is not None:
                    counts.loss += loss * len(batch)
                    counts.images += len(batch)
                elif counts.skipped_in_a_row >= MOST_SKIPPED or counts.skipped == self.steps:
                    raise UserError(
                        f"training: {counts.skipped_in_a_row} steps in a row whose loss or gradient is not finite; "
                        f"{LOWER_RATE}"
                    )
                bar.update(len(batch))
                bar.set_postfix(loss=f"{counts.loss / max(counts.images, 1):.4f}", lr=f"{self.lr:.1e}", refresh=False)
                after_step()
        return counts.loss / counts.images if counts.images else math.nan

    def next_epoch(self) -> None:
        """Move on to the next epoch; call it when everything that depends on this one is done."""
        counts = self.counts
        counts.epoch += 1
        counts.steps, counts.loss, counts.images = 0, 0.0, 0

    def step(self, batch: Batch) -> float | None:
        """One optimiser step; returns the batch's loss, or None for a step that was skipped."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = sum_of_errors(self.pipeline.score(self.model, batch), [sample for _, sample in batch])
        with exact_products:
            self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.clip_gradient)
        taken = bool(torch.isfinite(torch.stack([loss.detach(), norm])).all())
        if taken:
            self.scaler.step(self.optimizer)
        self.scaler.update()  # fp16: an overflow lowers the scale
        with warnings.catch_warnings():  # torch thinks that a skipped first step was forgotten
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
            self.schedule.step()
        self.counts.skipped_in_a_row = 0 if taken else self.counts.skipped_in_a_row + 1
        self.counts.skipped += not taken
        return loss.item() if taken else None


@torch.inference_mode()
def predict(model: nn.Module, samples: Sequence[Sample], config: Config, pipeline: Pipeline) -> pd.DataFrame:
    """Score every sample, in order: a table of image, prompt, then <dimension>_mos and <dimension>_pred.

    Dimensions are those that any sample has MOS for; where one sample has none, its MOS is NaN.
    """
    model.eval()
    dimensions = dimensions_of(samples)
    rows: list[dict] = []
    with progress(total=len(samples), desc="scoring", unit="image", leave=False, delay=2) as bar:
        for batch in pipeline.batches(samples, eval_batch(config, pipeline.device)):
            scores = {name: values.tolist() for name, values in pipeline.score(model, batch).items()}
            if not all(math.isfinite(score) for d in dimensions for score in scores[d]):
                raise UserError(f"scoring: the model gives no finite scores; {LOWER_RATE}")
            for i, (_, sample) in enumerate(batch):
                row: dict = {"image": sample.name, "prompt": sample.prompt}
                for d in dimensions:
                    row |= {f"{d}_mos": sample.targets.get(d, math.nan), f"{d}_pred": scores[d][i]}
                rows.append(row)
            bar.update(len(batch))
    return pd.DataFrame(rows)
