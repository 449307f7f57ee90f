"""Copies between host and device that make neither wait: all of a batch at once one way, read late the other way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 16  # bytes; a tensor of any type may begin at their multiples
MOST_PINNED = 1 << 28  # bytes in one buffer


@dataclass(frozen=True)
class Sent:
    """Tensors by name that are on a device, or on their way there: `arrive` says that the work to come needs them."""

    tensors: dict[str, Tensor]
    buffer: Tensor | None = None  # which the copied ones are parts of
    copied: torch.cuda.Event | None = None

    def arrive(self) -> dict[str, Tensor]:
        """The tensors, for work that is queued from now on: the device waits for the copy, the host does not."""
        if self.copied and self.buffer is not None:
            stream = torch.cuda.current_stream(self.buffer.device)
            stream.wait_event(self.copied)
            self.buffer.record_stream(stream)  # so that its memory is not given away before this work is done
        return self.tensors


class Sender:
    """Sends a batch's tensors to a device in one copy, from pinned memory, on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self.device = torch.empty(0, device=device).device  # with its number
        real = self.device.type == "cuda" and torch.cuda.is_available()  # tests run without a GPU, on fake tensors
        self.stream = torch.cuda.Stream(self.device) if real else None

    def __getstate__(self) -> dict[str, Any]:
        return {"device": self.device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Sender.__init__(self, state["device"])

    def send(self, tensors: Mapping[str, Tensor]) -> Sent:
        """Begin to copy tensors; those that are on the device already stay as they are. Any thread may call it."""
        there = {name: tensor for name, tensor in tensors.items() if tensor.device == self.device}
        if len(there) == len(tensors):
            return Sent(dict(tensors))
        places, length = {}, 0
        for name, tensor in tensors.items():
            if name not in there:
                places[name] = slice(length, length + tensor.nbytes)
                length = -(-places[name].stop // ALIGNMENT) * ALIGNMENT
        # Pinned memory stays with the process. Beyond that length this thread waits for the copy; the device does not.
        packed = torch.empty(length, dtype=torch.uint8, pin_memory=length <= MOST_PINNED)
        for name, place in places.items():
            as_part(packed[place], tensors[name]).copy_(tensors[name])
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
            buffer = packed.to(self.device, non_blocking=True)
            copied = self.stream.record_event() if self.stream else None
        sent = {
            name: there[name] if name in there else as_part(buffer[places[name]], tensors[name]) for name in tensors
        }
        return Sent(sent, buffer, copied)


def as_part(part: Tensor, like: Tensor) -> Tensor:
    """A part of a buffer of bytes, seen as a tensor of the type and shape of `like`."""
    return part.view(like.dtype).view(like.shape) if like.numel() else torch.empty_like(like, device=part.device)


class Late:
    """A tensor on its way to the host. Reading it waits for the work before it, but not for what was queued since."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.copied = tensor.detach(), None
        if tensor.device.type == "cuda":
            self.tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self.tensor.copy_(tensor.detach(), non_blocking=True)
            if torch.cuda.is_available():
                self.copied = torch.cuda.current_stream(tensor.device).record_event()

    def read(self) -> Any:
        """The numbers, in nested lists."""
        if self.copied:
            self.copied.synchronize()
        return self.tensor.tolist()
