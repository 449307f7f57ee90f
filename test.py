"""Test what train.py left: `python test.py [CONFIG.yaml ...] [key=value ...]`. Read it from top to bottom."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from mgs.config import Config
from mgs.data.image_cache import ImageCache
from mgs.data.splits import Fold, read_folds
from mgs.evaluation.report import DRAWINGS, Protocol, write_report
from mgs.launch import find_configs, load_config, refuse_other_run
from mgs.model.clip_backbone import input_size
from mgs.model.fragments import Prompt
from mgs.model.mgs import find_truncated
from mgs.runtime import UserError, choose_device, choose_precision, exit_on_user_error
from mgs.training.checkpoint import CHECKPOINT, FINISHED, fold_folder, load_checkpoint, refuse_other_fold
from mgs.training.engine import predict
from mgs.training.pipeline import Pipeline


def main(argv: Sequence[str]) -> None:
    """Test the run of every config named in `argv`, or of every dataset found."""
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return
    paths, overrides = find_configs(argv)
    for config in [load_config(path, overrides) for path in paths]:
        test_run(config)


def test_run(config: Config) -> None:
    """Score every fold's test set with that fold's checkpoint; print the table and leave it in the run's report folder.

    A fold without a finished checkpoint fails the run: a mean over the folds that happened to work is no result.
    """
    record = config.run_folder / "config.yaml"
    if not record.exists():
        raise UserError(f"{config.run_folder}: no such run; train it first with the same words after train.py")
    refuse_other_run(config, record)
    images = ImageCache(Path(config.data.cache_folder))
    load = partial(images.fill, place=config.data.cache, device=choose_device(config.device))
    folds, skipped = read_folds(config.data, config.folds, seed=config.seed, load=load, subsets=["test"])
    unfinished = [f.number for f in folds if not (fold_folder(config.run_folder, f.number) / FINISHED).exists()]
    if unfinished:
        raise UserError(
            f"{config.run_folder}: fold {', '.join(map(str, unfinished))} not trained to the end; run train.py with "
            "the same words, or name the folds to test, as in folds=[1,2]"
        )
    predictions = pd.concat([test_fold(config, fold, images) for fold in folds], ignore_index=True)
    precision = str(choose_precision(config.precision, choose_device(config.device))).removeprefix("torch.")
    notes = describe_exceptions(config, folds, skipped)
    protocol = Protocol(config.data.dataset, folds[0].protocol, config.model.clip, precision, notes)
    report = config.run_folder / "report"
    tqdm.write(write_report(predictions, protocol, report))
    tqdm.write(f"tables and predictions: {report}")


def test_fold(config: Config, fold: Fold, images: ImageCache) -> pd.DataFrame:
    """Predictions for one fold's test images, by the model and views that its checkpoint records."""
    folder = fold_folder(config.run_folder, fold.number)
    refuse_other_fold(folder, fold.sha256)
    checkpoint = load_checkpoint(folder / CHECKPOINT)
    pipeline = Pipeline.of(config, checkpoint.config.views, input_size(checkpoint.model.clip), images)
    predictions = predict(checkpoint.model.to(pipeline.device), fold.test, config, pipeline)
    predictions.insert(0, "fold", fold.number)
    return predictions


def describe_exceptions(config: Config, folds: Sequence[Fold], skipped: Sequence[str]) -> tuple[str, ...]:
    """What a reader of the table must know: images left out, prompts cut, drawings instead of real images."""
    prompts = [Prompt(sample.prompt, sample.prompt_style) for fold in folds for sample in fold.test]
    cut = find_truncated(prompts)
    notes = [
        f"Note: unreadable images left out of the test sets: {len(skipped)}." if skipped else "",
        f"Note: test prompts longer than CLIP's context, cut at its end: {len(cut)}." if cut else "",
        DRAWINGS if config.data.dataset == "demo" else "",
    ]
    return tuple(filter(None, notes))


if __name__ == "__main__":
    exit_on_user_error(main, sys.argv[1:])
