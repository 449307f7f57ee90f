"""Files that fail while training writes them: the user reads one line, nothing is half there, and the run goes on.

faults.c makes the calls of libc fail, below Python, PyTorch and safetensors alike.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mgs.config_files import load_config
from mgs.training.checkpoint import load_checkpoint
from mgs.training.progress import read_progress

TESTS = Path(__file__).parent
WORDS = ["own.yaml", "folds=[1]"]
KEPT = ("best.safetensors", "predictions_val.csv", "metrics.jsonl")
KILL = 0
SPREAD = int(os.environ.get("FAULT_SPREAD", 2))  # parts of a training, at each of whose ends a kind of fault is tried

# call -> how it fails there. An errno by name says what a user's machine would have said.
FAULTS = {
    "write": (errno.ENOSPC, errno.EIO, KILL),
    "sync": (errno.EIO, KILL),
    "open": (errno.EACCES, errno.EROFS, KILL),
    "rename": (errno.ENOSPC, KILL),
    "unlink": (errno.EACCES, KILL),
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux" or not shutil.which("gcc"), reason="needs Linux and gcc for faults.c"),
]


class Bench:
    """Trainings under faults.so, each in a folder of its own."""

    def __init__(self, folder, own_set, words):
        self.folder, self.own_set, self.words, self.count = folder, own_set, words, 0
        self.layer = folder / "faults.so"
        command = ["gcc", "-shared", "-fPIC", "-O1", "-o", self.layer, TESTS / "faults.c", "-ldl"]
        subprocess.run(command, check=True)
        environment = {**os.environ, "LD_PRELOAD": str(self.layer), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(TESTS / "fault_driver.py")]
        self.driver = subprocess.Popen(
            command,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def prepare(self, call="", at=0, how=0, *, stays=False):
        """A case for the driver, in a new copy of the user's folder."""
        self.count += 1
        folder = self.folder / str(self.count)
        shutil.copytree(self.own_set, folder)
        fault = {"FAULT_BELOW": folder / "runs", "FAULT_CALL": call, "FAULT_AT": at, "FAULT_HOW": how}
        fault["FAULT_STAYS"] = int(stays)
        return {"folder": str(folder), "words": self.words, "fault": {key: str(value) for key, value in fault.items()}}

    def run(self, cases):
        """What became of each case."""
        found = []
        for case in cases:
            self.driver.stdin.write(json.dumps(case) + "\n")
            self.driver.stdin.flush()
            found.append(json.loads(self.driver.stdout.readline()))
        return found

    def close(self):
        self.driver.stdin.close()
        self.driver.wait()
        self.driver.stdout.close()


@pytest.fixture(scope="module")
def bench(tmp_path_factory, own_set):
    bench = Bench(tmp_path_factory.mktemp("faults"), own_set, [*WORDS, "train.epochs=2"])
    yield bench
    bench.close()


@pytest.fixture(scope="module")
def unbroken(bench):
    """Results of a training without faults, and how many calls of each kind it makes."""
    cases = [bench.prepare(call) for call in FAULTS]
    done = bench.run(cases)
    assert [one["code"] for one in done] == [0] * len(FAULTS)
    counts = {call: int(one["output"][-1].removeprefix("calls: ")) for call, one in zip(FAULTS, done, strict=True)}
    return results(cases[0]), counts


def name(how):
    """What a fault is called."""
    return errno.errorcode.get(how, "SIGKILL")


def results(case):
    fold = Path(case["folder"], "runs/own/fold_01")
    return {name: (fold / name).read_bytes() for name in KEPT}


def check_whole(case):
    """Every file with a final name is readable to its end."""
    run = Path(case["folder"], "runs/own")
    for path in run.rglob("best.safetensors"):
        load_checkpoint(path)
    for path in run.rglob("last.pt"):
        assert read_progress(path)["trainer"]["weights"]
    for path in run.rglob("predictions_val.csv"):
        assert len(path.read_text().splitlines()) == 4
    for path in run.rglob("config.yaml"):
        load_config(path)
    for path in run.rglob("environment.json"):
        json.loads(path.read_text())


@pytest.mark.parametrize("how", sorted({how for ways in FAULTS.values() for how in ways}), ids=name)
def test_whatever_fails_the_user_reads_one_line_nothing_is_half_written_and_the_run_goes_on(bench, unbroken, how):
    expected, counts = unbroken
    cases, faults = [], []
    for call, ways in FAULTS.items():
        places = sorted({1 + round(i * (counts[call] - 1) / SPREAD) for i in range(SPREAD + 1)})
        for at in places if how in ways else ():
            cases.append(bench.prepare(call, at, how, stays=how == errno.ENOSPC))
            faults.append(f"{call} {at} of {counts[call]}")
    broken = bench.run(cases)
    for fault, case, one in zip(faults, cases, broken, strict=True):
        shown = "\n".join(one["output"])
        if how == KILL:
            assert one["code"] == -9, (fault, shown)
        else:
            assert one["code"] in (0, 2), (fault, shown)
            assert "Traceback" not in shown, (fault, shown)
            errors = [line for line in one["output"] if line.startswith("error: ")]
            assert len(errors) == (one["code"] == 2), (fault, shown)
            assert all(os.strerror(how) in error and "runs/own" in error for error in errors), (fault, shown)
            assert one["code"] == 2 or fault.startswith("unlink"), (fault, shown)
        check_whole(case)
    again = bench.run([{**case, "fault": {"FAULT_CALL": "none"}} for case in cases])
    for fault, case, one in zip(faults, cases, again, strict=True):
        assert one["code"] == 0, (fault, one["output"])
        assert results(case) == expected, fault
        run = Path(case["folder"], "runs/own")
        assert not list(run.rglob(".*")), fault
        assert not (run / "fold_01/last.pt").exists(), fault
