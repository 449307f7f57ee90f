"""`mgs doctor`: what is installed, what is found, and whether a known drawing still gets its known scores."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

import mgs
from mgs.backbones.openai import DOWNLOADS, published_sha256
from mgs.backbones.table import load_backbone
from mgs.demo.drawing import draw
from mgs.demo.faults import Damage
from mgs.demo.generators import as_asked
from mgs.demo.prompts import Content, Group
from mgs.errors import UserError
from mgs.files import file_sha256, free_disk
from mgs.machine import available_memory, choose_device, choose_precision, environment
from mgs.scoring.scorer import Scorer
from mgs.training.checkpoint import CHECKPOINT, read_metadata
from mgs.training.find_checkpoint import finished_folds

SAMPLE = Content((Group("yellow", "bird"), Group("blue", "boat")), "above", "grassy meadow")
SAMPLE_PROMPT = "a yellow bird above a blue boat in a grassy meadow"
# by the demo CLIP, zero-shot, in float32
SAMPLE_SCORES = {"quality": 2.377, "authenticity": 3.354, "correspondence": 1.609}
TOLERANCE = 0.02  # of MOS: processors round differently
GOOD, NOTE, BAD = "ok", "note", "PROBLEM"


@dataclass(frozen=True)
class Verdict:
    """One thing that was looked at."""

    kind: str  # GOOD, NOTE or BAD
    what: str
    found: str

    def __str__(self) -> str:
        return f"{self.kind:<8}{self.what:<14}{self.found}"


def examine(runs: Path) -> Iterator[Verdict]:
    """All verdicts, in order; a check that raises becomes a problem, and the next check runs."""
    checks: dict[str, Callable[[], Iterator[Verdict]]] = {
        "versions": find_versions,
        "device": find_device,
        "weights": find_weights,
        "checkpoints": lambda: find_checkpoints(runs),
        "self-test": test_sample,
    }
    for what, check in checks.items():
        try:
            yield from check()
        except Exception as error:  # every failure here is what people want to know
            yield Verdict(BAD, what, " ".join(str(error).split()) or type(error).__name__)


def find_versions() -> Iterator[Verdict]:
    """Python and packages."""
    facts = environment(torch.device("cpu"))
    yield Verdict(GOOD, "mgs", f"{mgs.__version__}, Python {facts['python']}, {facts['platform']}")
    yield Verdict(GOOD, "packages", ", ".join(f"{name} {version}" for name, version in facts["packages"].items()))
    extras = [name for name in ("onnxruntime", "torchmetrics", "pyarrow", "huggingface_hub") if has(name)]
    yield Verdict(NOTE, "extras", ", ".join(extras) or "none installed")


def has(package: str) -> bool:
    """Whether a package is installed."""
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def find_device() -> Iterator[Verdict]:
    """What `device=auto` would run on, and how much memory and disk is free."""
    device = choose_device("auto")
    precision = str(choose_precision("auto", device)).removeprefix("torch.")
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        yield Verdict(GOOD, "device", f"{name}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free, {precision}")
    else:
        built = "built for CUDA" if torch.version.cuda else "built without CUDA"
        yield Verdict(NOTE, "device", f"CPU, {os.cpu_count()} cores, {precision}; torch {built} sees no GPU")
    yield Verdict(
        GOOD, "memory", f"{available_memory() / 1e9:.1f} GB of RAM, {free_disk(Path()) / 1e9:.1f} GB of disk free"
    )


def find_weights() -> Iterator[Verdict]:
    """CLIP weights on this machine; OpenAI's are checked against their SHA-256."""
    demo = load_backbone("demo")
    yield Verdict(GOOD, "demo CLIP", f"SHA-256 {demo.sha256[:16]}...")
    files = {path.name: path for path in sorted(DOWNLOADS.expanduser().glob("*.pt"))}
    for file, expected in published_sha256().items():
        if path := files.get(file):
            whole = file_sha256(path) == expected
            found = "SHA-256 as published" if whole else "other bytes than published; delete it to fetch it again"
            yield Verdict(GOOD if whole else BAD, "CLIP", f"{path}: {found}")
    if not files:
        yield Verdict(NOTE, "CLIP", f"none of OpenAI's in {DOWNLOADS}; ViT-B/16 is fetched when first used")


def find_checkpoints(runs: Path) -> Iterator[Verdict]:
    """Trained folds under `runs`."""
    found = sorted(mark.with_name(CHECKPOINT) for mark in finished_folds(runs))
    if not found:
        yield Verdict(NOTE, "checkpoints", f"none under {runs}/; bash start_training.sh makes the demo's")
    for path in found:
        try:
            facts = read_metadata(path)
            told = [f"{fact} {facts[fact]}" for fact in ("dataset", "protocol", "fold") if fact in facts]
            trained = ", ".join([*told, *facts.get("val", [])]) or "does not say what it was trained on"
            yield Verdict(GOOD, "checkpoint", f"{path}: {trained}")
        except UserError as error:
            yield Verdict(BAD, "checkpoint", str(error))


def test_sample() -> Iterator[Verdict]:
    """Score a drawing whose scores are known."""
    start = time.monotonic()
    scorer = Scorer.zero_shot("demo", device="cpu", precision="fp32")
    score = scorer.score(draw_sample(), SAMPLE_PROMPT)
    off = max(abs(getattr(score, name) - value) for name, value in SAMPLE_SCORES.items())
    found = ", ".join(f"{name} {getattr(score, name):.3f}" for name in SAMPLE_SCORES)
    told = f"{found} in {time.monotonic() - start:.1f} s; off by {off:.4f}, at most {TOLERANCE} is allowed"
    yield Verdict(GOOD if off <= TOLERANCE else BAD, "self-test", told)


def draw_sample() -> np.ndarray:
    """The built-in sample, (512, 512, 3) uint8."""
    return draw(as_asked(SAMPLE), Damage(blur=0.2), np.random.default_rng(5)).pixels
