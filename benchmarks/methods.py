"""How fast each method is against its plain form: python -m benchmarks.methods --root PATH_OF_AGIQA-3K

The plain form is what its authors' code does: all views through openai-clip's tower, every text of every image through
its text tower, padded to 77 tokens. Both run in this one process, on the same real images, prompts and weights.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.plain import Clip, Plain, plain_texts, plain_views
from benchmarks.speed import RATE, Bench
from mgs.backbones.clip import CLIPBackbone
from mgs.backbones.openai import openai_clip
from mgs.config_files import load_config
from mgs.dimensions import Prompt
from mgs.engine.engine import Engine, make_engine
from mgs.engine.loader import Loader
from mgs.engine.plan import Part
from mgs.errors import exit_on_user_error
from mgs.files import write_json
from mgs.images.cache import ImageCache
from mgs.images.cuts import Draw
from mgs.machine import Machine, autocast, environment, exact_products
from mgs.methods.clip_iqa_plus import PAIR
from mgs.methods.clip_score import PREFIX
from mgs.methods.ipce import WORDS
from mgs.methods.method import Method, Scores
from mgs.methods.table import METHODS, make_method
from mgs.methods.templates import QUALITY_WORDS
from mgs.training.trainer import Trainer

VIT_B_32 = (512, 224, 12, 768, 32, 77, 49408, 512, 8, 12)  # the arguments of openai-clip's CLIP


def plain_mgs(clip: Clip, method: Method, views: Tensor, prompts: Sequence[Prompt]) -> Scores:
    """MGS, from (B, 10, 3, S, S) views."""
    return Plain(clip, method.get_parameter("alpha"))(views, prompts)


def plain_ipce(clip: Clip, method: Method, views: Tensor, prompts: Sequence[Prompt]) -> Scores:
    """IPCE, from (B, V, 3, S, S) views, the whole image first: five texts an image."""
    texts = plain_texts(clip, [f"a photo that {word} matches '{p.text}'" for p in prompts for word in WORDS])
    logits = clip.logit_scale.exp() * embed(clip, views) @ texts.unflatten(0, (-1, len(WORDS))).mT  # (B, V, 5)
    shares = (logits[:, 1:].mean(1).softmax(-1) + logits[:, 0].softmax(-1)) / 2
    return {method.gives[0]: shares @ torch.arange(5.0, device=shares.device) * 1.25}


def plain_liqe(clip: Clip, method: Method, views: Tensor, prompts: Sequence[Prompt]) -> Scores:
    """LIQE, from (B, V, 3, S, S) windows: five texts a step."""
    texts = plain_texts(clip, [f"a photo with {word} quality" for word in QUALITY_WORDS])
    logits = (clip.logit_scale.exp() * embed(clip, views) @ texts.T).mean(1)
    return {method.gives[0]: logits.softmax(-1) @ torch.arange(1.0, 6.0, device=logits.device)}


def plain_clip_iqa(clip: Clip, method: Method, views: Tensor, prompts: Sequence[Prompt]) -> Scores:
    """CLIP-IQA, from (B, 1, 3, S, S) views: two pairs of texts a step."""
    logits = clip.logit_scale.exp() * embed(clip, views)[:, 0] @ plain_texts(clip, list(method.sentences)).T
    quality, authenticity = logits.unflatten(-1, (-1, 2)).softmax(-1)[..., 0].unbind(-1)
    return {"quality": quality, "authenticity": authenticity, "overall": quality}


def plain_clip_iqa_plus(clip: Clip, method: Method, views: Tensor, prompts: Sequence[Prompt]) -> Scores:
    """CLIP-IQA+, from (B, 1, 3, S, S) views: two texts of 77 tokens a step, with the method's context."""
    context = method.get_parameter("context")
    numbers = torch.zeros(len(PAIR), 77, dtype=torch.int64, device=context.device)
    numbers[:, 0], numbers[:, 20] = 49406, 49407
    numbers[:, 9:12] = torch.tensor([[886, 1125, 852], [2103, 1125, 852]])
    words = clip.token_embedding(numbers)
    words = torch.cat(
        [words[:, :1], context[:8].expand(2, -1, -1), words[:, 9:12], context[8:].expand(2, -1, -1), words[:, 20:]], 1
    )
    x = clip.transformer((words + clip.positional_embedding).permute(1, 0, 2)).permute(1, 0, 2)
    texts = torch.nn.functional.normalize(clip.ln_final(x)[:, 20] @ clip.text_projection, dim=-1)
    logits = clip.logit_scale.exp() * embed(clip, views)[:, 0] @ texts.T
    return {method.gives[0]: logits.softmax(-1)[:, 0]}


def plain_clip_score(clip: Clip, method: Method, views: Tensor, prompts: Sequence[Prompt]) -> Scores:
    """CLIPScore, from (B, 1, 3, S, S) views: a text an image."""
    cosine = (embed(clip, views)[:, 0] * plain_texts(clip, [PREFIX + p.text for p in prompts])).sum(-1)
    return {"correspondence": 2.5 * cosine.clamp(min=0)}


def embed(clip: Clip, views: Tensor) -> Tensor:
    """(B, V, 3, S, S) to (B, V, D)."""
    return plain_views(clip, views.flatten(0, 1)).unflatten(0, views.shape[:2])


PLAIN: dict[str, Callable[[Clip, Method, Tensor, Sequence[Prompt]], Scores]] = {
    "mgs": plain_mgs,
    "ipce": plain_ipce,
    "liqe": plain_liqe,
    "clip-iqa": plain_clip_iqa,
    "clip-iqa-plus": plain_clip_iqa_plus,
    "clip-score": plain_clip_score,
}


class PlainEngine(Engine):
    """Scores by a method's plain form, on the views that its engine cuts; always the same prompts."""

    def use(self, clip: Clip, form: Callable, prompts: Sequence[Prompt]) -> PlainEngine:
        """Score by `form` with the weights of `clip`."""
        self.clip, self.form, self.prompts = clip, form, prompts
        return self

    def plan(
        self, members: list[int], inputs: Sequence[Tensor], prompts: Sequence[Prompt], draws: Sequence[Draw] | None
    ) -> Part:
        """Nothing is planned ahead but what is drawn."""
        drawn = None if draws is None else [draws[i] for i in members]
        return Part(members, [inputs[i] for i in members], [], None, {}, drawn)

    def score_part(self, part: Part, halfway: bool) -> Scores:
        with autocast(self.machine.device, self.machine.dtype), exact_products:
            views = self.cut(part.inputs, part.draws)
            return self.to_mos(self.form(self.clip, self.method, views, [self.prompts[i] for i in part.members]))


def measure(options: argparse.Namespace) -> None:
    """Measure every method, plain and ours, print the rows and write them."""
    bench = Bench(options)
    bench.clip = openai_clip().model.CLIP(*VIT_B_32).eval().to(bench.device)
    draws = [Draw(0, 1, position) for position in range(options.batch)]
    for name in options.methods:
        config = load_config(None, ["name=speed", f"method={name}", f"train.lr={RATE}", "train.final_lr=0"])
        config.train.batch_size = options.batch
        method = make_method(CLIPBackbone(bench.clip, "ViT-B/32"), config)
        ours = make_engine(method, config, Machine.choose(options.device, options.precision))
        bare = PlainEngine(method, ours.cuts, ours.machine, scale=ours.scale, training_cuts=ours.training_cuts)
        plain = bare.use(bench.clip, PLAIN[name], bench.prompts)
        for mode in ("train", "eval"):
            if mode == "train" and METHODS[name].trains == "nothing":
                continue
            bench.truth, bench.config = {}, config
            earlier = len(bench.rows)
            for kind, engine in (("plain", plain), ("ours", ours)):
                time_one(bench, f"{name}, {kind}", engine, mode, options.precision, draws)
                first = bench.rows[earlier]
                bench.rows[-1]["ratio_to_plain"] = bench.rows[-1]["images_per_second"] / first["images_per_second"]
            print(
                f"  {name}, {mode}: {bench.rows[-1]['ratio_to_plain']:.2f} times as fast as its plain form", flush=True
            )
    result = {
        "command": "python -m benchmarks.methods " + " ".join(sys.argv[1:]),
        "date": time.strftime("%Y-%m-%d"),
        "environment": environment(bench.device),
        "rows": bench.rows,
    }
    write_json(Path(options.out), result)
    print(f"written: {options.out}")


def time_one(bench: Bench, name: str, engine: Engine, mode: str, precision: str, draws: Sequence[Draw]) -> None:
    """Add a row: steps of training on the batch, or scoring it, from decoded pictures."""
    images = ImageCache(Path(bench.options.root), engine.cuts)
    images.fill([sample.image for sample in bench.samples], "ram", bench.device)
    loader = Loader(engine, images)
    pictures = [loader.read(sample) for sample in bench.samples]
    engine.method.train(mode == "train")

    def score() -> Scores:
        with torch.no_grad():
            return engine.score(loader.stage(bench.samples, pictures, draws if mode == "train" else None))

    if mode == "eval":
        bench.add(name, mode, precision, run=score, score=score)
        return
    trainer = Trainer(loader, bench.samples, bench.config)
    bench.add(
        name, mode, precision, run=lambda: trainer.step(loader.stage(bench.samples, pictures, draws)), score=score
    )
    engine.method.zero_grad()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data/AGIQA-3K", help="folder of AGIQA-3K, with its data.csv")
    parser.add_argument("--model", default="", help=argparse.SUPPRESS)
    parser.add_argument("--methods", nargs="+", choices=list(PLAIN), default=list(PLAIN))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch")
    parser.add_argument("--repeats", type=int, default=3, help="timed passes of each row; their median counts")
    parser.add_argument("--out", default="runs/speed_methods.json")
    exit_on_user_error(measure, parser.parse_args())
