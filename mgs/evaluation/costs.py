"""What scoring and training cost, as reports record it: added up over models, averaged over folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

SUMMED = ("parameters", "trained", "gflop_image", "gflop_texts", "train_s")


@dataclass(frozen=True)
class Costs:
    """What one model costs, or several that score an image together; None where it was not measured."""

    parameters: float | None = None  # the backbone's included
    trained: float | None = None  # parameters that train
    gflop_image: float | None = None  # 10^9 operations to score one image, its texts included
    gflop_texts: float | None = None  # those of them that embed texts, which is done once for each distinct text
    images_s: float | None = None  # images scored in a second
    train_s: float | None = None  # seconds of training for a fold
    device: str = ""
    threads: int | None = None  # of the CPU

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Costs:
        """From a report's record, which may lack any of them."""
        known: dict[str, Any] = {field.name: record.get(field.name) for field in fields(cls)}
        return cls(**known | {"device": known["device"] or ""})


def add_costs(models: Sequence[Costs]) -> Costs:
    """Of models that each score every image, one after the other."""
    found: dict[str, Any] = {name: total([getattr(one, name) for one in models]) for name in SUMMED}
    times = total([1 / one.images_s if one.images_s else None for one in models])
    return Costs(**found, images_s=1 / times if times else None, **same_place(models))


def mean_costs(folds: Sequence[Costs]) -> Costs:
    """The mean over folds; of the speed, all their images over all their time if each has as many."""
    sums = add_costs(folds)
    found: dict[str, Any] = {
        name: None if (value := getattr(sums, name)) is None else value / len(folds) for name in SUMMED
    }
    speed = None if sums.images_s is None else sums.images_s * len(folds)
    return Costs(**found, images_s=speed, **same_place(folds))


def total(values: Sequence[float | None]) -> float | None:
    """The sum; None where one of them is unknown."""
    known = [value for value in values if value is not None]
    return float(sum(known)) if known and len(known) == len(values) else None


def same_place(parts: Sequence[Costs]) -> dict[str, Any]:
    """Device and threads of all; every device where there are several."""
    threads = {one.threads for one in parts}
    return {
        "device": " and ".join(dict.fromkeys(one.device for one in parts if one.device)),
        "threads": threads.pop() if len(threads) == 1 else None,
    }
