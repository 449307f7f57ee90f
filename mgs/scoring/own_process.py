"""Objects that have a lock and work only in the process that made them, or in one that unpickled them."""

from __future__ import annotations

import os
import threading
from typing import Any

from mgs.errors import UserError


class OwnProcess:
    """Has a lock; can be pickled without it, and refuses to work in a process that was forked since."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("lock", "process")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        OwnProcess.__init__(self)
        vars(self).update(state)

    def __copy__(self) -> OwnProcess:
        return self  # a copy would have another lock for the same content

    def refuse_fork(self) -> None:
        """Raise a `UserError` in a forked process: torch's threads are not there, and the lock may be held for ever."""
        if self.process != os.getpid():
            raise UserError(
                f"{type(self).__name__}: made before this process was forked, where it would hang; make it in the "
                "worker itself, or start workers by spawn (multiprocessing_context='spawn')"
            )
