"""Make ten folds from one table: samples that must stay together form groups, and the seed deals out the groups."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from mgs.datasets.samples import Sample
from mgs.errors import UserError
from mgs.images.decode import content_ids
from mgs.prompts import prompt_key

SUBSETS = ("train", "val", "test")
KEPT_APART = {"prompt-disjoint": "prompts", "random-image": "images"}  # what each protocol keeps in one subset
ROUNDS = 2
FOLDS_PER_ROUND = 5  # so that a test set is 20 % of the images
FOLDS = ROUNDS * FOLDS_PER_ROUND
VAL_SHARE = 0.1
MIN_GROUPS = 10  # with fewer, two rounds of five test sets repeat themselves
SHUFFLES = 100  # tries to draw a round that repeats no earlier test set

T = TypeVar("T")


def make_folds(samples: Sequence[Sample], protocol: str, seed: int) -> list[dict[str, list[int]]]:
    """Ten divisions of `samples` into train, val and test, about 70/10/20, as lists of positions in `samples`.

    In each of two rounds of five, every image is in exactly one test set, and no test set occurs twice. With
    prompt-disjoint, neither a prompt nor an image is in two subsets; with random-image, no image is. Equal files under
    two names are one image. Depends on content and seed only, not on the samples' order. Raises `UserError` where there
    are too few prompts or images.
    """
    if protocol not in KEPT_APART:
        raise UserError(f"protocol {protocol}: no way to make folds; choose {' or '.join(KEPT_APART)}")
    groups, what = group_samples(samples, protocol), KEPT_APART[protocol]
    remedy = "add images, choose protocol random-image, or give folds of your own in data.splits"
    if len(groups) < MIN_GROUPS:
        raise UserError(
            f"{len(groups)} different {what} are too few for {FOLDS} folds, {MIN_GROUPS} the least; {remedy}"
        )
    rng = np.random.default_rng(seed)
    folds: list[dict[str, list[int]]] = []
    seen: set[frozenset[int]] = set()
    for _ in range(ROUNDS):
        for _ in range(SHUFFLES):
            test_sets = deal(groups, rng)
            if seen.isdisjoint(map(frozenset, test_sets)):
                break
        else:
            largest = max(map(len, groups))
            problem = f"{largest} of {len(samples)} rows share one of the {what}, so that test sets would repeat"
            raise UserError(f"{problem}; {remedy}")
        seen.update(map(frozenset, test_sets))
        folds += [complete(groups, test, rng) for test in test_sets]
    return folds


def group_samples(samples: Sequence[Sample], protocol: str) -> list[list[int]]:
    """Positions of samples that must stay together, as groups in an order that depends on content alone."""
    parent: dict[str, str] = {}  # a forest: names, files and prompts that occur together have one root

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    names = [f"image {posixpath.normpath(sample.name)}" for sample in samples]
    contents = content_ids(sample.image for sample in samples)
    for name, sample in zip(names, samples, strict=True):
        if sample.image in contents:
            parent[root(name)] = root(f"file {contents[sample.image]}")
    if protocol == "prompt-disjoint":
        for name, sample in zip(names, samples, strict=True):
            if prompt := prompt_key(sample.prompt):
                parent[root(name)] = root(f"prompt {prompt}")
    groups: dict[str, list[int]] = {}
    for i in sorted(range(len(samples)), key=lambda i: content_key(samples[i])):
        groups.setdefault(root(names[i]), []).append(i)
    return list(groups.values())


def content_key(sample: Sample) -> tuple[object, ...]:
    """A key that sorts samples the same way from any order; MOS decides only between rows of one image and prompt."""
    return sample.name, sample.prompt, sorted(sample.targets.items())


def deal(groups: Sequence[Sequence[int]], rng: np.random.Generator) -> list[list[int]]:
    """Five test sets of nearly equal size: groups in random order, largest first, each dealt to the smallest set."""
    sets: list[list[int]] = [[] for _ in range(FOLDS_PER_ROUND)]
    for group in sorted(shuffle(groups, rng), key=len, reverse=True):
        min(sets, key=len).extend(group)
    return sets


def complete(groups: Sequence[Sequence[int]], test: Sequence[int], rng: np.random.Generator) -> dict[str, list[int]]:
    """The fold with this test set: val is drawn from the other groups, a tenth of all images; train is the rest."""
    tested = set(test)
    wanted = VAL_SHARE * sum(map(len, groups))
    train: list[int] = []
    val: list[int] = []
    for group in shuffle([group for group in groups if tested.isdisjoint(group)], rng):
        nearer = abs(len(val) + len(group) - wanted) < abs(len(val) - wanted)
        (val if nearer else train).extend(group)
    return {"train": train, "val": val, "test": list(test)}


def shuffle(items: Sequence[T], rng: np.random.Generator) -> list[T]:
    """The same items in random order."""
    return [items[i] for i in rng.permutation(len(items))]
