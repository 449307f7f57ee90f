"""Read a source in a thread of its own, some images ahead of whoever scores them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
LONGEST_WAIT = 0.1  # seconds until the thread sees that nobody reads any more


def read_ahead(items: Iterable[T], count: int) -> Iterator[T]:
    """The same items in the same order, up to `count` of them taken ahead; an error comes where it came.

    A tar is read from front to back, so on a slow store its reader must not wait for the model. The thread ends with
    the items, or when the iterator is closed.
    """
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(count)
    left = threading.Event()

    def put(item: T | None, error: BaseException | None) -> bool:
        while not left.is_set():
            try:
                ready.put((item, error), timeout=LONGEST_WAIT)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        try:
            for item in items:
                if not put(item, None):
                    return
            put(None, StopIteration())
        except BaseException as error:  # raised again where the items are asked for
            put(None, error)

    thread = threading.Thread(target=read, name="mgs-source", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]  # without an error there is one
    finally:
        left.set()
        thread.join()
