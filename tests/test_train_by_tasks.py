"""Folds trained side by side are the same folds, whatever dies meanwhile; one that fails stops no other."""

import errno
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mgs.errors import UserError
from mgs.images.cache import ImageCache
from mgs.recipes import train, train_by_tasks
from mgs.running.here import run_here

REPOSITORY = Path(__file__).parents[1]
WORDS = ["own.yaml", "train.batch_size=4", "train.epochs=1"]
KEPT = ("best.safetensors", "predictions_val.csv", "metrics.jsonl")


def results(run):
    return {(fold.name, name): (fold / name).read_bytes() for fold in sorted(run.glob("fold_*")) for name in KEPT}


@pytest.fixture
def handed(monkeypatch):
    """Tasks are done in this process, as a worker would do them; the names of those that were handed out."""
    names = []

    def run(work, tasks, *, devices, ray, device):
        names[:] = map(str, tasks)
        assert (devices, ray) == (["cpu", "cpu"], None)
        return run_here(work, tasks, devices[0])

    monkeypatch.setattr(train_by_tasks, "run_tasks", run)
    return names


def test_a_fold_handed_out_is_that_of_one_process_and_only_unfinished_ones_are(here, handed, monkeypatch):
    train.main([*WORDS, "folds=[1]", "device=cpu"])
    alone = results(here / "runs/own")
    shutil.rmtree(here / "runs")
    caches = []
    fill = ImageCache.fill
    monkeypatch.setattr(ImageCache, "fill", lambda *args, **options: caches.append(args[0]) or fill(*args, **options))
    by_devices = [*WORDS, "--devices", "cpu,cpu"]
    train_by_tasks.main([*by_devices, "folds=[1]"])
    assert results(here / "runs/own") == alone
    assert [bool(cache.pictures) for cache in caches] == [False, True]  # the worker's alone
    monkeypatch.setattr(train, "train_fold", lambda *_: None)
    train_by_tasks.main(by_devices)
    assert handed == ["runs/own fold 2"]


def test_a_fold_that_fails_stops_no_other_and_the_run_fails(here, handed, monkeypatch, capsys):
    def train_fold(config, fold, folder, *_):
        if fold.number == 1:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder / "last.pt"))
        (folder / "trained").touch()

    monkeypatch.setattr(train, "train_fold", train_fold)
    with pytest.raises(UserError, match=r"1 of 2 folds failed, see above; the same command resumes them"):
        train_by_tasks.main([*WORDS, "--devices", "cpu,cpu"])
    assert (
        "failed: runs/own fold 1: runs/own/fold_01/last.pt: No space left on device; check" in capsys.readouterr().err
    )
    assert (here / "runs/own/fold_02/trained").exists()


def test_a_run_is_overwritten_once_so_a_fold_that_is_tried_again_keeps_its_progress(here, handed, monkeypatch):
    overwritten = []
    monkeypatch.setattr(train, "train_fold", lambda config, *_: overwritten.append(config.overwrite))
    monkeypatch.setattr(train, "open_run_folder", lambda config, *_: overwritten.append(config.overwrite))
    train_by_tasks.main([*WORDS, "--devices=cpu,cpu", "overwrite=true", "folds=[1]"])
    assert overwritten == [True, False, True]  # by the process that hands out, by the worker; what a checkpoint says


def test_mistakes_surface_before_anything_is_handed_out(here, handed):
    for words, part in {
        ("device=cpu",): "device=cpu: named beside --devices; say one of the two",
        ("data.cache=gpu",): "data.cache=gpu: --devices names a CPU",
        ("folds=[11]",): "11",
    }.items():
        with pytest.raises(UserError) as caught:
            train_by_tasks.main([*WORDS, "--devices=cpu,cpu", *words])
        assert part in str(caught.value)
    with pytest.raises(UserError, match=r"nowhere: no such folder on .*shared storage"):
        train_by_tasks.TrainFolds("nowhere").open("cpu")
    assert not handed
    assert not (here / "runs").exists()


def start(folder, *words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(REPOSITORY / "train.py"), *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes)


def workers_of(process):
    """Process ids of the workers of a command, which train."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            command = (status.parent / "cmdline").read_text()
        except OSError:
            continue
        if parent == process.pid and "spawn_main" in command:
            found.append(int(status.parent.name))
    return found


def trainer_of(fold):
    """Process id of the worker that trains a fold: the one that holds its lock; 0 where none does."""
    layout = "hhqqi4x"  # C's `struct flock`, whose last field tells who holds the lock that is asked for
    asked = struct.pack(layout, fcntl.F_WRLCK, 0, 0, 0, 0)
    with fold.with_name(f".{fold.name}.lock").open() as lock:
        *_, holder = struct.unpack(layout, fcntl.fcntl(lock, fcntl.F_GETLK, asked))
    return holder


def wait_for(condition):
    for _ in range(6000):
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("waited in vain")


@pytest.mark.slow
def test_killed_workers_and_a_killed_command_lose_nothing(here):
    words = [*WORDS, "train.epochs=4", "train.save_minutes=1e-9"]
    train.main([*words, "device=cpu"])
    alone = results(here / "runs/own")
    shutil.rmtree(here / "runs")
    run = here / "runs/own"
    with start(here, *words, "--devices", "cpu,cpu") as process:  # dies itself
        wait_for(lambda: (run / "fold_01/last.pt").exists() and (run / "fold_02/last.pt").exists())
        workers = workers_of(process)
        assert len(workers) == 2
        process.kill()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
        process.communicate()
    assert not list(run.glob(".*.lock"))
    with start(here, "--then-test", *words, "--devices", "cpu,cpu") as process:  # loses a worker
        wait_for(lambda: workers_of(process))
        begun = {path: path.stat().st_mtime_ns for path in run.glob("fold_*/last.pt")}
        resumed = wait_for(lambda: [path for path, then in begun.items() if path.stat().st_mtime_ns > then])
        os.kill(trainer_of(resumed[0].parent), signal.SIGKILL)
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.count("resumes from epoch") == 3  # two folds, one of them twice
    assert "its process was killed (SIGKILL); trying again" in err
    assert results(run) == alone
    assert (run / "report/table_custom_random-image.md").exists()  # the tables, which know nothing of --devices


@pytest.mark.slow
def test_folds_are_trained_by_ray(here):
    pytest.importorskip("ray", reason="ray is not installed")
    train.main([*WORDS, "device=cpu"])
    alone = results(here / "runs/own")
    shutil.rmtree(here / "runs")
    with start(here, *WORDS, "--ray") as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert "runs/own fold 1: trained\n" in out
    assert results(here / "runs/own") == alone
