"""Scores of samples, as a table beside their MOS."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd
import torch

from mgs.datasets.samples import Sample, dimensions_of
from mgs.dimensions import Dimension
from mgs.engine.loader import Loader
from mgs.engine.plan import LateScores
from mgs.errors import UserError
from mgs.progress_bar import progress

EVAL_BATCH = {"cuda": 32, "cpu": 8}  # images scored at once, at least
LOWER_RATE = "lower train.lr, or set precision=fp32"


def predict(loader: Loader, samples: Sequence[Sample], *, batch_size: int = 1) -> pd.DataFrame:
    """Score every sample, in order: a table of image, prompt, then <dimension>_mos and <dimension>_pred.

    Dimensions are those that the method gives and any sample has MOS for; where one sample has none, its MOS is NaN.
    Without a backward pass more images fit than in training: `batch_size` is the least. Raises `UserError` for scores
    that are not finite.
    """
    loader.engine.method.eval()
    dimensions = [d for d in dimensions_of(samples) if d in loader.engine.method.gives]
    rows: list[dict] = []
    size = max(batch_size, EVAL_BATCH[loader.engine.machine.device.type])
    with progress(total=len(samples), desc="scoring", unit="image", leave=False, delay=2) as bar:
        for part, found in score_samples(loader, samples, size, dimensions):
            for sample, scores in zip(part, found, strict=True):
                if not all(map(math.isfinite, scores.values())):
                    raise UserError(f"scoring: the model gives no finite scores; {LOWER_RATE}")
                row: dict = {"image": sample.name, "prompt": sample.prompt}
                for d in dimensions:
                    row |= {f"{d}_mos": sample.targets.get(d, math.nan), f"{d}_pred": scores[d]}
                rows.append(row)
            bar.update(len(part))
    return pd.DataFrame(rows)


@torch.inference_mode()
def score_samples(
    loader: Loader, samples: Sequence[Sample], size: int, dimensions: Sequence[Dimension]
) -> Iterator[tuple[Sequence[Sample], list[dict[str, float]]]]:
    """Batches of samples, each with its samples' scores, which are read when the next batch is on its way."""
    before: tuple[Sequence[Sample], LateScores] | None = None
    for part, batch in loader.batches(samples, size):
        scores = loader.engine.score(batch)
        found = LateScores(batch, {dimension: scores[dimension] for dimension in dimensions})
        if before:
            yield before[0], before[1].read()
        before = part, found
    if before:
        yield before[0], before[1].read()
