"""Runners: the same outcomes here and by processes, whatever dies; signals end all workers, and nothing is left."""

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from mgs.errors import UserError


@dataclass(frozen=True)
class Deed:
    """Work whose tasks are words that say what to do; what it leaves lies in a folder."""

    folder: str

    def open(self, device):
        (Path(self.folder) / f"opened {os.getpid()}").touch()
        if device.startswith("cpu") and Path(self.folder, "broken").exists():
            raise UserError("broken: no checkpoint; name another")
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

    def stumble(self):
        return {}["stone"]

    def die(self, name, times):
        if any(self.once(f"{name} {i}") for i in range(int(times))):
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"
