"""Train MGS: python train.py [CONFIG.yaml ...] [key=value ...] [--devices 0,1 | --ray [ADDRESS]]

With no config, every dataset found under data/ is trained, or the demo where there is none.

--devices 0,1      train folds side by side, one on each of these GPUs; or cpu,cpu
--ray [ADDRESS]    train folds on a Ray cluster: auto, or host:port; without an address, on a Ray of this machine alone
"""

# Read it from top to bottom. The two options are train_by_tasks.py's, which hands each fold to a process like this.

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from mgs.backbones.backbone import Backbone
from mgs.backbones.describe_parameters import describe_parameters
from mgs.backbones.table import load_backbone, load_for_training
from mgs.config import Config, DataConfig
from mgs.config_files import load_runs, refuse_other_run
from mgs.datasets.audit import audit
from mgs.datasets.facts import facts_of
from mgs.datasets.folds import Fold, find_folds, read_pictures
from mgs.datasets.samples import dimensions_of, refuse_blank_prompts
from mgs.dimensions import Prompt
from mgs.engine.engine import Engine, cuts_for, make_engine
from mgs.engine.halves import open_halves
from mgs.engine.loader import Loader
from mgs.engine.predict import predict
from mgs.errors import UserError
from mgs.evaluation.per_fold import selection_value
from mgs.files import locked, remove_unfinished
from mgs.images.cache import ImageCache
from mgs.images.cuts import Cuts
from mgs.interrupts import heed_signals, stop_if_interrupted
from mgs.machine import Machine, choose_device, compile_or_not, compute_alike, keep_freed_memory
from mgs.methods.method import find_truncated
from mgs.methods.table import METHODS, make_method
from mgs.training.checkpoint import CHECKPOINT, FINISHED, fold_folder, refuse_other_backbone, refuse_other_fold
from mgs.training.log import TrainingLog
from mgs.training.progress import PROGRESS, Setting, refuse_other_progress
from mgs.training.run_folder import lock_fold, open_run_folder, refuse_nested
from mgs.training.saving import FoldSaver, announce_disk, keep_untrained
from mgs.training.trainer import Trainer

KEPT_AS_FINISHED = "finished already, kept; overwrite=true trains it again"


def main(argv: Sequence[str]) -> None:
    """Train every config named in `argv`, or every dataset found."""
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return
    keep_freed_memory()
    configs = load_configs(argv)
    caches: dict[Cuts, ImageCache] = {}
    checked = [(config, *check_run(config, caches)) for config in configs]  # any mistake surfaces before any training
    for config, folds, images in checked:
        train_run(config, folds, images)


def load_configs(argv: Sequence[str]) -> list[Config]:
    """The configs that a command line asks for, each of which trains into a folder of its own."""
    configs = [config for run in load_runs(argv) for config in run]
    folders = [config.run_folder for config in configs]
    if repeated := [one for one in folders if folders.count(one) > 1 or one.parent in folders]:
        raise UserError(f"{repeated[0]}: two of the configs would train into it; give each a name of its own")
    return configs


def check_run(config: Config, caches: dict[Cuts, ImageCache], *, at_once: int = 1) -> tuple[list[Fold], ImageCache]:
    """The folds to train, and their pictures, after a check of everything they need, the cheapest first.

    `caches` are those of earlier configs, by the cuts of their methods; `at_once` folds may train side by side.
    """
    device = choose_device(config.device)
    refuse_nested(config.run_folder)
    kept = {} if config.overwrite else {path.parent: path for path in config.run_folder.glob(f"fold_*/{PROGRESS}")}
    finished = [] if config.overwrite else [path.parent for path in config.run_folder.glob(f"fold_*/{FINISHED}")]
    if finished or kept:
        refuse_other_run(config, config.run_folder / "config.yaml")
    if config.data.dataset == "demo" and not (root := Path(config.data.root)).exists():
        with locked(root.with_name(f".{root.name}.lock"), str(root), wait=True):
            if not root.exists():  # another process may have drawn it meanwhile
                from mgs.demo.write import write_demo  # 0.3 s, for the first run of the demo alone

                write_demo(root)
    folds = find_folds(config.data, config.folds)
    trains = METHODS[config.method].trains == "all" and config.train.epochs > 0
    backbone = load_for_training(config.model.clip, activation=config.model.activation, trains=trains)
    method = make_method(backbone, config)
    there = dimensions_of([sample for fold in folds for sample in fold.train])
    if not set(there) & set(method.gives):
        problem = f"gives {', '.join(method.gives)}, the data has MOS for {', '.join(there)}"
        raise UserError(f"{config.data.dataset}: method {config.method} {problem}; choose another of the two")
    samples = [sample for fold in folds for sample in fold.train + fold.val + fold.test]
    refuse_blank_prompts(samples, config.method, method.needs_prompt)
    cuts = cuts_for(method.backbone, config)
    images = caches.setdefault(cuts, ImageCache(Path(config.data.cache_folder), cuts))
    load = partial(images.fill, place=config.data.cache, device=device)
    folds, skipped = read_pictures(folds, config.data, load=load)
    if skipped:
        tqdm.write(f"{len(skipped)} unreadable images left out: {'; '.join(skipped)}")
    for finding in audit(folds):
        if finding.kind == "leak" and not (config.data.allow_leaks or are_published(config.data, folds)):
            remedy = "correct the folds, or set data.allow_leaks=true, and every table will say so"
            raise UserError(f"{config.data.dataset}: leak: {finding.text}; {remedy}")
        if finding.kind != "note":
            tqdm.write(f"{config.data.dataset}: {finding}")
    folders = {fold.number: fold_folder(config.run_folder, fold.number) for fold in folds}
    for fold in folds:
        if folders[fold.number] in finished:
            refuse_other_fold(folders[fold.number], fold.sha256)
            refuse_other_backbone(folders[fold.number], backbone)
        elif folders[fold.number] in kept:
            refuse_other_progress(kept[folders[fold.number]], config, fold)
    if unfinished := [fold for fold in folds if folders[fold.number] not in finished]:
        tqdm.write(f"{config.run_folder}: {announce_disk(config, method, unfinished, at_once)}")
    return folds, images


def are_published(data: DataConfig, folds: Sequence[Fold]) -> bool:
    """Whether these are the literature's folds of a dataset, which nobody may change, rather than ours or a user's."""
    return folds[0].protocol == "published" and not facts_of(data.dataset).own


def begin_run(config: Config, folders: Sequence[Path], locks: ExitStack) -> None:
    """Open a run's folder, with these folds locked until `locks` is left."""
    with locked(config.run_folder / ".lock", str(config.run_folder), wait=True):
        for folder in folders:
            locks.enter_context(lock_fold(folder))
        open_run_folder(config, folders)


def train_run(config: Config, folds: Sequence[Fold], images: ImageCache, *, begun: bool = False) -> None:
    """Train one config's folds into its run folder; finished ones are kept, interrupted ones resumed.

    Each fold is locked, so that other processes may train other folds of the run at the same time. `begun` says that
    what `overwrite` removes has been removed before.
    """
    folders = {fold.number: fold_folder(config.run_folder, fold.number) for fold in folds}
    with heed_signals(), ExitStack() as locks:  # between folds too, where Python may drop an exception
        begin_run(replace(config, overwrite=config.overwrite and not begun), list(folders.values()), locks)
        # read once; each fold trains a copy
        backbone = load_backbone(config.model.clip, activation=config.model.activation)
        for fold in folds:
            folder = folders[fold.number]
            remove_unfinished(folder)
            if (folder / FINISHED).exists():
                refuse_other_fold(folder, fold.sha256)
                refuse_other_backbone(folder, backbone)
                (folder / PROGRESS).unlink(missing_ok=True)  # of an attempt that died when everything was done
                tqdm.write(f"fold {fold.number}: {KEPT_AS_FINISHED}")
                continue
            if not (folder / PROGRESS).exists():
                shutil.rmtree(folder, ignore_errors=True)  # an attempt that died before there was anything to keep
            folder.mkdir(parents=True, exist_ok=True)
            train_fold(config, fold, folder, copy.deepcopy(backbone), images)
            stop_if_interrupted()


def train_fold(config: Config, fold: Fold, folder: Path, backbone: Backbone, images: ImageCache) -> None:
    """Train on the fold's train set and keep the epoch that does best on its val set; the test set is not touched.

    The backbone is trained in place. An interrupted attempt is resumed where it stopped.
    """
    engine = make_engine(make_method(backbone, config), config, Machine.choose(config.device, config.precision))
    compute_alike(engine.machine.device)
    describe(config, fold, engine)
    halves = open_halves(engine, [*fold.train, *fold.val], images, config) if config.train.epochs else None
    loader = Loader(engine, images, halves, config.data.workers)
    if config.compile:
        backbone.run_block = compile_or_not(backbone.run_block)
    setting = Setting(config, fold, backbone, engine.machine.device)
    if not config.train.epochs:
        predictions = predict_val(loader, fold, config)
        keep_untrained(folder, setting, engine.method, predictions)
        value = f"val mean of SRCC and PLCC {selection_value(predictions):.4f}"
        tqdm.write(f"fold {fold.number}: nothing trained; {value}; kept {folder / CHECKPOINT}")
        return
    trainer = Trainer(loader, fold.train, config)
    saver = FoldSaver(folder, setting, trainer)
    with TrainingLog(folder, saver.history.lines) as log, saver:
        while (epoch := trainer.counts.epoch) <= config.train.epochs:
            progress = f"fold {fold.number} epoch {epoch}/{config.train.epochs}"
            loss = trainer.train_epoch(progress, after_step=saver.tick)
            predictions = predict_val(loader, fold, config)
            line = log.add_epoch(epoch, loss, trainer.lr, predictions)
            srcc = ", ".join(f"{dimension} {show(one['srcc'])}" for dimension, one in line["val"].items())
            skipped = f"; {trainer.counts.skipped} steps skipped so far: not finite" if trainer.counts.skipped else ""
            tqdm.write(f"{progress}: loss {loss:.4f}, val SRCC {srcc}{skipped}")
            saver.end_epoch(line, selection_value(predictions), predictions)
        log.add_views(engine.show_views(images.read(fold.val[0].image)), saver.history.best_row(0), config.train.epochs)
        saver.finish()
    tqdm.write(
        f"fold {fold.number}: best val mean of SRCC and PLCC {saver.history.best:.4f}; kept {folder / CHECKPOINT}"
    )


def predict_val(loader: Loader, fold: Fold, config: Config) -> pd.DataFrame:
    """The fold's val set, scored by the method as it is now."""
    predictions = predict(loader, fold.val, batch_size=config.train.batch_size)
    predictions.insert(0, "fold", fold.number)
    return predictions


def show(figure: float | None) -> str:
    """A figure, which may be undefined."""
    return "undefined" if figure is None else f"{figure:.3f}"


def describe(config: Config, fold: Fold, engine: Engine) -> None:
    """Say what is about to be trained, on what, and which parameters train."""
    machine = engine.machine
    tqdm.write(
        f"{config.run_folder}: {config.data.dataset}, protocol {fold.protocol}, fold {fold.number}: {len(fold.train)} "
        f"train, {len(fold.val)} val, {len(fold.test)} test images; backbone {config.model.clip}, "
        f"{machine.device}, {str(machine.dtype).removeprefix('torch.')}"
    )
    prompts = [Prompt(sample.prompt, sample.prompt_style) for sample in fold.train + fold.val + fold.test]
    if cut := find_truncated(engine.method, prompts):
        tqdm.write(f"{len(cut)} prompts are longer than CLIP's context and are cut, e.g. {cut[0][:60]!r}...")
    tqdm.write(describe_parameters(engine.method))
