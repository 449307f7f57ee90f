"""Trains under faults.so, a fork per case: a line of JSON on stdin for a case, one on stdout for what became of it.

Everything is imported once, and nothing computed, since PyTorch's threads do not outlive a fork. Each case then is a
process of its own, with its own folder and its own fault.
"""

import ctypes
import json
import os
import sys
import traceback
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

import pytest  # noqa: E402
from conftest import skip_plots  # noqa: E402

from mgs.backbones.openai import openai_clip  # noqa: E402
from mgs.errors import exit_on_user_error  # noqa: E402
from mgs.recipes import train  # noqa: E402


def run(folder: str, words: list[str], fault: dict[str, str]) -> dict:
    """One training in a forked process: its exit code (negative: killed by that signal) and what the user saw."""
    log = Path(folder, "log")
    child = os.fork()
    if not child:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(folder)
        os.environ.update(fault)
        code = 0
        try:
            exit_on_user_error(train.main, words)
        except SystemExit as ending:
            code = int(ending.code or 0)
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        os.environ.pop("FAULT_AT", None)
        print(f"calls: {count_calls()}", flush=True)
        os._exit(code)
    _, status = os.waitpid(child, 0)
    lines = log.read_text(errors="replace").replace("\r", "\n").splitlines()
    return {"code": os.waitstatus_to_exitcode(status), "output": lines}


def count_calls() -> int:
    """How many calls of the fault's kind there were, as faults.so counted them."""
    return ctypes.c_int.in_dll(ctypes.CDLL(os.environ["LD_PRELOAD"]), "fault_calls").value


def main() -> None:
    """Answer cases until there are no more."""
    skip_plots(pytest.MonkeyPatch())
    openai_clip()
    for line in sys.stdin:
        case = json.loads(line)
        print(json.dumps(run(case["folder"], case["words"], case["fault"])), flush=True)


if __name__ == "__main__":
    main()
