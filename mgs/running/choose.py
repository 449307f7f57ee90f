"""Choose who does tasks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mgs.errors import UserError
from mgs.running.here import run_here
from mgs.running.work import Outcome, Work


def run_tasks(
    work: Work, tasks: Iterable[Any], *, devices: Sequence[str] = (), ray: str | None = None, device: str = "auto"
) -> Iterator[Outcome]:
    """Have `tasks` done, and give each one's outcome as it comes.

    `devices` has a process for each of its entries, as `parse_devices` gives them. `ray` is a cluster's address, or
    `local`; `device` says whether its workers take a GPU each (`cuda`), none (`cpu`), or one where there are any.
    With neither, tasks are done in this process, one after the other, on `device`.

    Close the iterator, or use it up: that ends the workers. Ctrl-C and SIGTERM end them too, as they would end the
    work in a process of its own, and are then raised. Raises `UserError` where no worker can start.
    """
    if devices and ray:
        raise UserError("devices and ray: say one of the two; a Ray cluster finds its devices itself")
    if ray:
        from mgs.running.ray_cluster import run_on_ray

        return run_on_ray(work, list(tasks), ray, device)
    if devices:
        from mgs.running.devices import run_on_devices

        return run_on_devices(work, tasks, devices)
    return run_here(work, tasks, device)


def parse_devices(text: str) -> list[str]:
    """A list such as `0,1` or `cpu,cpu` as torch's names of devices; raises `UserError` for one that is not there."""
    import torch

    found = []
    for word in text.split(","):
        match = re.fullmatch(r"cpu|(?:cuda:)?([0-9]{1,4})", word.strip())
        if not match:
            raise UserError(f"devices={text}: {word.strip()!r} is no device; name them as in 0,1 or cuda:1 or cpu,cpu")
        number = match[1]
        if number and int(number) >= (count := torch.cuda.device_count()):
            raise UserError(f"devices={text}: no GPU {number}; torch sees {count} CUDA device(s) here; try cpu")
        found.append(f"cuda:{int(number)}" if number else "cpu")
    return found
