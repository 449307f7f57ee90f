"""What a GPU makes of MGS, in one JSON: python -m benchmarks.gpu --out runs/gpu.json (benchmarks/gpu.sh runs it)

Pictures are noise, 512x512, and weights are random, of ViT-B/16's shape: neither changes the time. Each figure is
written as soon as it is measured, so that a time limit loses only what is left. `--device cpu --seconds 1 --images 24`
tries it without a GPU.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed import VIT_B_16, count_flops, matmul_rate
from mgs.backbones.clip import CLIPBackbone
from mgs.backbones.openai import openai_clip
from mgs.config import Config, ModelConfig, Precision, TrainConfig
from mgs.datasets.samples import Sample
from mgs.engine.engine import make_engine
from mgs.engine.loader import Loader
from mgs.engine.predict import EVAL_BATCH, predict
from mgs.errors import exit_on_user_error
from mgs.files import write_json
from mgs.images.cache import ImageCache
from mgs.machine import Machine, compile_or_not, environment, set_seed
from mgs.methods.table import make_method
from mgs.training.trainer import Trainer

AGIQA_3K = 2087  # train images of one of AGIQA-3K's folds
WARM_UP = 5  # steps that are not timed
KINDS = ("a river in a forest", "statue", "two cats playing chess", "an old fisherman, wrinkles", "bowl of ramen")
STYLES = ("oil painting", "photograph, film grain", "baroque style, sharp focus", "8k, cinematic", "anime style")


class Noise(ImageCache):
    """Pictures of noise in RAM, the same few again and again."""

    def __init__(self, sizes: Sequence[tuple[int, int]]) -> None:
        super().__init__(Path())
        self.some = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]

    def read(self, path: Path) -> Tensor:
        return self.some[int(path.name) % len(self.some)]


class Bench:
    """The figures so far, and where they go."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.images = options, Noise([(512, 512)] * 32)
        self.machine = Machine.choose(options.device)
        self.figures: dict[str, Any] = {"environment": environment(self.machine.device), "rows": {}}

    def add(self, name: str, **figures: float | str) -> None:
        """Print a row and write all of them."""
        self.figures["rows"][name] = figures
        texts = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in figures.items()}
        print(f"{name}:", ", ".join(f"{key} {text}" for key, text in texts.items()), flush=True)
        write_json(self.options.out, self.figures)

    def loader(self, precision: Precision, *, freeze_stem: bool = False) -> tuple[Loader, Config]:
        """A fresh MGS on the device, and its config."""
        train = TrainConfig(epochs=1, batch_size=self.options.batch)
        config = Config(name="gpu", precision=precision, model=ModelConfig(freeze_stem=freeze_stem), train=train)
        backbone = CLIPBackbone(openai_clip().model.CLIP(*VIT_B_16).eval(), "random")
        method = make_method(backbone, config)
        machine = replace(self.machine, dtype=Machine.choose(self.options.device, precision).dtype)
        return Loader(make_engine(method, config, machine), self.images), config

    def synchronise(self) -> None:
        """Wait until the device has done everything."""
        if self.machine.device.type == "cuda":
            torch.cuda.synchronize(self.machine.device)

    def rate(self, step: Callable[[], int]) -> tuple[float, float]:
        """Images a second of a step that returns how many it did, after a warm-up; and the peak memory in GB."""
        for _ in range(WARM_UP):
            step()
        self.synchronise()
        on_gpu = self.machine.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self.machine.device)
        begin, done = time.perf_counter(), 0
        while time.perf_counter() - begin < self.options.seconds:
            done += step()
        self.synchronise()
        peak = torch.cuda.max_memory_allocated(self.machine.device) / 1e9 if on_gpu else float("nan")
        return done / (time.perf_counter() - begin), peak


def some_samples(count: int) -> list[Sample]:
    """Samples of numbered pictures, with prompts of the lengths that AGIQA-3K has."""
    pairs = itertools.cycle(itertools.product(KINDS, STYLES))
    texts = [f"{kind}, number {i}, {style}" for i, (kind, style) in zip(range(count), pairs, strict=False)]
    return [
        Sample(str(i), Path(str(i)), text, "hybrid", {"quality": 2.5, "correspondence": 2.5})
        for i, text in enumerate(texts)
    ]


def measure(options: argparse.Namespace) -> None:
    """Measure everything, the checks first."""
    set_seed(42)
    bench = Bench(options)
    on_gpu = bench.machine.device.type == "cuda"
    if on_gpu:
        words = [sys.executable, "-m", "pytest", "-q", "tests/test_cuda.py"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        bench.add("checks", result=done.stdout.strip().splitlines()[-1])
        if done.returncode:
            print(done.stdout)
    half: Precision = "bf16" if on_gpu else "fp32"
    dtypes = {precision: Machine.choose(options.device, precision).dtype for precision in (half, "fp32")}
    rates = {precision: matmul_rate(dtype, bench.machine.device) * 1e9 for precision, dtype in dtypes.items()}
    bench.add("matmul", **{f"{precision} TFLOP/s": rate / 1e12 for precision, rate in rates.items()})
    for precision in dict.fromkeys([half, "fp32"]):
        measure_training(bench, precision, rates[precision])
        measure_evaluation(bench, precision, rates[precision])
    measure_evaluation(bench, half, rates[half], mixed=True)
    measure_training(bench, half, rates[half], "stem frozen")
    if options.compile:
        measure_training(bench, half, rates[half], "compiled")
    measure_epoch(bench, half)


def measure_training(bench: Bench, precision: Precision, peak: float, kind: str = "") -> None:
    """Images a second of training steps, and the share of the device's own matmul rate, `peak`."""
    loader, config = bench.loader(precision, freeze_stem=kind == "stem frozen")
    if kind == "compiled":
        loader.engine.backbone.run_block = compile_or_not(loader.engine.backbone.run_block)
    size = config.train.batch_size
    samples = some_samples(20 * size)
    trainer = Trainer(loader, samples, config)
    trainer.model.train()
    batches = itertools.chain.from_iterable(loader.batches(samples, size) for _ in itertools.count())

    def step() -> int:
        part, batch = next(batches)
        trainer.step(batch)
        return len(part)

    flops = count_flops(step) if kind != "compiled" else 0  # compiled products are not counted
    rate, memory = bench.rate(step)
    share = {"share of matmul": rate * flops / size / peak} if flops else {}
    bench.add(", ".join(filter(None, ["training", precision, kind])), **{"images/s": rate, "peak GB": memory, **share})


def measure_evaluation(bench: Bench, precision: Precision, peak: float, *, mixed: bool = False) -> None:
    """Images a second of scoring, and the share of the device's own matmul rate, `peak`; `mixed`: of 32 sizes."""
    loader, _ = bench.loader(precision)
    if mixed:
        loader = replace(loader, images=Noise([(512 + 16 * i, 1024 - 8 * i) for i in range(32)]))
    loader.engine.method.eval()
    size = EVAL_BATCH[bench.machine.device.type]
    samples = some_samples(20 * size)
    batches = itertools.chain.from_iterable(loader.batches(samples, size) for _ in itertools.count())

    @torch.inference_mode()
    def step() -> int:
        part, batch = next(batches)
        loader.engine.score(batch)
        return len(part)

    flops = count_flops(step)
    rate, memory = bench.rate(step)
    figures = {"images/s": rate, "peak GB": memory, "share of matmul": rate * flops / size / peak}
    bench.add(f"evaluation, {precision}{', 32 sizes' * mixed}", **figures)


def measure_epoch(bench: Bench, precision: Precision) -> None:
    """One epoch of AGIQA-3K-sized data as `train_epoch` does it, and the validation after it."""
    loader, config = bench.loader(precision)
    samples = some_samples(bench.options.images)
    trainer = Trainer(loader, samples, config)
    begin = time.perf_counter()
    trainer.train_epoch("epoch")
    middle = time.perf_counter()
    predict(loader, samples[: len(samples) // 7])
    seconds = {"train s": middle - begin, "val s": time.perf_counter() - middle}
    bench.add(f"one epoch of {len(samples)} images, {precision}", **seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=12, help="images in a training batch")
    parser.add_argument("--images", type=int, default=AGIQA_3K, help="of the epoch that is timed")
    parser.add_argument("--seconds", type=float, default=20, help="of each row")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="torch.compile too")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu.json"))
    exit_on_user_error(measure, parser.parse_args())
