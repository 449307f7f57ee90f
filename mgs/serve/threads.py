"""The threads of a server, besides its event loop and those that score."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from mgs.scoring.streaming import DECODERS

READERS = 2


class Threads:
    """Threads by what they do, so that one kind of work does not wait for another."""

    def __init__(self) -> None:
        self.begun: list[threading.Thread] = []
        self.decode = self.make_pool(DECODERS)
        self.read = self.make_pool(READERS)  # prompts in files
        self.write = self.make_pool(1)  # the words about scores

    def make_pool(self, threads: int) -> ThreadPoolExecutor:
        """So many threads, which are known from when they begin."""
        return ThreadPoolExecutor(
            threads, thread_name_prefix="mgs-serve", initializer=lambda: self.begun.append(threading.current_thread())
        )

    def close(self, seconds: float = 1.0) -> bool:
        """End the threads, without what waits for them; whether they have all ended in time."""
        for pool in (self.decode, self.read, self.write):
            pool.shutdown(wait=False, cancel_futures=True)
        end = time.monotonic() + seconds
        for thread in self.begun:
            thread.join(max(0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self.begun)
