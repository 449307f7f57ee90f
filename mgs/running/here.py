"""Tasks one after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mgs.errors import explain_failure
from mgs.running.work import Outcome, Work


def run_here(work: Work, tasks: Iterable[Any], device: str) -> Iterator[Outcome]:
    """Each task's outcome, as it is asked for. What a user can fix is an outcome; a bug is raised."""
    do = work.open(device)
    for task in tasks:
        try:
            outcome = Outcome(task, do(task))
        except Exception as error:
            reason = explain_failure(error)
            if reason is None:
                raise
            outcome = Outcome(task, error=reason)
        yield outcome
