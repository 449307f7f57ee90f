"""Objects that have a thread and work only in the process that made them, or in one that unpickled them."""

from __future__ import annotations

import os

from mgs.errors import UserError


class OwnProcess:
    """Refuses to work in a process that was forked after it was made."""

    def __init__(self) -> None:
        self.process = os.getpid()

    def __copy__(self) -> OwnProcess:
        return self  # a copy would have another thread for the same content

    def refuse_fork(self) -> None:
        """Raise a `UserError` in a forked process: neither torch's threads nor our own are there."""
        if self.process != os.getpid():
            raise UserError(
                f"{type(self).__name__}: made before this process was forked, where it would hang; make it in the "
                "worker itself, or start workers by spawn (multiprocessing_context='spawn')"
            )
