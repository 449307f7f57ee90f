"""Runners: the same outcomes here and by processes, whatever dies; signals end all workers, and nothing is left."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from mgs import progress_bar
from mgs.errors import UserError
from mgs.interrupts import Interrupted, heed_signals, stop_if_interrupted
from mgs.progress_bar import progress
from mgs.running.choose import parse_devices, run_tasks
from mgs.running.words import Words, read_runner

REPOSITORY = Path(__file__).parents[1]
TASKS = ["double 1", "refuse x", "stumble", "die a 1", "die b 9", "double 2"]


@dataclass(frozen=True)
class Deed:
    """Work whose tasks are words that say what to do; what it leaves lies in a folder."""

    folder: str
    broken: tuple = ()  # devices

    def open(self, device):
        (Path(self.folder) / f"{device} {os.getpid()}").touch()
        if device in self.broken:
            raise UserError("no checkpoint; name one")
        return lambda task: getattr(self, task.split()[0])(*task.split()[1:])

    def once(self, name):
        """Whether this is the first time that `name` is asked for."""
        with contextlib.suppress(FileExistsError), (Path(self.folder) / name).open("x"):
            return True
        return False

    def double(self, number):
        print(f"doubling {number}")
        return 2 * int(number)

    def refuse(self, text):
        raise UserError(f"{text}: no such image; look for it")

    def hide(self):
        return lambda: None  # which cannot be pickled

    def stumble(self):
        return {}["stone"]

    def die(self, name, times):
        if any(self.once(f"{name} {i}") for i in range(int(times))):
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"

    def count(self):
        for _ in progress(range(2), desc="counting"):
            time.sleep(0.6)
        return "counted"

    def wait(self, name):
        """Take steps until a signal comes, and save, as training does."""
        with heed_signals():
            (Path(self.folder) / f"begun {name}").touch()
            try:
                while True:
                    time.sleep(0.01)
                    stop_if_interrupted()
            except Interrupted:
                (Path(self.folder) / f"kept {name}").touch()
                raise


def wait_for(condition):
    """Return what the condition gives once that is true; fail after a while."""
    for _ in range(2000):
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("waited in vain")


def opened(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith("cpu ")]


def check_gone(folder):
    """None of the workers that were there is running any more, or soon."""
    processes = [Path(f"/proc/{name.split()[1]}") for name in opened(folder)]
    wait_for(lambda: not any(process.exists() for process in processes))


def check_outcomes(outcomes, died):
    found = {outcome.task: outcome.result if outcome.error is None else outcome.error for outcome in outcomes}
    assert found == {
        "double 1": 2,
        "refuse x": "x: no such image; look for it",
        "stumble": "KeyError: 'stone'",
        "die a 1": "done",
        "die b 9": died,
        "double 2": 4,
    }


def test_a_result_that_cannot_be_sent_is_an_outcome(tmp_path, capfd):
    (outcome,) = run_tasks(Deed(str(tmp_path)), ["hide"], devices=["cpu"])
    assert "Can't pickle" in outcome.error or "Can't get local object" in outcome.error
    assert "Traceback" in capfd.readouterr().err


def test_here_what_users_can_fix_is_an_outcome_and_a_bug_is_raised(tmp_path):
    outcomes = run_tasks(Deed(str(tmp_path)), iter(TASKS), device="cpu")
    assert [next(outcomes).result, next(outcomes).error] == [2, "x: no such image; look for it"]
    with pytest.raises(KeyError, match="stone"):
        next(outcomes)


def test_every_task_has_one_outcome_whatever_dies(tmp_path, capfd):
    check_outcomes(
        run_tasks(Deed(str(tmp_path)), TASKS, devices=["cpu", "cpu"]), "its process was killed (SIGKILL), 3 times"
    )
    out, err = capfd.readouterr()
    assert "cpu #1 | doubling 1\n" in out
    assert "| KeyError: 'stone'\n" in err  # with its traceback
    assert "| die a 1: its process was killed (SIGKILL); trying again\n" in err
    assert sorted(path.name for path in tmp_path.glob("b ?")) == ["b 0", "b 1", "b 2"]
    check_gone(tmp_path)


def test_a_device_where_nothing_starts_is_left_out(tmp_path, capfd):
    outcomes = list(run_tasks(Deed(str(tmp_path), ("x",)), ["double 1", "double 2"], devices=["x", "cpu"]))
    assert sorted(outcome.result for outcome in outcomes) == [2, 4]
    assert "x | left out, since no process could start there: no checkpoint; name one" in capfd.readouterr().err
    with pytest.raises(UserError, match="no worker could start: no checkpoint; name one"):
        list(run_tasks(Deed(str(tmp_path), ("x",)), ["double 1"], devices=["x", "x"]))


def test_tasks_are_taken_one_for_each_free_worker_and_closing_ends_them(tmp_path):
    taken = []

    def tasks():
        for number in range(100):
            taken.append(number)
            yield f"double {number}" if number < 3 else f"wait {number}"

    outcomes = run_tasks(Deed(str(tmp_path)), tasks(), devices=["cpu", "cpu"])
    assert {next(outcomes).result for _ in range(3)} == {0, 2, 4}
    assert len(taken) <= 5
    wait_for(lambda: list(tmp_path.glob("begun *")))
    outcomes.close()
    check_gone(tmp_path)
    assert list(tmp_path.glob("kept *"))


def test_a_workers_bar_arrives_without_a_terminal_now_and_then(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(progress_bar, "RARE", 0.0)
    (outcome,) = run_tasks(Deed(str(tmp_path)), ["count"], devices=["cpu"])
    assert outcome.result == "counted"
    err = capfd.readouterr().err
    assert "tasks 0/1; cpu counting 1/2\n" in err
    assert err.endswith("tasks 1/1\n")


DRIVER = """if True:
    import os, signal, sys
    from mgs.errors import exit_on_user_error
    from mgs.running.choose import run_tasks
    from test_running import Deed

    def main():
        for outcome in run_tasks(Deed(sys.argv[1]), [f"wait {i}" for i in range(4)], devices=["cpu", "cpu"]):
            print(outcome)

    if __name__ == "__main__":
        exit_on_user_error(main)
"""
ENDS = {
    "Ctrl-C reaches all": (lambda pid: os.killpg(pid, signal.SIGINT), 130),
    "SIGTERM of the first process": (lambda pid: os.kill(pid, signal.SIGTERM), 143),
    "SIGTERM of a job's manager reaches all": (lambda pid: os.killpg(pid, signal.SIGTERM), 143),
    "SIGKILL of the first process": (lambda pid: os.kill(pid, signal.SIGKILL), -9),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_signal_ends_all_workers_once_and_they_keep_what_they_did(tmp_path, end):
    send, code = ENDS[end]
    script = tmp_path / "driver.py"  # spawned processes read the main module again
    script.write_text(DRIVER)
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{Path(__file__).parent}"}
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        wait_for(lambda: len(list(tmp_path.glob("begun *"))) == 2)
        send(process.pid)
        process.wait(20)
        assert process.returncode == code
        check_gone(tmp_path)
        out, err = process.communicate()
    assert sorted(path.name for path in tmp_path.glob("kept *")) == ["kept 0", "kept 1"]
    assert out.count("interrupted") == (0 if code < 0 else 2)  # of each worker, once
    assert "Traceback" not in err
    assert "Outcome" not in out


def test_words_of_the_runner_are_told_from_the_others():
    assert read_runner(["a.yaml", "--devices", "0,1", "x=1"]) == Words(["a.yaml", "x=1"], devices="0,1")
    assert read_runner(["--devices=cpu"]) == Words([], devices="cpu")
    assert read_runner(["--ray", "a.yaml"]) == Words(["a.yaml"], ray="local")
    assert read_runner(["a.yaml", "--ray", "x=1"]) == Words(["a.yaml", "x=1"], ray="local")
    assert read_runner(["--ray", "10.0.0.1:6379", "x=1"]) == Words(["x=1"], ray="10.0.0.1:6379")
    assert read_runner(["--ray"]).ray == "local"
    with pytest.raises(UserError, match="name one device or more"):
        read_runner(["--devices"])
    with pytest.raises(UserError, match="say one of the two"):
        read_runner(["--devices", "0", "--ray"])


def test_devices_that_are_not_there_are_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert parse_devices("0, cuda:1,cpu,01") == ["cuda:0", "cuda:1", "cpu", "cuda:1"]
    with pytest.raises(UserError, match=r"devices=0,2: no GPU 2; torch sees 2"):
        parse_devices("0,2")
    for text in ("", "0,", "gpu", "-1", "cuda"):
        with pytest.raises(UserError, match="is no device; name them as in"):
            parse_devices(text)


@pytest.mark.slow
def test_every_task_has_one_outcome_by_ray_whatever_dies(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="ray is not installed")
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}{os.pathsep}{Path(__file__).parent}")
    check_outcomes(run_tasks(Deed(str(tmp_path)), TASKS, ray="local"), "its process died, 3 times")
    with pytest.raises(UserError, match="no worker could start: no checkpoint; name one"):
        list(run_tasks(Deed(str(tmp_path), ("cpu",)), ["double 1"], ray="local"))
    with pytest.raises(UserError, match="--ray auto: no Ray cluster reached"):
        list(run_tasks(Deed(str(tmp_path)), ["double 1"], ray="auto"))
    with pytest.raises(UserError, match=r"no Ray cluster reached .*refused"):
        list(run_tasks(Deed(str(tmp_path)), ["double 1"], ray="127.0.0.1:1"))
    check_gone(tmp_path)
