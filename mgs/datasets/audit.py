"""Look for what may be wrong with a dataset's folds: leaks, repeats, conflicts, damaged files."""

from __future__ import annotations

import math
import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from mgs.config import DataConfig
from mgs.datasets.folds import Fold, find_folds
from mgs.datasets.make_folds import SUBSETS
from mgs.datasets.samples import Sample, describe_range, find_missing, find_unused_scale
from mgs.images.cache import ImageCache
from mgs.images.decode import content_ids
from mgs.prompts import prompt_key

SAME_MOS = 1e-6  # the published folds write one MOS with differing last digits
FIRST_NAMED, MOST_NAMED = 3, 50  # how many items a finding names; how many bad files
PAIRS = (("train", "test"), ("val", "test"), ("train", "val"))
LIKE_MISSING = {"none", "null", "na", "n/a", "nan"}  # prompts that table readers turn into missing values


@dataclass(frozen=True)
class Finding:
    """One thing found: a leak between train and test, a flaw to fix or to know about, or a note for information."""

    kind: Literal["leak", "flaw", "note"]
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True)
class Row:
    """A sample with its fold and subset."""

    fold: int
    subset: str
    sample: Sample
    image: str  # equal for equal files, also under different names

    @property
    def place(self) -> str:
        return f"fold {self.fold} {self.subset}"


def audit(folds: Sequence[Fold], bad: Mapping[Path, str] | None = None) -> list[Finding]:
    """Everything worth knowing about these folds, leaks first; `bad` are the images that cannot be read, with reasons.

    Two images are the same if their names or their files' contents are. Images that are missing or damaged are
    compared by name only.
    """
    placed = [(fold.number, subset, sample) for fold in folds for subset in SUBSETS for sample in getattr(fold, subset)]
    contents = content_ids(sample.image for _, _, sample in placed)
    rows = [Row(*place, contents.get(place[-1].image, f"named {clean_name(place[-1])}")) for place in placed]
    findings = [
        *find_shared_images(rows),
        *find_conflicts(rows),
        *find_copies(rows),
        *find_repeated_rows(rows),
        *find_repeated_folds(rows),
        *find_bad_images(bad or {}),
        *find_shared_prompts(rows, {fold.number: fold.protocol for fold in folds}),
        *find_untested(rows),
        *find_texts_like_missing(rows),
        *describe_mos(rows),
    ]
    return sorted(findings, key=lambda finding: ("leak", "flaw", "note").index(finding.kind))


def audit_dataset(data: DataConfig, requested: Sequence[int] = ()) -> tuple[str, list[Finding]]:
    """The folds' protocol, and `audit` of those requested, or of all, once every image has been decoded."""
    lenient = replace(data, on_bad_image="skip")
    folds = find_folds(lenient, requested)
    paths = (sample.image for fold in folds for subset in SUBSETS for sample in getattr(fold, subset))
    bad = ImageCache(Path(data.cache_folder)).fill(paths, place="none", device=torch.device("cpu"))
    return folds[0].protocol, audit(folds, bad)


def find_shared_images(rows: Sequence[Row]) -> list[Finding]:
    """Images in two subsets of one fold; between train and test that is a leak."""
    findings = []
    for one, other in PAIRS:
        details, total = [], 0
        for fold, subsets in by_fold(rows).items():
            first = {row.image: row.sample.name for row in subsets[one]}
            shared = {row.sample.name: first[row.image] for row in subsets[other] if row.image in first}
            total += len(shared)
            if shared:
                pairs = [name if name == twin else f"{name} = {twin}" for name, twin in shared.items()]
                details.append(f"fold {fold}: {name_some(pairs)}")
        if total:
            kind: Literal["leak", "flaw"] = "leak" if (one, other) == PAIRS[0] else "flaw"
            findings.append(Finding(kind, f"{count(total, 'image')} of {other} also in {one} ({'; '.join(details)})"))
    return findings


def find_conflicts(rows: Sequence[Row]) -> list[Finding]:
    """One name with different MOS, in any folds and subsets."""
    first: dict[str, Row] = {}
    conflicts: dict[str, str] = {}
    for row in rows:
        other = first.setdefault(clean_name(row.sample), row)
        for dimension, mos in row.sample.targets.items():
            before = other.sample.targets.get(dimension, mos)
            if not math.isclose(mos, before, rel_tol=0, abs_tol=SAME_MOS):
                problem = f"{row.sample.name}: {dimension} {before:.4g} in {other.place}, {mos:.4g} in {row.place}"
                conflicts.setdefault(row.sample.name, problem)
    if not conflicts:
        return []
    named = name_some(list(conflicts.values()))
    return [Finding("flaw", f"{count(len(conflicts), 'image')} with two MOS values ({named})")]


def find_copies(rows: Sequence[Row]) -> list[Finding]:
    """Equal files under different names; people have rated each separately, so their MOS may differ."""
    names: dict[str, dict[str, None]] = {}
    for row in rows:
        names.setdefault(row.image, {})[clean_name(row.sample)] = None
    copies = [" = ".join(group) for group in names.values() if len(group) > 1]
    if not copies:
        return []
    return [Finding("flaw", f"{count(len(copies), 'picture')} under several names ({name_some(copies)})")]


def find_repeated_rows(rows: Sequence[Row]) -> list[Finding]:
    """One name twice in one subset."""
    counts = Counter((row.place, clean_name(row.sample)) for row in rows)
    repeated = [f"{name} in {place}" for (place, name), times in counts.items() if times > 1]
    if not repeated:
        return []
    distinct = len({name for (_, name), times in counts.items() if times > 1})
    return [Finding("flaw", f"{count(distinct, 'image')} more than once in one set ({name_some(repeated)})")]


def find_repeated_folds(rows: Sequence[Row]) -> list[Finding]:
    """Folds that test the same images: all of them (a flaw: it is one fold under two numbers) or some (a note)."""
    tested = {fold: {row.image for row in subsets["test"]} for fold, subsets in by_fold(rows).items()}
    repeats, overlaps = [], []
    numbers = list(tested)
    for i, one in enumerate(numbers):
        for other in numbers[i + 1 :]:
            if tested[one] == tested[other]:
                repeats.append(f"folds {one} and {other}")
            elif both := len(tested[one] & tested[other]):
                overlaps.append((both, f"folds {one} and {other} share {both} of {len(tested[other])}"))
    findings = [Finding("flaw", f"test sets with the same images ({'; '.join(repeats)})")] if repeats else []
    if overlaps:
        largest = max(overlaps)[1]
        findings.append(
            Finding("note", f"{count(len(overlaps), 'pair')} of test sets overlap, at most: {largest} images")
        )
    return findings


def find_bad_images(bad: Mapping[Path, str]) -> list[Finding]:
    """Missing and damaged files, by name and reason; at most `MOST_NAMED` are named."""
    if not bad:
        return []
    named = name_some(list(bad.values()), MOST_NAMED)
    return [Finding("flaw", f"{count(len(bad), 'image')} missing or unreadable ({named})")]


def find_shared_prompts(rows: Sequence[Row], protocols: Mapping[int, str]) -> list[Finding]:
    """Prompts in two subsets: a flaw if the protocol rules it out or every test prompt is in train, else a note."""
    findings: list[Finding] = []
    for one, other in PAIRS:
        whole, broken, some = [], [], []
        for fold, subsets in by_fold(rows).items():
            first, second = ({prompt_key(row.sample.prompt) for row in subsets[s]} - {""} for s in (one, other))
            shared = first & second
            share = f"fold {fold}: {len(shared)} of {len(second)}"
            if shared and protocols[fold] == "prompt-disjoint":
                broken.append(share)
            elif shared and shared == second and (one, other) == PAIRS[0]:
                whole.append(share)
            elif shared:
                some.append(share)
        what = f"prompts of {other} also in {one}"
        if broken:
            findings.append(Finding("flaw", f"{what}, though the protocol is prompt-disjoint ({'; '.join(broken)})"))
        if whole:
            findings.append(Finding("flaw", f"all {what} ({'; '.join(whole)})"))
        if some:
            findings.append(Finding("note", f"{what} ({'; '.join(some)})"))
    return findings


def find_untested(rows: Sequence[Row]) -> list[Finding]:
    """How many images no fold tests."""
    untested = {row.image for row in rows} - {row.image for row in rows if row.subset == "test"}
    return [Finding("note", f"{count(len(untested), 'image')} in no test set of these folds")] if untested else []


def find_texts_like_missing(rows: Sequence[Row]) -> list[Finding]:
    """Prompts such as "None", which are text here and missing values to most readers of tables."""
    found: dict[str, set[str]] = {}
    for row in rows:
        if prompt_key(row.sample.prompt) in LIKE_MISSING:
            found.setdefault(row.sample.prompt, set()).add(row.image)
    texts = [f"{prompt!r} of {count(len(which), 'image')}" for prompt, which in found.items()]
    return [Finding("note", f"prompts that look like missing values, kept as text ({'; '.join(texts)})")] * bool(texts)


def describe_mos(rows: Sequence[Row]) -> list[Finding]:
    """A summary of folds, images, prompts and the range of MOS by dimension; then the MOS that are missing or odd."""
    samples, images = [row.sample for row in rows], {row.image: row.sample for row in rows}
    prompts = {prompt_key(sample.prompt) for sample in samples} - {""}
    sizes = {"fold": len({row.fold for row in rows}), "image": len(images), "prompt": len(prompts)}
    size = ", ".join(count(number, noun) for noun, number in sizes.items())
    findings = [Finding("note", f"{size}; MOS: {describe_range(samples)}")]
    if missing := find_missing(list(images.values())):
        findings.append(Finding("flaw", f"MOS missing, and left out of loss and metrics: {missing}"))
    if unused := find_unused_scale(samples):
        findings.append(Finding("flaw", f"{unused}; is data.mos_range right?"))
    return findings


def by_fold(rows: Sequence[Row]) -> dict[int, dict[str, list[Row]]]:
    """Fold -> subset -> its rows."""
    folds: dict[int, dict[str, list[Row]]] = {}
    for row in rows:
        folds.setdefault(row.fold, {subset: [] for subset in SUBSETS})[row.subset].append(row)
    return folds


def clean_name(sample: Sample) -> str:
    """The image's name, the same for "a.png" and "./a.png"."""
    return posixpath.normpath(sample.name)


def count(number: int, noun: str) -> str:
    """The number with its noun."""
    return f"{number} {noun}{'s' * (number != 1)}"


def name_some(names: Sequence[str], most: int = FIRST_NAMED) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return "; ".join(names[:most]) + more
