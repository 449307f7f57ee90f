"""How fast MGS is against the obvious way to compute it: python -m benchmarks.speed --root PATH_OF_AGIQA-3K

Both ways run in this one process, on real images and prompts, with the savings switched on one after the other. Prints
a table and writes it as JSON. Read ratios rather than rates: machines differ, and other work on them changes the rates.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain import Clip, Plain, Way, lean_views, openai_module, short_texts
from mgs.backbones.clip import CLIPBackbone
from mgs.backbones.openai import openai_clip
from mgs.backbones.table import load_backbone
from mgs.config import Config, Precision
from mgs.datasets.read_table import read_table
from mgs.datasets.samples import Sample
from mgs.dimensions import Prompt
from mgs.engine.engine import Engine, make_engine
from mgs.engine.halves import open_halves
from mgs.engine.loader import Loader
from mgs.engine.plan import Part
from mgs.errors import UserError, exit_on_user_error
from mgs.files import write_json
from mgs.images.cache import ImageCache
from mgs.images.cuts import Cuts, Draw
from mgs.machine import (
    Machine,
    autocast,
    choose_device,
    compile_or_not,
    environment,
    exact_products,
    keep_freed_memory,
    set_seed,
)
from mgs.methods.method import Method, Scores
from mgs.methods.table import make_method
from mgs.training.trainer import Trainer

VIT_B_16 = (512, 224, 12, 768, 16, 77, 49408, 512, 8, 12)  # the arguments of openai-clip's CLIP
WAYS = {  # each with the savings of those above it
    "the plain way": Way(),
    "+ each view once": Way(views_once=True),
    "+ each text once": Way(True, True),
    "+ packed texts": Way(True, True, short_texts),
    "+ lean towers": Way(True, True, short_texts, lean_views),
}
MATMUL = 2048  # side of the matrices that the machine's own rate is measured with
HALF: Precision = "bf16"
RATE = 1e-20  # so small a learning rate that all rows see the same weights


class PlainEngine(Engine):
    """Scores by the plain way, which gets views and prompts rather than embeddings; always the same prompts."""

    def __init__(self, plain: Plain, method: Method, machine: Machine, prompts: Sequence[Prompt]) -> None:
        """`method` holds the weights that `plain` uses."""
        super().__init__(method, Cuts(), machine)
        self.plain, self.prompts = plain, prompts

    def plan(
        self, members: list[int], inputs: Sequence[Tensor], prompts: Sequence[Prompt], draws: Sequence[Draw] | None
    ) -> Part:
        """Nothing is planned ahead."""
        return Part(members, [inputs[i] for i in members], [], None, {})

    def score_part(self, part: Part, halfway: bool) -> Scores:
        with autocast(self.machine.device, self.machine.dtype), exact_products:
            return self.plain(self.cut(part.inputs), [self.prompts[i] for i in part.members])


class Bench:
    """The rows measured so far, and what all of them share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.config = Config(name="speed", device=options.device)
        self.config.train.batch_size, self.config.train.lr, self.config.train.final_lr = options.batch, RATE, RATE
        set_seed(self.config.seed)
        keep_freed_memory()  # as training and testing do
        self.device = choose_device(options.device)
        self.clip = load_clip(options.model).to(self.device)
        self.samples = read_samples(Path(options.root), options.batch)
        self.prompts = [Prompt(sample.prompt, sample.prompt_style) for sample in self.samples]
        self.images = ImageCache(Path(options.root))
        self.images.fill([sample.image for sample in self.samples], "ram", self.device)
        self.rows: list[dict] = []
        self.truth: dict[str, Tensor] = {}

    def engine(self, precision: Precision, config: Config | None = None, *, compiled: bool = False) -> Engine:
        """MGS on the machine in that precision; all engines share the weights."""
        config = config or self.config
        backbone = CLIPBackbone(self.clip, self.options.model)
        if compiled:
            backbone.run_block = compile_or_not(backbone.run_block)
        return make_engine(make_method(backbone, config), config, Machine.choose(self.options.device, precision))

    def plain(self, way: Way, precision: Precision) -> Engine:
        """One of the plain ways on the machine in that precision, with the same weights."""
        method = self.engine(precision).method
        plain = Plain(self.clip, method.get_parameter("alpha"), way)
        return PlainEngine(plain, method, Machine.choose(self.options.device, precision), self.prompts)

    def evaluate(self, name: str, engine: Engine, precision: Precision) -> None:
        """Measure scoring the batch, from decoded pictures."""
        loader = Loader(engine, self.images)
        pictures = [loader.read(sample) for sample in self.samples]
        engine.method.eval()

        def score() -> Scores:
            with torch.inference_mode():
                return engine.score(loader.stage(self.samples, pictures))

        self.add(name, "eval", precision, run=score, score=score)

    def train(self, name: str, loader: Loader, precision: str) -> None:
        """Measure training steps on the batch, from decoded pictures or from what is kept of them."""
        trainer, model = Trainer(loader, self.samples, self.config), loader.engine.method
        inputs = [loader.read(sample) for sample in self.samples]
        model.train()

        def score() -> Scores:
            with torch.no_grad():
                return loader.engine.score(loader.stage(self.samples, inputs))

        self.add(name, "train", precision, run=lambda: trainer.step(loader.stage(self.samples, inputs)), score=score)
        model.zero_grad()

    def add(self, name: str, mode: str, precision: str, *, run: Callable, score: Callable) -> None:
        """Time `run`, compare `score` with the plain way's, and print the row."""
        scores = {dimension: values.double().cpu() for dimension, values in score().items()}
        self.truth = self.truth or scores
        flops = count_flops(run)  # the first pass also allocates, compiles and fills caches
        forget_peak()
        seconds = []
        for _ in range(self.options.repeats):
            start = time.perf_counter()
            run()
            synchronise()
            seconds.append(time.perf_counter() - start)
        rate = self.options.batch / statistics.median(seconds)
        plain = next((row["images_per_second"] for row in self.rows if row["mode"] == mode), rate)
        row = {
            "name": name,
            "mode": mode,
            "precision": precision,
            "images_per_second": rate,
            "ratio_to_plain": rate / plain,
            "peak_mb": peak_mb(),
            "max_score_difference": max((scores[d] - self.truth[d]).abs().max().item() for d in scores),
            "gflop_per_image": flops / self.options.batch / 1e9,
        }
        self.rows.append(row)
        print(
            f"{mode:6}{name:26}{precision:6}{rate:9.3f} images/s{row['ratio_to_plain']:8.2f} x"
            f"{row['peak_mb'] or 0:9.0f} MB   off by {row['max_score_difference']:.1e}"
            f"{row['gflop_per_image']:9.1f} GFLOP an image",
            flush=True,
        )


def load_clip(name: str) -> Clip:
    """The CLIP of that name, or one of ViT-B/16's shape with random weights."""
    if not name:
        return openai_clip().model.CLIP(*VIT_B_16).eval()
    return openai_module(load_backbone(name, option="--model").state_dict())


def read_samples(root: Path, count: int) -> list[Sample]:
    """As many images of AGIQA-3K, spread over its table."""
    config = Config().data
    config.dataset, config.root = "AGIQA-3K", str(root)
    samples = read_table(root / "data.csv", config)
    return samples[:: max(len(samples) // count, 1)][:count]


def count_flops(run: Callable) -> int:
    """Floating-point operations of matrix products, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """The machine's sustained rate in GFLOP/s, the median of many products of square matrices."""
    side = MATMUL * (4 if device.type == "cuda" else 1)
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(43):
        start = time.perf_counter()
        one @ other
        synchronise()
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / statistics.median(seconds[3:]) / 1e9


def synchronise() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def forget_peak() -> None:
    """Begin a new measurement of the peak of memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM


def peak_mb() -> float | None:
    """The peak since `forget_peak`: of GPU memory, or of the process's RAM on Linux."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    if sys.platform != "linux":
        return None
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def measure(options: argparse.Namespace) -> None:
    """Measure every row, print it, and write them all."""
    if not Path(options.root, "data.csv").exists():
        raise UserError(f"--root={options.root}: no data.csv there; give the folder of AGIQA-3K, see data/README.md")
    bench = Bench(options)
    device, half = bench.device, HALF
    # what each is computed in: a CPU that lacks bf16 takes float32, and would need minutes to emulate one product
    dtypes = {name: Machine.choose(options.device, name).dtype for name in ("fp32", half)}
    matmul = {name: [matmul_rate(dtype, device)] for name, dtype in dtypes.items()}
    share = None
    if "eval" in options.modes:
        for name, way in WAYS.items():
            bench.evaluate(name, bench.plain(way, "fp32"), "fp32")
        bench.evaluate("mgs: + texts kept", bench.engine("fp32"), "fp32")
        bench.evaluate("the plain way", bench.plain(Way(), half), half)
        bench.evaluate("mgs", bench.engine(half), half)
        matmul[half].append(matmul_rate(dtypes[half], device))
        if options.compile:
            bench.evaluate("mgs, compiled", bench.engine(half, compiled=True), half)
    if "train" in options.modes:
        for name, way in WAYS.items():
            bench.train(name, Loader(bench.plain(way, "fp32"), bench.images), "fp32")
        bench.train("mgs", Loader(bench.engine("fp32"), bench.images), "fp32")
        bench.train("mgs", Loader(bench.engine(half), bench.images), half)
        matmul[half].append(matmul_rate(dtypes[half], device))
        if options.compile:
            bench.train("mgs, compiled", Loader(bench.engine(half, compiled=True), bench.images), half)
        share = train_frozen(bench)
    result = {
        "command": "python -m benchmarks.speed " + " ".join(sys.argv[1:]),
        "date": time.strftime("%Y-%m-%d"),
        "environment": environment(device),
        "model": options.model or "ViT-B/16, random weights",
        "batch": options.batch,
        "matmul_gflops": matmul,
        "second_epoch_reading_share": share,
        "rows": bench.rows,
    }
    write_json(Path(options.out), result)
    print(f"matrix products alone, GFLOP/s: {json.dumps(matmul)}")
    for row in bench.rows:
        if row["name"].startswith("mgs"):
            achieved = row["gflop_per_image"] * row["images_per_second"]
            rate = statistics.median(matmul[row["precision"]])
            print(
                f"{row['mode']} {row['name']} {row['precision']}: {achieved:.0f} GFLOP/s, {achieved / rate:.0%} of that"
            )
    if share is not None:
        print(f"from the second epoch on, reading what is kept takes {share:.2%} of the time")
    print(f"written: {options.out}")


def train_frozen(bench: Bench) -> float:
    """The rows with a frozen stem, which stays frozen; returns the share of the time that reading from disk takes."""
    config = replace(bench.config, model=replace(bench.config.model, freeze_stem=True))
    engine = bench.engine(HALF, config)
    bench.train("mgs, stem frozen too", Loader(engine, bench.images), HALF)
    with tempfile.TemporaryDirectory() as folder:
        config.data.cache_folder = folder
        halves = open_halves(engine, bench.samples, bench.images, config)
        assert halves is not None
        loader = Loader(engine, bench.images, halves)
        bench.train("mgs, frozen half kept", loader, HALF)
        start = time.perf_counter()
        for sample in bench.samples:
            loader.read(sample).clone()  # memory-mapped: only the copy reads it from disk
        reading = (time.perf_counter() - start) / bench.options.batch
    return reading * float(bench.rows[-1]["images_per_second"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data/AGIQA-3K", help="folder of AGIQA-3K, with its data.csv")
    parser.add_argument("--model", default="", help="as model.clip; default: ViT-B/16's shape with random weights")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=4, help="images in a batch")
    parser.add_argument("--repeats", type=int, default=3, help="timed passes of each row; their median counts")
    parser.add_argument("--modes", nargs="+", choices=["eval", "train"], default=["eval", "train"])
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    parser.add_argument("--out", default="runs/speed.json")
    exit_on_user_error(measure, parser.parse_args())
