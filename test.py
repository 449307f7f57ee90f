"""Test what train.py left: `python test.py [CONFIG.yaml ...] [key=value ...]`. Read it from top to bottom."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pandas as pd
from tqdm import tqdm

from mgs.config import Config, find_configs, load_config
from mgs.data.splits import Fold, read_folds
from mgs.evaluation.report import DRAWINGS, Protocol, write_report
from mgs.model.clip_backbone import input_size
from mgs.runtime import UserError, exit_on_user_error
from mgs.training.checkpoint import CHECKPOINT, FINISHED, fold_folder, load_checkpoint
from mgs.training.engine import Pipeline, predict


def main(argv: Sequence[str]) -> None:
    """Test the run of every config named in `argv`, or of every dataset found."""
    paths, overrides = find_configs(argv)
    for config in [load_config(path, overrides) for path in paths]:
        test_run(config)


def test_run(config: Config) -> None:
    """Score every fold's test set with that fold's checkpoint; print the table and leave it in the run's report folder.

    A fold without a finished checkpoint fails the run: a mean over the folds that happened to work is no result.
    """
    if not config.run_folder.exists():
        raise UserError(f"{config.run_folder}: no such run; train it first with the same words after train.py")
    folds, skipped = read_folds(config.data, config.folds, seed=config.seed)
    unfinished = [
        fold.number for fold in folds if not (fold_folder(config.run_folder, fold.number) / FINISHED).exists()
    ]
    if unfinished:
        raise UserError(
            f"{config.run_folder}: fold {', '.join(map(str, unfinished))} not trained to the end; run train.py with "
            "the same words, or name the folds to test, as in folds=[1,2]"
        )
    predictions = pd.concat([test_fold(config, fold) for fold in folds], ignore_index=True)
    notes = [f"{len(skipped)} unreadable images were left out."] if skipped else []
    if config.data.dataset == "demo":
        notes.append(DRAWINGS)
    first = load_checkpoint(fold_folder(config.run_folder, folds[0].number) / CHECKPOINT)
    precision = str(Pipeline.of(config, first.config.views, 1).dtype).removeprefix("torch.")
    protocol = Protocol(config.data.dataset, folds[0].protocol, first.config.model.clip, precision, tuple(notes))
    report = config.run_folder / "report"
    tqdm.write(write_report(predictions, protocol, report))
    tqdm.write(f"tables and predictions: {report}")


def test_fold(config: Config, fold: Fold) -> pd.DataFrame:
    """Predictions for one fold's test images, by the model and views that its checkpoint records."""
    path = fold_folder(config.run_folder, fold.number) / CHECKPOINT
    checkpoint = load_checkpoint(path)
    if checkpoint.metadata["fold_sha256"] != fold.sha256:
        raise UserError(f"{path}: trained on other splits than those in use now; train again with overwrite=true")
    pipeline = Pipeline.of(config, checkpoint.config.views, input_size(checkpoint.model.clip))
    predictions = predict(checkpoint.model.to(pipeline.device), fold.test, config, pipeline)
    predictions.insert(0, "fold", fold.number)
    return predictions


if __name__ == "__main__":
    exit_on_user_error(main, sys.argv[1:])
