"""An interrupted training resumes as if it had never stopped, or says why it can't; two never share a folder."""

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import random_clip, skip_plots
from safetensors.torch import save_file
from tqdm import tqdm

from mgs.config import NOT_THE_RUN, Config, flat_config
from mgs.config_files import load_config, save_config
from mgs.engine.engine import Engine
from mgs.errors import UserError, exit_on_user_error, explain_failure
from mgs.files import UNFINISHED, locked, whole_file
from mgs.interrupts import Interrupted, heed_signals
from mgs.recipes import train as training
from mgs.training import progress, saving
from mgs.training.progress import read_progress
from mgs.training.saving import FoldSaver
from mgs.training.trainer import Trainer

REPOSITORY = Path(__file__).parents[1]
WORDS = ["own.yaml", "train.batch_size=4"]  # 21 train images a fold: six steps an epoch, three epochs, two folds
ONE = [*WORDS, "folds=[1]"]
KEPT = ("best.safetensors", "predictions_val.csv", "metrics.jsonl")


@contextlib.contextmanager
def own_copy(own_set, tmp_path_factory):
    """A copy of the user's folder as the working directory."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(own_set, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        skip_plots(patch)
        yield folder


class Killed(BaseException):
    """Ends training like a SIGKILL: nothing catches it to save anything."""


def results(run):
    """The bytes of everything that a run leaves, but for TensorBoard's, which hold the time of day."""
    return {(fold.name, name): (fold / name).read_bytes() for fold in sorted(run.glob("fold_*")) for name in KEPT}


@pytest.fixture(scope="module")
def unbroken(own_set, tmp_path_factory):
    """What the first fold's training leaves when nothing interrupts it."""
    with own_copy(own_set, tmp_path_factory) as folder:
        training.main(ONE)
    found = results(folder / "runs" / "own")
    assert len(found) == 3
    return found


@pytest.fixture(scope="module")
def killed(own_set, tmp_path_factory):
    """A run that died in the first fold's second epoch."""
    with own_copy(own_set, tmp_path_factory) as folder:
        interrupt_fold(folder)
    return folder / "runs"


@pytest.fixture
def interrupted(here, killed):
    """The user's folder with that run in it."""
    shutil.copytree(killed, here / "runs")
    return here


def die_at(monkeypatch, moment, error=Killed):
    """Raise `error` at the `moment`-th time that training takes a step, scores a batch or begins to write a file."""
    count = 0

    def counted(function, *, before=True):
        def call(*args, **options):
            nonlocal count
            result = None if before else function(*args, **options)
            count += 1
            if count == moment:
                raise error
            return function(*args, **options) if before else result

        return call

    monkeypatch.setattr(Trainer, "step", counted(Trainer.step, before=False))
    monkeypatch.setattr(Engine, "score", counted(Engine.score))
    monkeypatch.setattr(progress, "whole_file", counted(whole_file))
    monkeypatch.setattr(saving, "whole_file", counted(whole_file))


@pytest.mark.parametrize(
    "words",
    [
        ["train.epochs=2"],
        ["folds=[1]", "train.epochs=2", "train.save_minutes=1e-9"],
        ["folds=[1]", "model.freeze_stem=true", "data.workers=1"],
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_wherever_it_died(here, words):
    """Died again and again, each time a little later, until there is nothing left to do."""
    training.main([*WORDS, *words, "data.cache_folder=kept"])
    unbroken = results(here / "runs" / "own")
    shutil.rmtree(here / "runs")
    shutil.rmtree(here / "kept", ignore_errors=True)
    deaths, moment = 0, 5
    while True:
        with pytest.MonkeyPatch.context() as patch:
            die_at(patch, moment)
            try:
                training.main([*WORDS, *words, "data.cache_folder=kept"])
                break
            except Killed:
                deaths, moment = deaths + 1, moment + 4
    assert deaths > 3
    assert results(here / "runs" / "own") == unbroken
    assert not [path for path in (here / "runs").rglob("*") if path.name.startswith(".")]
    assert not list((here / "runs").rglob("last.pt"))


def test_ctrl_c_finishes_the_step_and_the_same_command_goes_on_from_there(here, unbroken, monkeypatch, capsys):
    step = Trainer.step
    for number in (3, 2, 9):  # mid-epoch, again, and in the next epoch
        with monkeypatch.context() as patch:
            calls = []

            def interrupted(trainer, batch, number=number, calls=calls):
                calls.append(1)
                if len(calls) == number:
                    os.kill(os.getpid(), signal.SIGTERM if number == 2 else signal.SIGINT)
                return step(trainer, batch)

            patch.setattr(Trainer, "step", interrupted)
            with pytest.raises(Interrupted, match=r"fold 1, epoch \d, after step \d, is kept in .*last\.pt") as caught:
                training.main(ONE)
            assert caught.value.number == (signal.SIGTERM if number == 2 else signal.SIGINT)
            assert len(calls) == number
    assert (here / "runs/own/fold_01/last.pt").exists()
    capsys.readouterr()
    training.main(ONE)
    assert "fold_01: resumes from epoch 3, after step 2" in capsys.readouterr().out
    assert results(here / "runs" / "own") == unbroken


def test_an_epochs_time_counts_what_was_kept_and_not_what_was_lost(here, monkeypatch):
    """The clock counts steps; the fold dies in its second epoch, whose first two steps were kept."""
    step, steps = Trainer.step, []

    def counted(trainer, batch):
        if len(steps) == 6 + 2:
            saver[0].keep()
        steps.append(trainer.counts.steps)
        if len(steps) == 6 + 5:
            raise Killed
        return step(trainer, batch)

    saver = []
    begin = FoldSaver.__enter__
    monkeypatch.setattr(FoldSaver, "__enter__", lambda self: saver.append(self) or begin(self))
    monkeypatch.setattr(saving, "time", SimpleNamespace(monotonic=lambda: float(len(steps))))
    monkeypatch.setattr(Trainer, "step", counted)
    with pytest.raises(Killed):
        training.main(ONE)
    fold = here / "runs/own/fold_01"
    assert saving.read_seconds(fold) is None
    training.main(ONE)
    assert len(steps) > 3 * 6  # some were taken twice
    assert json.loads((fold / "seconds.json").read_text()) == [6, 6, 6]
    assert saving.read_seconds(fold) == 18


def test_an_interrupt_in_validation_keeps_the_epoch_that_was_trained(here, unbroken, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        predict = training.predict

        def interrupted(*args, **options):
            os.kill(os.getpid(), signal.SIGINT)
            return predict(*args, **options)

        patch.setattr(training, "predict", interrupted)
        with pytest.raises(Interrupted, match=r"epoch 1, after step 6"):
            training.main(ONE)
    training.main(ONE)
    assert results(here / "runs" / "own") == unbroken


def test_a_second_signal_ends_at_once_and_one_after_the_last_step_is_not_lost():
    def send(*numbers):
        with heed_signals():
            for number in numbers:
                os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt, match="at once"):
        send(signal.SIGINT, signal.SIGINT)
    with pytest.raises(Interrupted):
        send(signal.SIGTERM)
    with heed_signals():
        pass  # nothing is left over


def interrupt_fold(here, moment=16):
    with pytest.MonkeyPatch.context() as patch:
        die_at(patch, moment)
        with pytest.raises(Killed):
            training.main(ONE)
    assert (here / "runs/own/fold_01/last.pt").exists()


def test_a_changed_config_is_refused_with_its_keys_until_told_otherwise(interrupted):
    here = interrupted
    with pytest.raises(UserError, match=r"another train\.lr, views\.antialias; .*overwrite=true"):
        training.main([*ONE, "train.lr=2e-3", "views.antialias=true"])
    training_again = [*ONE, "train.lr=2e-3"]
    save_config(load_config(here / "own.yaml", training_again[1:]), here / "runs/own/config.yaml")
    with pytest.raises(UserError, match=r"last\.pt: begun with another train\.lr; .*overwrite=true"):
        training.main(training_again)
    training.main([*training_again, "overwrite=true"])
    assert (here / "runs/own/fold_01/predictions_val.csv").exists()


def test_what_may_change_between_two_calls_may_change(interrupted):
    training.main([*ONE, "data.workers=1", "train.save_minutes=3", "data.cache=none"])


def test_changed_data_and_another_backbone_are_refused(interrupted):
    here = interrupted
    table = (here / "mos.csv").read_text()
    (here / "mos.csv").write_text(table.replace("number 7", "number seven"))
    with pytest.raises(UserError, match=r"last\.pt: begun on other data"):
        training.main(ONE)
    (here / "mos.csv").write_text(table)
    save_file(random_clip(size=32, width=64, layers=2, embed=32, seed=1).state_dict(), here / "clip.safetensors")
    with pytest.raises(UserError, match=r"last\.pt: begun with another clip\.safetensors"):
        training.main(ONE)


def cut(path):
    path.write_bytes(path.read_bytes()[:5000])


def put_text(path):
    path.write_text("hello")


def put_code(path):
    torch.save({"format": subprocess.Popen}, path)


def edit(**changes):
    def change(path):
        torch.save({**torch.load(path, weights_only=True), **changes}, path)

    return change


@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (cut, "not readable as an unfinished fold"),
        (put_text, "not readable as an unfinished fold"),
        (put_code, "not readable as an unfinished fold"),
        (edit(format="mgs-progress-9"), "in format mgs-progress-9, this version reads"),
        (edit(config={"train": {"epochs": "${oc.env:HOME}"}}), "refers to something outside"),
        (edit(config_sha256="0"), "not the one it was written with"),
        (edit(trainer={}), "does not fit this model"),
        (edit(history=None), "does not fit this model"),
    ],
)
def test_progress_that_is_damaged_or_foreign_is_one_line_with_the_remedy(interrupted, spoil, part):
    here = interrupted
    spoil(here / "runs/own/fold_01/last.pt")
    with pytest.raises(UserError, match=part) as caught:
        training.main(ONE)
    assert "last.pt" in str(caught.value)
    assert "overwrite=true" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_best_epochs_checkpoint_is_made_again_where_only_progress_was_written(here, unbroken, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(saving, "write_checkpoint", lambda *args: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            training.main(ONE)
    folder = here / "runs/own/fold_01"
    assert (folder / "last.pt").exists()
    assert not (folder / "best.safetensors").exists()
    training.main(ONE)
    assert results(here / "runs" / "own") == unbroken


def test_no_generators_state_decides_anything(here, unbroken):
    """An epoch's order follows from seed and epoch alone, so resuming needs no state of any generator."""
    np.random.seed(5)  # noqa: NPY002 - a state that no run begins in
    torch.manual_seed(5)
    random.seed(5)
    states = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    training.main(ONE)
    assert results(here / "runs" / "own") == unbroken
    assert (np.random.get_state()[1] == states[0]).all()  # noqa: NPY002
    assert random.getstate() == states[1]


def test_curves_in_tensorboard_hold_each_epoch_once(here):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    interrupt_fold(here, moment=20)
    training.main(ONE)
    board = EventAccumulator(str(here / "runs/own/fold_01")).Reload()
    assert [event.step for event in board.Scalars("train/loss")] == [1, 2, 3]


def test_a_second_run_into_a_folder_refuses_and_a_dead_ones_lock_holds_nobody(here):
    holder = f"""if True:
        import sys, time
        sys.path.insert(0, {str(REPOSITORY)!r})
        from pathlib import Path
        from mgs.files import locked
        with locked(Path("runs/own/.fold_01.lock"), "x"):
            print("held", flush=True)
            time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        in_use = rf"runs/own/fold_01: in use by another process \(process {process.pid} on "
        with pytest.raises(UserError, match=in_use):
            training.main([*WORDS, "train.epochs=1"])
        assert not (here / "runs/own/config.yaml").exists()
        training.main([*WORDS, "folds=[2]", "train.epochs=1"])  # beside it
        with pytest.raises(UserError, match=r"other processes train folds of it with another train\.lr; wait"):
            training.main([*WORDS, "folds=[2]", "train.epochs=1", "train.lr=2e-3", "overwrite=true"])
        assert (here / "runs/own/fold_02/predictions_val.csv").exists()
        shutil.rmtree(here / "runs/own/fold_02")
        with pytest.raises(UserError, match=r"runs/own: holds a run with another train\.lr"):
            training.main([*WORDS, "folds=[2]", "train.epochs=1", "train.lr=2e-3"])
        process.kill()
        process.wait()
    training.main([*WORDS, "folds=[1]", "train.epochs=1"])
    assert not list((here / "runs/own").glob(".*.lock"))


def test_a_lock_is_let_go_when_its_holder_fails(tmp_path):
    with pytest.raises(ValueError, match="x"), locked(tmp_path / ".lock", "it"):
        raise ValueError("x")
    with locked(tmp_path / ".lock", "it"):
        pass


def test_what_killed_processes_left_half_written_is_removed(here):
    folder = here / "runs/own/fold_01"
    folder.mkdir(parents=True)
    (folder / f"{UNFINISHED}last.pt.x.pt").write_bytes(b"half")
    training.main([*ONE, "train.epochs=1"])
    assert not list(folder.glob(".*"))


def test_disk_is_announced_as_much_as_is_used_and_too_little_stops_before_training(here, monkeypatch, capsys):
    most = 0

    def watch(path, content, write=progress.write_progress):
        nonlocal most
        write(path, content)
        most = max(most, sum(file.stat().st_size for file in path.parent.iterdir()))

    monkeypatch.setattr(saving, "write_progress", watch)
    training.main(ONE)
    announced = float(capsys.readouterr().out.split("disk: ")[1].split(" GB")[0]) * 1e9
    assert most < announced < 3 * most
    monkeypatch.setattr(saving, "free_disk", lambda folder: 1000)
    with pytest.raises(UserError, match=r"runs/full: disk: .* 0\.0 GB free; make room"):
        training.main([*WORDS, "name=full"])
    assert not (here / "runs/full").exists()


def test_everything_that_changes_results_is_in_the_configs_hash():
    assert set(NOT_THE_RUN) < set(flat_config(Config()))


@pytest.mark.slow
def test_a_real_process_killed_and_terminated_goes_on_to_the_same_end_and_tests_what_it_trained(here):
    words = [*ONE, "train.save_minutes=1e-9"]
    training.main(words)
    unbroken = results(here / "runs" / "own")
    shutil.rmtree(here / "runs")
    command = [sys.executable, str(REPOSITORY / "train.py"), "--then-test", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    last = here / "runs/own/fold_01/last.pt"
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            begun = last.stat().st_mtime_ns if last.exists() else 0
            while process.poll() is None and not (last.exists() and last.stat().st_mtime_ns > begun):
                time.sleep(0.01)
            process.send_signal(number)
            _, error = process.communicate()
            assert process.returncode == code, error
            assert b"Traceback" not in error
            if code > 0:
                assert b"is kept in runs/own/fold_01/last.pt; the same command resumes it" in error
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "resumes from epoch" in done.stdout
    assert results(here / "runs" / "own") == unbroken
    assert (here / "runs/own/report/table_custom_random-image.md").exists()


FAILURES = {
    "a GPU that is lost": (
        RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors"),
        "the GPU failed",
    ),
    "a GPU's memory": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "train.batch_size"),
    "a CPU's memory": (RuntimeError("DefaultCPUAllocator: can't allocate memory: 64 GB"), "out of memory"),
    "Python's memory": (MemoryError(), "out of memory"),
    "a full disk": (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; check"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_machine_is_one_line_and_what_was_trained_goes_on(here, unbroken, monkeypatch, capsys, failure):
    error, part = FAILURES[failure]
    with monkeypatch.context() as patch:
        die_at(patch, 16, error=error)
        with pytest.raises(SystemExit) as caught:
            exit_on_user_error(training.main, ONE)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert part in line
    assert "last.pt: holds what was trained; the same command resumes it" in out
    training.main(ONE)
    assert results(here / "runs" / "own") == unbroken


def test_our_own_bugs_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        exit_on_user_error(lambda: 1 / 0)


class Thing:
    """Something to be freed."""


def test_a_signal_between_two_folds_is_not_lost(here, monkeypatch):
    """Python drops an exception that a signal's handler raises while objects are freed, as a fold's model then is."""
    train_fold, references = training.train_fold, []

    def train_and_free(*args):
        train_fold(*args)
        thing = Thing()
        references.append(weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT)))

    monkeypatch.setattr(training, "train_fold", train_and_free)
    with pytest.raises(Interrupted):
        training.main([*WORDS, "train.epochs=1"])
    assert (here / "runs/own/fold_01/predictions_val.csv").exists()
    assert not (here / "runs/own/fold_02").exists()


def test_the_saved_config_of_a_run_stays_readable(interrupted):
    here = interrupted
    assert load_config(here / "runs/own/config.yaml").train.batch_size == 4


def test_a_fold_that_another_process_trained_since_the_check_is_not_taken_for_ours(here):
    """As when two configs are trained by one command, and the second one's folder by another meanwhile."""
    config = load_config(here / "own.yaml", [*WORDS[1:], "folds=[1]", "train.epochs=1"])
    folds, images = training.check_run(config, {})
    training.main([*ONE, "train.epochs=1", "train.lr=2e-3"])
    with pytest.raises(UserError, match=r"runs/own: holds a run with another train\.lr"):
        training.train_run(config, folds, images)
    assert load_config(here / "runs/own/config.yaml").train.lr == 2e-3


def test_interrupted_while_starting_again_the_advice_does_not_lead_to_starting_yet_again(here, monkeypatch):
    monkeypatch.setattr(Trainer, "step", lambda *_: os.kill(os.getpid(), signal.SIGINT) or torch.tensor(1.0))
    with pytest.raises(Interrupted, match=r"the same command without overwrite=true resumes it"):
        training.main([*ONE, "overwrite=true"])


def test_a_picture_that_goes_bad_during_training_is_named(here, monkeypatch):
    words = [*WORDS, "folds=[1]", "data.cache=none"]
    step = Trainer.step

    def spoil(trainer, batch):
        for path in here.glob("*.png"):
            path.write_bytes(path.read_bytes()[:500])
        return step(trainer, batch)

    monkeypatch.setattr(Trainer, "step", spoil)
    with pytest.raises(UserError, match=r"\d+\.png: not a whole image .*; it was readable when this began; put"):
        training.main(words)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("a robot, out of memory"),
        ValueError("prompt 'neon sign CUDA error' has no fragment"),
        IndexError("Caught IndexError in DataLoader worker process 0."),
    ],
)
def test_a_bug_is_not_taken_for_the_machines_fault_because_of_its_words(error):
    assert explain_failure(error) is None


def test_output_that_nobody_reads_any_more_ends_training_with_what_was_trained_kept(here, unbroken, monkeypatch):
    with monkeypatch.context() as patch:
        update, updates = tqdm.update, []

        def to_nobody(bar, count):
            updates.append(count)
            if len(updates) == 12:
                raise BrokenPipeError
            return update(bar, count)

        patch.setattr(tqdm, "update", to_nobody)
        with pytest.raises(BrokenPipeError):
            training.main(ONE)
    content = read_progress(here / "runs/own/fold_01/last.pt")
    assert content["trainer"]["counts"]["steps"] > 0  # within the epoch, not at its beginning
    training.main(ONE)
    assert results(here / "runs" / "own") == unbroken


def test_a_launchers_process_is_the_training_itself():
    """A shell between would keep SIGTERM to itself."""
    launcher = (REPOSITORY / "start_training.sh").read_text()
    assert launcher.rstrip().splitlines()[-1].startswith('exec "$PYTHON" train.py --then-test "$@"')


def test_a_process_does_not_take_its_own_lock_twice(tmp_path):
    with locked(tmp_path / ".lock", "it"):
        with pytest.raises(UserError, match="it: in use by this same process"), locked(tmp_path / ".lock", "it"):
            pass
        assert (tmp_path / ".lock").exists()


def test_nothing_is_being_written_once_a_fold_is_left_even_if_its_progress_cannot_be_kept(tmp_path):
    saver, done = object.__new__(FoldSaver), []

    def fail():
        raise UserError("ten steps in a row")

    saver.writer, saver.folder, saver.keep = saving.Writer(), tmp_path, fail
    saver.setting = SimpleNamespace(config=SimpleNamespace(overwrite=False))
    saver.writer.submit(lambda: (time.sleep(0.1), done.append("written")))
    with pytest.raises(UserError, match="ten steps"):
        saver.__exit__(Interrupted, Interrupted(2), None)
    assert done == ["written"]
