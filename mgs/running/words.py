"""The words of a command line that say who does its tasks: `--devices 0,1` and `--ray [ADDRESS]`. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mgs.errors import UserError

DEVICES, RAY = "--devices", "--ray"
LOCAL = "local"  # the address of a Ray that is started on this machine, for this command alone


@dataclass
class Words:
    """A command line's words: those for the recipe, and what they say about the runner."""

    rest: list[str] = field(default_factory=list)
    devices: str | None = None  # as `parse_devices` reads it
    ray: str | None = None  # Ray's address


def read_runner(argv: Sequence[str]) -> Words:
    """Separate a runner's words from the others. Raises `UserError` for both runners, or for devices without a list.

    After `--ray`, a word that ends in .yaml, contains `=` or begins with a dash is no address.
    """
    words, waiting = Words(), list(argv)
    while waiting:
        name, equals, value = (word := waiting.pop(0)).partition("=")
        if name == DEVICES:
            if not equals:
                value = waiting.pop(0) if waiting else ""
            if not value or value.startswith("-"):
                raise UserError(f"{DEVICES}: name one device or more, such as {DEVICES} 0,1 or {DEVICES} cpu,cpu")
            words.devices = value
        elif name == RAY:
            if not equals and waiting and is_address(waiting[0]):
                value = waiting.pop(0)
            words.ray = value or LOCAL
        else:
            words.rest.append(word)
    if words.devices and words.ray:
        raise UserError(f"{DEVICES} and {RAY}: say one of the two; a Ray cluster finds its devices itself")
    return words


def is_address(word: str) -> bool:
    """Whether a word after `--ray` is an address rather than a config or a value."""
    return not (word.endswith((".yaml", ".yml")) or "=" in word or word.startswith("-"))
