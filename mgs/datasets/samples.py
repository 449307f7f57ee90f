"""Samples: what training, testing and the audit know about an image; and which MOS a set of them has."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from mgs.dimensions import DIMENSIONS, MOS_MAX, Dimension
from mgs.errors import UserError

OWN = "own"  # the protocol of a division that the user made
END = MOS_MAX / 5  # if all MOS are within this of one end of 0-5, their scale is probably another one


@dataclass(frozen=True)
class Sample:
    """One image with its prompt and its MOS."""

    name: str  # as the table gives it, with forward slashes; what predictions.csv shows
    image: Path
    prompt: str  # as given: "None" is text, and wrapping quotes stay; blank where the table has none
    prompt_style: str  # keywords, hybrid or sentence
    targets: dict[Dimension, float]  # dimension -> MOS on 0-5; a user's own table may lack some
    subset: str = ""  # train, val or test, where a user's own table says so


def dimensions_of(samples: Sequence[Sample]) -> tuple[Dimension, ...]:
    """The dimensions that any of the samples has MOS for."""
    return tuple(dimension for dimension in DIMENSIONS if any(dimension in sample.targets for sample in samples))


def describe_range(samples: Sequence[Sample]) -> str:
    """The lowest and highest MOS of each dimension, in words."""
    values = {d: [s.targets[d] for s in samples if d in s.targets] for d in dimensions_of(samples)}
    return ", ".join(f"{d} {min(mos) + 0.0:.2f} to {max(mos) + 0.0:.2f}" for d, mos in values.items())  # never -0.00


def find_missing(samples: Sequence[Sample]) -> str:
    """How many samples have no MOS, by dimension, in words; "" where none lacks any."""
    counts = {d: sum(d not in sample.targets for sample in samples) for d in dimensions_of(samples)}
    return ", ".join(f"{d} of {count} of {len(samples)} images" for d, count in counts.items() if count)


def find_unused_scale(samples: Sequence[Sample]) -> str:
    """Where all MOS lie if that is one end of 0-5, in words; "" otherwise."""
    values = [mos for sample in samples for mos in sample.targets.values()]
    if max(values) <= END:
        return f"no MOS above {max(values):.2f} on the scale of 0 to {MOS_MAX:g}"
    if min(values) >= MOS_MAX - END:
        return f"no MOS below {min(values):.2f} on the scale of 0 to {MOS_MAX:g}"
    return ""


def refuse_blank_prompts(samples: Sequence[Sample], method: str, needs_prompt: Collection[Dimension]) -> None:
    """Raise a `UserError` for the first sample without a prompt that has MOS on a dimension which needs one.

    `needs_prompt` are those of the method called `method`.
    """
    for sample in samples:
        if not sample.prompt.strip() and (needed := [d for d in sample.targets if d in needs_prompt]):
            problem = f"{sample.name}: no prompt, which method {method} reads for {needed[0]}"
            raise UserError(f"{problem}; fill in the prompts, or choose a method that does not read them, such as liqe")
