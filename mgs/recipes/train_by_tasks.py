"""Train folds side by side: with --devices in a process for each device, with --ray on a cluster. See train.py."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from mgs.config import Config
from mgs.errors import UserError
from mgs.images.cache import ImageCache
from mgs.images.cuts import Cuts
from mgs.machine import keep_freed_memory
from mgs.recipes import train
from mgs.recipes.train import KEPT_AS_FINISHED, begin_run, check_run, load_configs, train_run
from mgs.running.choose import parse_devices, run_tasks
from mgs.running.words import read_runner
from mgs.training.checkpoint import FINISHED, fold_folder
from mgs.training.progress import PROGRESS


def main(argv: Sequence[str]) -> None:
    """Train as `train.py` says: without one of the two options, in this process."""
    words = read_runner(argv)
    if {"-h", "--help"} & set(argv) or not (words.devices or words.ray):
        train.main(argv)
        return
    devices = parse_devices(words.devices) if words.devices else []
    train_by_tasks(load_configs(words.rest), devices, words.ray)


@dataclass(frozen=True)
class FoldTask:
    """A fold to train, for a runner to hand out."""

    config: Config
    number: int

    def __str__(self) -> str:
        return f"{self.config.run_folder} fold {self.number}"


@dataclass(frozen=True)
class TrainFolds:
    """The training of folds in a worker, which keeps the pictures for the next fold."""

    folder: str  # the command's working directory, where the configs' relative paths begin

    def open(self, device: str) -> Callable[[FoldTask], None]:
        """What trains a fold on `device` as a process of its own would."""
        if not Path(self.folder).is_dir():
            problem = f"{self.folder}: no such folder on {platform.node()}"
            raise UserError(f"{problem}; all machines need the command's folder at the same path, on shared storage")
        os.chdir(self.folder)
        keep_freed_memory()
        caches: dict[Cuts, ImageCache] = {}

        def train(task: FoldTask) -> None:
            config = replace(task.config, device=device)
            folds, images = check_run(replace(config, folds=[task.number], overwrite=False), caches)
            train_run(config, folds, images, begun=True)

        return train


def train_by_tasks(configs: Sequence[Config], devices: Sequence[str], ray: str | None) -> None:
    """Check every config, then have workers train what is not finished; nothing is trained in this process.

    A fold that fails does not stop the others. `UserError` at the end, if any failed.
    """
    named = sorted({config.device for config in configs})
    if devices and named != ["auto"]:
        raise UserError(f"device={named[-1]}: named beside --devices; say one of the two")
    if len(named) > 1 or named[0] not in ("auto", "cpu", "cuda"):
        raise UserError(
            f"device={named[-1]}: with --ray, all configs say device=cpu or device=cuda, or none of them does"
        )
    folds_of = []
    for config in configs:
        if config.data.cache == "gpu" and not all(device.startswith("cuda") for device in devices):
            raise UserError("data.cache=gpu: --devices names a CPU; use data.cache=auto, ram, disk or none")
        place = replace(config.data, cache="disk" if config.data.cache == "disk" else "none")  # not in this RAM
        folds, _ = check_run(replace(config, device="cpu", data=place), {}, at_once=len(devices) or sys.maxsize)
        folds_of.append((config, folds))
    tasks = []
    for config, folds in folds_of:
        folders = {fold.number: fold_folder(config.run_folder, fold.number) for fold in folds}
        if config.overwrite:  # once, or a fold that is tried again would lose its progress
            with ExitStack() as locks:
                begin_run(config, list(folders.values()), locks)
        for number, folder in folders.items():
            if (folder / FINISHED).exists() and not (folder / PROGRESS).exists():
                tqdm.write(f"fold {number}: {KEPT_AS_FINISHED}")
            else:
                tasks.append(FoldTask(config, number))
    failed = []
    for outcome in run_tasks(TrainFolds(os.getcwd()), tasks, devices=devices, ray=ray, device=named[0]):
        if outcome.error:
            failed.append(outcome)
        tqdm.write(f"{outcome.task}: {'failed: ' + outcome.error if outcome.error else 'trained'}")
    for outcome in failed:
        tqdm.write(f"failed: {outcome.task}: {outcome.error}", file=sys.stderr)
    if failed:
        without = " without overwrite=true" if any(config.overwrite for config in configs) else ""
        raise UserError(
            f"{len(failed)} of {len(tasks)} folds failed, see above; the same command{without} resumes them"
        )
