"""The loop: pictures to views, views and prompts to scores, scores to loss and steps; for any model of that shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler
from torch.utils.data import DataLoader, Dataset, RandomSampler, SequentialSampler
from tqdm import tqdm

from mgs.config import Config, TrainConfig, ViewsConfig
from mgs.data.datasets import Sample
from mgs.data.images import read_image
from mgs.data.views import make_views
from mgs.model.fragments import Prompt
from mgs.model.mgs import Scores
from mgs.runtime import UserError, autocast, choose_device, choose_precision

Model = Callable[[Tensor, Sequence[Prompt]], Scores]  # (B, V, 3, S, S) views and B prompts to B scores
Batch = list[tuple[Tensor, Sample]]  # decoded pictures, uint8 (3, H, W), each with its sample


@dataclass(frozen=True)
class Pipeline:
    """How decoded pictures reach a model: which views, how large, on what device, in what precision."""

    views: ViewsConfig
    size: int
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, config: Config, views: ViewsConfig, size: int) -> Pipeline:
        device = choose_device(config.device)
        return cls(views, size, device, choose_precision(config.precision, device))

    def cut(self, image: Tensor) -> Tensor:
        """A decoded picture's views, (V, 3, S, S), on the pipeline's device."""
        image = image.to(self.device)
        return make_views(image, self.size, layout=self.views.layout, antialias=self.views.antialias)

    def score(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """Dimension -> (B,) predictions, float32."""
        views = [self.cut(image) for image, _ in batch]
        prompts = [Prompt(sample.prompt, sample.prompt_style) for _, sample in batch]
        by_count: dict[int, list[int]] = {}  # pictures of one batch may differ in their number of views under `cover`
        for i, one in enumerate(views):
            by_count.setdefault(len(one), []).append(i)
        order, parts = [], []
        for members in by_count.values():
            with autocast(self.device, self.dtype):
                parts.append(model(torch.stack([views[i] for i in members]), [prompts[i] for i in members]))
            order += members
        back = torch.tensor(order, device=self.device).argsort()
        return {name: torch.cat([vars(part)[name] for part in parts])[back] for name in vars(parts[0])}


class Pictures(Dataset):
    """Samples with their pictures, decoded when asked for."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Sample]:
        sample = self.samples[index]
        return read_image(sample.image), sample


def make_loader(samples: Sequence[Sample], config: Config, *, shuffled: bool) -> DataLoader:
    """Batches of decoded pictures; shuffled anew each epoch, in an order that only the seed decides."""
    pictures = Pictures(samples)
    # The loader draws from its generator too, depending on its workers; so the sampler has one to itself.
    order = RandomSampler(pictures, generator=torch.Generator().manual_seed(config.seed))
    return DataLoader(
        pictures,
        batch_size=config.train.batch_size,
        sampler=order if shuffled else SequentialSampler(pictures),
        num_workers=config.data.workers,
        persistent_workers=config.data.workers > 0,
        collate_fn=list,  # pictures differ in size, so they stay a list
    )


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
    optimizer = torch.optim.AdamW(groups, weight_decay=train.weight_decay)
    return optimizer, CosineAnnealingLR(optimizer, T_max=steps, eta_min=train.final_lr)


def sum_of_errors(scores: dict[str, Tensor], samples: Sequence[Sample]) -> Tensor:
    """The loss: mean squared errors, summed over the dimensions that the samples have MOS for."""
    total = torch.zeros(())
    for dimension in samples[0].targets:
        predicted = scores[dimension]
        mos = torch.tensor([sample.targets[dimension] for sample in samples], device=predicted.device)
        total = total.to(predicted.device) + nn.functional.mse_loss(predicted, mos)
    return total


class Trainer:
    """One model, its optimiser and its schedule, advanced an epoch at a time."""

    def __init__(self, model: nn.Module, samples: Sequence[Sample], config: Config, pipeline: Pipeline) -> None:
        self.model, self.config, self.pipeline = model, config, pipeline
        self.images = len(samples)
        self.loader = make_loader(samples, config, shuffled=True)
        steps = config.train.epochs * len(self.loader)
        self.optimizer, self.schedule = make_optimizer(model, config.train, steps=steps)
        self.scaler = torch.amp.GradScaler(pipeline.device.type, enabled=pipeline.dtype == torch.float16)

    @property
    def lr(self) -> float:
        """The towers' learning rate now."""
        return float(self.schedule.get_last_lr()[0])

    def train_epoch(self, description: str) -> float:
        """One pass over the training samples, with a progress bar; returns the mean loss per image."""
        self.model.train()
        total, seen = 0.0, 0
        with tqdm(total=self.images, desc=description, unit="image", leave=False) as bar:
            for batch in self.loader:
                loss = self.step(batch)
                total, seen = total + loss * len(batch), seen + len(batch)
                bar.update(len(batch))
                bar.set_postfix(loss=f"{total / seen:.4f}", lr=f"{self.lr:.1e}")
        return total / seen

    def step(self, batch: Batch) -> float:
        """One optimiser step; returns the batch's loss."""
        loss = sum_of_errors(self.pipeline.score(self.model, batch), [sample for _, sample in batch])
        if not torch.isfinite(loss):
            raise UserError(f"training: the loss became {loss.item()}; lower train.lr, or set precision=fp32")
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.clip_gradient)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        return loss.item()


@torch.inference_mode()
def predict(model: nn.Module, samples: Sequence[Sample], config: Config, pipeline: Pipeline) -> pd.DataFrame:
    """Score every sample, in order: a table of image, prompt, then <dimension>_mos and <dimension>_pred per target."""
    model.eval()
    rows: list[dict] = []
    with tqdm(total=len(samples), desc="scoring", unit="image", leave=False, delay=2) as bar:
        for batch in make_loader(samples, config, shuffled=False):
            scores = {name: values.tolist() for name, values in pipeline.score(model, batch).items()}
            if not all(math.isfinite(scores[d][i]) for i, (_, sample) in enumerate(batch) for d in sample.targets):
                raise UserError("scoring: the model gives no finite scores; lower train.lr, or set precision=fp32")
            for i, (_, sample) in enumerate(batch):
                row: dict = {"image": sample.name, "prompt": sample.prompt}
                for dimension, mos in sample.targets.items():
                    row |= {f"{dimension}_mos": mos, f"{dimension}_pred": scores[dimension][i]}
                rows.append(row)
            bar.update(len(batch))
    return pd.DataFrame(rows)
