"""Test what train.py left. Read it from top to bottom.

python test.py [CONFIG.yaml ...] [key=value ...]                   each run on its own test sets
python test.py --checkpoint CHECKPOINT CONFIG.yaml [key=value ...] one checkpoint on another dataset's test sets
python test.py --compare RUN RUN [RUN ...]                         tested runs, each against the first on its dataset
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from mgs.config import Config, flat_config
from mgs.config_files import load_runs
from mgs.datasets.audit import Finding, audit
from mgs.datasets.facts import facts_of, find_generator
from mgs.datasets.folds import Fold, find_folds, read_pictures
from mgs.datasets.samples import dimensions_of, refuse_blank_prompts
from mgs.dimensions import DIMENSIONS, Prompt
from mgs.engine.costs import measure_costs
from mgs.engine.engine import cuts_for, make_engine
from mgs.engine.loader import Loader
from mgs.engine.predict import predict
from mgs.errors import UserError
from mgs.evaluation.costs import Costs, add_costs, mean_costs
from mgs.evaluation.page import Picture
from mgs.evaluation.report import DRAWINGS, Background, Protocol, write_report
from mgs.images.cache import ImageCache
from mgs.machine import Machine, choose_device, choose_precision, environment, keep_freed_memory
from mgs.methods.fragments import split_prompt
from mgs.methods.method import find_truncated
from mgs.methods.table import METHODS
from mgs.recipes.compare import compare
from mgs.training.checkpoint import CHECKPOINT, Checkpoint, fold_folder, load_checkpoint, refuse_other_fold
from mgs.training.log import read_curves
from mgs.training.run_folder import refuse_unfinished
from mgs.training.saving import read_seconds


@dataclass(frozen=True)
class TestSets:
    """The folds to test on, their pictures, what the audit says, and what a reader of the tables must know."""

    folds: list[Fold]
    images: ImageCache
    findings: list[Finding]
    notes: list[str]
    truncated: set[str] = field(default_factory=set)  # prompts longer than the context of the CLIP that scores them
    prompted: set[str] = field(default_factory=set)  # dimensions whose scores depend on the prompt
    costs: dict[int, list[Costs]] = field(default_factory=dict)  # by fold, of each model that scores it
    trained_on: str = ""  # another dataset, where that is what the checkpoint comes from


def main(argv: Sequence[str]) -> None:
    """Test the run of every config named in `argv`, or of every dataset found; or do what the options say instead."""
    parser = argparse.ArgumentParser("test.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="CONFIG.yaml | key=value")
    parser.add_argument("--checkpoint", type=Path, help="a .safetensors file, or the fold folder that holds it")
    parser.add_argument(
        "--compare", type=Path, nargs="+", metavar="RUN", help="folders of tested runs, the baseline first"
    )
    options = parser.parse_intermixed_args(list(argv))
    if options.compare:
        if options.words or options.checkpoint or len(options.compare) < 2:
            raise UserError("--compare: takes two or more folders of runs, and nothing else beside them")
        compare(options.compare)
        return
    keep_freed_memory()
    for parts in load_runs(options.words):
        if not options.checkpoint:
            test_run(parts)
        elif len(parts) > 1:
            raise UserError("--checkpoint: is of one target; name that one in options.target")
        else:
            test_elsewhere(parts[0], options.checkpoint)


def test_run(parts: Sequence[Config]) -> None:
    """Score every fold's test set with that fold's checkpoint; print the table and leave the run's report.

    A run of several targets has a config and checkpoints for each: its `parts`, which are reported together. A fold
    without a finished checkpoint fails the run: a mean over the folds that happened to work is no result.
    """
    folds = find_folds(parts[0].data, parts[0].folds)
    for config in parts:
        refuse_unfinished(config, folds)
    first = load_checkpoint(fold_folder(parts[0].run_folder, folds[0].number) / CHECKPOINT)
    sets = read_test_sets(parts[0], folds, first)
    sets.notes.extend(f"Leak: {finding.text}." for finding in sets.findings if finding.kind == "leak")
    if not parts[0].train.epochs:
        sets.notes.append("Nothing was trained on this set: the weights are tested as they are.")
    predictions, curves = [], []
    for fold in sets.folds:
        tables = []
        for config in parts:
            folder = fold_folder(config.run_folder, fold.number)
            refuse_other_fold(folder, fold.sha256)
            tables.append(test_fold(config, fold, sets, load_checkpoint(folder / CHECKPOINT), folder))
            curves.append(read_curves(folder, fold.number))
        others = [table.filter(regex=r"_(mos|pred)$") for table in tables[1:]]  # the same images in the same order
        predictions.append(pd.concat([tables[0], *others], axis=1))
    background = Background(
        train_images={fold.number: len(fold.train) for fold in sets.folds},
        curves=pd.concat(curves, ignore_index=True),
        settings={"options.target": [config.name for config in parts]} if len(parts) > 1 else {},
    )
    leave_report(whole_run(parts), sets, predictions, background)


def whole_run(parts: Sequence[Config]) -> Config:
    """The config of a run as a whole; of several targets, the first one's, with the folder that holds them all."""
    if len(parts) == 1:
        return parts[0]
    folder = Path(parts[0].runs)
    return replace(parts[0], runs=str(folder.parent), name=folder.name)


def test_elsewhere(config: Config, path: Path) -> None:
    """Score the config's test sets with a checkpoint of another dataset, on the dimensions for which it was trained.

    The report goes to runs/<config's name>_by_<checkpoint's name>/report.
    """
    checkpoint = load_checkpoint(path / CHECKPOINT if path.is_dir() else path)
    origin, dataset = checkpoint.metadata, config.data.dataset
    if untold := [fact for fact in ("dataset", "protocol", "fold", "val") if fact not in origin]:
        raise UserError(f"{path}: does not say its {', '.join(untold)}, so what it has seen is unknown; train one")
    if origin["dataset"] == dataset and not facts_of(dataset).own:
        problem = f"was trained on {dataset} itself, perhaps on these very images"
        raise UserError(f"{path}: {problem}; test its run without --checkpoint")
    sets = read_test_sets(config, find_folds(config.data, config.folds), checkpoint)
    refuse_training_images(config, sets.folds, origin, path)
    trained, there = list(origin["val"]), dimensions_of(sets.folds[0].test)
    shared = [dimension for dimension in there if dimension in trained]
    if not shared:
        raise UserError(
            f"{path}: trained on {', '.join(trained)} of {origin['dataset']}, and {dataset} has MOS for "
            f"{', '.join(there)} alone; choose sets with a dimension in common"
        )
    whole, name = checkpoint.config.whole_run, checkpoint.config.name
    scorer = f"{f'{whole.name}_{name}' if whole else name}_fold_{origin['fold']:02d}"
    sets.notes.append(
        f"Cross-dataset: scored by {scorer}, trained on {origin['dataset']}, protocol {origin['protocol']}; it was "
        "not checked whether images of that dataset are among these."
    )
    if left_out := [dimension for dimension in DIMENSIONS if (dimension in trained) != (dimension in there)]:
        sets.notes.append(f"Dimensions left out, since checkpoint or data lack them: {', '.join(left_out)}.")
    predictions, folder = [], path if path.is_dir() else path.parent
    for fold in sets.folds:
        targets = [{d: mos for d, mos in sample.targets.items() if d in shared} for sample in fold.test]
        samples = [replace(sample, targets=one) for sample, one in zip(fold.test, targets, strict=True)]
        predictions.append(test_fold(config, replace(fold, test=samples), sets, checkpoint, folder))
    settings = {
        key: getattr(checkpoint.config, key) for key in ("method", "options", "model", "views", "train", "seed")
    }
    config = replace(config, name=f"{config.name}_by_{scorer}", **settings)
    leave_report(config, replace(sets, trained_on=origin["dataset"]), predictions, Background())


def refuse_training_images(config: Config, folds: Sequence[Fold], origin: Mapping[str, Any], path: Path) -> None:
    """Raise a `UserError` where the checkpoint was trained on one of these very folds and others of them are tested."""
    hashes = {fold.sha256: fold.number for fold in find_folds(config.data)}
    own = hashes.get(origin.get("fold_sha256", ""))  # imported ones have none
    if own is not None and any(fold.number != own for fold in folds):
        raise UserError(
            f"{path}: trained on fold {own} of these, so it has seen images of the others; say folds=[{own}]"
        )


def read_test_sets(config: Config, folds: Sequence[Fold], checkpoint: Checkpoint) -> TestSets:
    """The folds with their test images read as the checkpoint's method takes them, audited."""
    for fold in folds:
        refuse_blank_prompts(fold.test, checkpoint.config.method, checkpoint.model.needs_prompt)
    cuts = cuts_for(checkpoint.model.backbone, checkpoint.config)
    images = ImageCache(Path(config.data.cache_folder), cuts)
    load = partial(images.fill, place=config.data.cache, device=choose_device(config.device))
    folds, skipped = read_pictures(folds, config.data, load=load, subsets=["test"])
    notes = [
        f"Note: unreadable images left out of the test sets: {len(skipped)}." if skipped else "",
        DRAWINGS if config.data.dataset == "demo" else "",
    ]
    findings = [finding for finding in audit(folds) if finding.kind != "note"]
    return TestSets(folds, images, findings, list(filter(None, notes)))


def test_fold(config: Config, fold: Fold, sets: TestSets, checkpoint: Checkpoint, folder: Path) -> pd.DataFrame:
    """Predictions for one fold's test images, by the checkpoint's model and views; its costs are added to `sets`.

    `folder` is the checkpoint's.
    """
    prompts = [Prompt(sample.prompt, sample.prompt_style) for sample in fold.test]
    sets.truncated.update(find_truncated(checkpoint.model, prompts))
    sets.prompted.update(checkpoint.model.needs_prompt)
    machine = Machine.choose(config.device, config.precision)
    loader = Loader(make_engine(checkpoint.model, checkpoint.config, machine), sets.images, workers=config.data.workers)
    score = partial(predict, loader, fold.test, batch_size=config.train.batch_size)
    train_s = read_seconds(folder) if checkpoint.config.train.epochs else 0.0
    predictions, costs = measure_costs(loader, fold.test, score, train_s=train_s)
    sets.costs.setdefault(fold.number, []).append(costs)
    predictions.insert(0, "fold", fold.number)
    return predictions


def leave_report(config: Config, sets: TestSets, predictions: Sequence[pd.DataFrame], background: Background) -> None:
    """Write the report into the run's folder and print its table."""
    device = choose_device(config.device)
    samples = {(fold.number, sample.name): sample for fold in sets.folds for sample in fold.test}

    def show(fold: int, image: str) -> Picture:
        sample = samples[fold, image]
        return Picture(sets.images.read(sample.image).cpu().numpy(), split_prompt(sample.prompt, sample.prompt_style))

    background = replace(
        background,
        generators={name: find_generator(config.data.dataset, name) for _, name in samples},
        show=show,
        audit=tuple(map(str, sets.findings)),
        costs=mean_costs([add_costs(models) for models in sets.costs.values()]),
        settings={**flat_config(config), **background.settings},
        versions=environment(device),
    )
    precision = str(choose_precision(config.precision, device)).removeprefix("torch.")
    dataset, protocol_name = config.data.dataset, sets.folds[0].protocol
    if sets.truncated:
        sets.notes.append(f"Note: test prompts longer than CLIP's context, cut at its end: {len(sets.truncated)}.")
    method = METHODS[config.method].title or config.method
    prompted = tuple(sorted(sets.prompted))
    protocol = Protocol(
        dataset, protocol_name, config.model.clip, precision, tuple(sets.notes), sets.trained_on, method, prompted
    )
    report = config.run_folder / "report"
    tqdm.write(write_report(pd.concat(predictions, ignore_index=True), protocol, report, background))
    tqdm.write(f"tables, plots, predictions and {protocol.file_name('report', '.html')}: {report}")
