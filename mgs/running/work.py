"""What runners take and give: work that opens in a worker, tasks, and an outcome for each."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from mgs.errors import UserError, explain_failure
from mgs.safe_text import one_line

TRIES = 3  # of a task whose process dies; one that raises an error is not tried again


class Work(Protocol):
    """What all tasks of a run have in common. It is pickled, and opened once in each process that does tasks."""

    def open(self, device: str) -> Callable[[Any], Any]:
        """Load what all tasks need, on `cpu`, `cuda` or `cuda:1`; returns what does one task.

        A task is picklable, and `str` names it for people. It may be done twice.
        """
        ...


@dataclass(frozen=True)
class Outcome:
    """What became of a task: its result, or why there is none, in one line."""

    task: Any
    result: Any = None
    error: str | None = None


def explain(error: Exception) -> str:
    """An error in one line. A bug's traceback goes to stderr, since the line alone would not lead to it."""
    reason = explain_failure(error)
    if reason is None:
        traceback.print_exception(error, file=sys.stderr)
        reason = f"{type(error).__name__}: {error}"
    return one_line(reason)


def attempt(do: Callable[[Any], Any], task: Any) -> tuple[Outcome, bool]:
    """Do a task in a worker, where every error becomes an outcome. Signals are not caught.

    Also says whether the process may be broken: an error of a GPU stays with it, and a bug may have left anything.
    """
    try:
        return Outcome(task, do(task)), False
    except Exception as error:
        return Outcome(task, error=explain(error)), not isinstance(error, (UserError, OSError))


def refuse_to_start(reason: str) -> UserError:
    """The error where no worker can open the work."""
    return UserError(f"no worker could start: {reason}")
