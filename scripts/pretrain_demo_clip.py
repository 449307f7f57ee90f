"""Pre-train the demo's small CLIP on drawings and their captions, from nothing, on two CPU cores in under an hour.

    python -m scripts.pretrain_demo_clip --out mgs/assets/demo_clip.safetensors

Architecture and key names are OpenAI's; the file holds fp16 weights. Training is contrastive, on pictures whose
contents belong to the pre-training part of the drawn world: no content of the demo's train, val or test part is ever
drawn or named here. Captions say what is really in the view, as alt texts do, and some say how it looks.

The file in mgs/assets comes from a run that continued an earlier one with `--start`; its metadata describes both.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import clip
import numpy as np
import torch
import torch.nn.functional as F
from clip.model import CLIP
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from mgs.backbones.architecture import MEAN, STD
from mgs.demo import generators as generators
from mgs.demo.prompts import STYLES, sample_content, write_prompt
from mgs.files import whole_file
from mgs.images.cuts import Cuts, cut_views, window_corners
from mgs.machine import set_seed
from scripts.demo_captions import FACTS, LEVEL_SENTENCES, PART, View, caption, contradict, describe

FACT_NUMBER = {fact: number for number, fact in enumerate(FACTS)}
ARCHITECTURE = {
    "embed_dim": 64, "image_resolution": 96, "vision_layers": 3, "vision_width": 128, "vision_patch_size": 16,
    "context_length": 77, "vocab_size": 49408, "transformer_width": 64, "transformer_heads": 1, "transformer_layers": 2,
}  # fmt: skip
SIZE = ARCHITECTURE["image_resolution"]
VIEWS_KEPT = 3  # the whole picture and two windows
MAX_LOGIT_SCALE = math.log(100)
CUTS = Cuts()


def draw_views(seeds: Iterable[tuple[int, int]]) -> tuple[NDArray[np.uint8], list[tuple[View, ...]]]:
    """Draw one picture per seed; (N, 3, 96, 96, 3) uint8 views, and what is in them."""
    torch.set_num_threads(1)  # one of several processes
    pixels, notes = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        content = sample_content(rng, PART)
        damage = generators.sample_damage(generators.GENERATORS[str(rng.choice(list(generators.GENERATORS)))], rng)
        drawn, pencil = generators.as_asked(content), (*seed, 1)  # another stream, else places would depend on contents
        spots = generators.places(drawn, np.random.default_rng(pencil))
        picture = generators.draw(drawn, damage, np.random.default_rng(pencil))
        chw = torch.from_numpy(picture).permute(2, 0, 1)
        kept = [0, *sorted(1 + rng.permutation(9)[: VIEWS_KEPT - 1])]
        views = cut(chw)[kept].permute(0, 2, 3, 1) * torch.tensor(STD) + torch.tensor(MEAN)
        pixels.append((views * 255).round().clip(0, 255).byte().numpy())
        corners = window_corners(chw.shape, CUTS)
        notes.append(tuple(describe(content, damage, spots, None if v == 0 else corners[v - 1]) for v in kept))
    return np.stack(pixels), notes


def cut(picture: Tensor) -> Tensor:
    """A picture, uint8 (3, H, W), as the model's views, (10, 3, 96, 96)."""
    return cut_views(picture, CUTS, SIZE, torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None])


def as_table(sets: Sequence[frozenset[str]]) -> Tensor:
    """Sets of facts as a 0/1 table, (len(sets), len(FACTS))."""
    table = torch.zeros(len(sets), len(FACTS))
    for row, facts in enumerate(sets):
        table[row, [FACT_NUMBER[fact] for fact in facts]] = 1
    return table


@lru_cache(maxsize=200_000)
def tokens(text: str) -> tuple[int, ...]:
    """Token numbers up to the end token."""
    row = clip.tokenize(text)[0]
    return tuple(row[: int(row.argmax()) + 1].tolist())


def encode_text(model: CLIP, texts: Sequence[str]) -> Tensor:
    """Unit-norm text embeddings; computed up to the longest text only, which the causal mask makes exact."""
    rows = [tokens(text) for text in texts]
    length = max(map(len, rows))
    padded = torch.tensor([row + (0,) * (length - len(row)) for row in rows])
    for block in model.transformer.resblocks:
        block.attn_mask = model.build_attention_mask()[:length, :length]
    hidden = model.token_embedding(padded) + model.positional_embedding[:length]
    hidden = model.transformer(hidden.transpose(0, 1)).transpose(0, 1)
    ends = model.ln_final(hidden[torch.arange(len(rows)), padded.argmax(-1)])
    return F.normalize(ends @ model.text_projection, dim=-1)


def encode_image(model: CLIP, pixels: Tensor) -> Tensor:
    """Unit-norm embeddings of (B, 96, 96, 3) uint8 views."""
    views = (pixels.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    return F.normalize(model.encode_image(views.permute(0, 3, 1, 2)), dim=-1)


def contrastive_loss(logits: Tensor, matches: Tensor) -> Tensor:
    """Symmetric InfoNCE for (images, texts) logits, where one caption can be true of many images and an image of many.

    Each softmax is scored by its mean log-probability over all true partners, so a repeated caption is no false
    negative. A caption that is true of no image only serves as a negative.
    """

    def one_way(log_p: Tensor, true: Tensor) -> Tensor:
        count = true.sum(1)
        return -((log_p * true).sum(1)[count > 0] / count[count > 0]).mean()

    return (one_way(logits.log_softmax(1), matches) + one_way(logits.T.log_softmax(1), matches.T)) / 2


def sum_of_losses(
    model: CLIP, images: Tensor, facts: Tensor, groups: Sequence[Sequence[tuple[str, frozenset[str]]]]
) -> Tensor:
    """Contrastive loss of (B, D) image embeddings with each group of captions, which compete within their group only.

    Captions on the content are drawn again for each batch; the sentences on the levels are few, so each batch has all.
    """
    texts = encode_text(model, [text for group in groups for text, _ in group])
    total, start = torch.zeros(()), 0
    for group in groups:
        claims = as_table([claimed for _, claimed in group])
        # A caption fits a view if every claim of it is among the view's facts.
        matches = (facts @ claims.T == claims.sum(1)).float()
        cosines = images @ texts[start : start + len(group)].T  # (B, captions)
        total = total + contrastive_loss(model.logit_scale.exp() * cosines, matches)
        start += len(group)
    return total


def train(model: CLIP, pixels: Tensor, notes: Sequence[View], args: argparse.Namespace) -> None:
    """Train in place; writes `args.out` every `args.save_every` steps and at the end."""
    matrices = [p for name, p in model.named_parameters() if p.ndim >= 2 and "embedding" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim < 2 or "embedding" in name]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98))
    warmup = max(1, args.steps // 20)

    def pace(step: int) -> float:
        return min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / args.steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, pace)
    rng = np.random.default_rng((args.seed, 1))
    facts = as_table([note.facts for note in notes])
    bar = tqdm(range(args.steps), desc="pre-training", unit="step")
    for step in bar:
        batch = rng.integers(len(notes), size=args.batch_size)
        true = [caption(notes[i], rng) for i in batch]
        false = [contradict(notes[i], rng) for i in batch[: args.batch_size // 2]]
        images = encode_image(model, pixels[batch])
        loss = sum_of_losses(model, images, facts[batch], [[*true, *false], *LEVEL_SENTENCES])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        bar.set_postfix(loss=f"{loss.item():.3f}", scale=f"{model.logit_scale.exp().item():.1f}", refresh=False)
        if (step + 1) % args.save_every == 0 or step + 1 == args.steps:
            save(model, args, step + 1)
            tqdm.write(f"step {step + 1}: {evaluate(model, args.seed + 1)}")


def save(model: CLIP, args: argparse.Namespace, steps: int) -> None:
    """Write the weights as fp16 under OpenAI's names, wholly or not at all."""
    state = {name: weight.detach().half().contiguous() for name, weight in model.state_dict().items()}
    about = {
        "made_by": "scripts/pretrain_demo_clip.py",
        "seed": str(args.seed),
        "steps": f"{steps} of {args.steps}",
        "batch_size": str(args.batch_size),
        "lr": str(args.lr),
        "data": f"{args.pictures} drawn pictures of the demo's pre-training part, {VIEWS_KEPT} views each, "
        "with captions of what is in them; no photographs, and no content of the demo's train, val and test parts",
    }
    if args.start:
        with safe_open(args.start, framework="pt") as earlier:
            about["started_from"] = f"a run of {earlier.metadata()}"
    with whole_file(args.out) as temporary:
        save_file(state, temporary, metadata=about)


@lru_cache(maxsize=1)
def draw_held_out(seed: int, count: int) -> tuple[Tensor, list[str], NDArray[np.float64]]:
    """Whole-picture views, prompts and true (quality, authenticity, correspondence) of pictures never trained on."""
    pictures, prompts, truths = [], [], []
    for number in range(count):
        rng = np.random.default_rng((seed, number, 2))
        generator = generators.GENERATORS[str(rng.choice(list(generators.GENERATORS)))]
        content = sample_content(rng, PART)
        drawn = generators.make_mistakes(content, float(rng.beta(*generator.mistakes_law)), rng)
        damage = generators.sample_damage(generator, rng)
        pictures.append(cut(torch.from_numpy(generators.draw(drawn, damage, rng)).permute(2, 0, 1))[0])
        prompts.append(write_prompt(content, STYLES[number % len(STYLES)]))
        truths.append((damage.quality, damage.authenticity, generators.true_correspondence(content, drawn)))
    return torch.stack(pictures), prompts, np.array(truths)


@torch.no_grad()
def evaluate(model: CLIP, seed: int, count: int = 500) -> dict[str, float]:
    """Before any fine-tuning: SRCC of the two marginals of the joint templates and of the whole-prompt cosine with the
    truth, and how often a faultless picture finds its own prompt among theirs."""
    pictures, prompts, truths = draw_held_out(seed, count)
    images = F.normalize(model.encode_image(pictures), dim=-1)
    cosines = images @ encode_text(model, prompts).T
    joint = [text for text, _ in LEVEL_SENTENCES[0]]
    levels = (images @ encode_text(model, joint).T).softmax(-1).unflatten(1, (5, 5))  # (B, quality, authenticity)
    scale = torch.arange(5.0)
    quality, authenticity, correspondence = truths.T
    faultless = np.flatnonzero(correspondence == 1)
    own = cosines[faultless][:, faultless].argmax(1) == torch.arange(len(faultless))
    return {
        "quality": round(float(spearmanr(levels.sum(2) @ scale, quality).statistic), 3),
        "authenticity": round(float(spearmanr(levels.sum(1) @ scale, authenticity).statistic), 3),
        "correspondence": round(float(spearmanr(cosines.diagonal(), correspondence).statistic), 3),
        f"retrieval@1 of {len(faultless)}": round(float(own.float().mean()), 3),
    }


def draw_all(pictures: int, seed: int, workers: int) -> tuple[Tensor, list[View]]:
    """Draw over several processes; all views as (N, 96, 96, 3) uint8, and what is in each."""
    chunks = [[(seed, number) for number in range(pictures)[start : start + 50]] for start in range(0, pictures, 50)]
    pixels = np.empty((pictures, VIEWS_KEPT, SIZE, SIZE, 3), dtype=np.uint8)
    notes: list[View] = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for part, described in tqdm(
            pool.map(draw_views, chunks), total=len(chunks), desc="drawing", unit="50 pictures"
        ):
            start = len(notes) // VIEWS_KEPT
            pixels[start : start + len(part)] = part
            notes.extend(view for views in described for view in views)
    return torch.from_numpy(pixels).flatten(0, 1), notes


def main(argv: Sequence[str] | None = None) -> None:
    """Draw, train, report, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("mgs/assets/demo_clip.safetensors"))
    parser.add_argument("--start", type=Path, help="weights of an earlier run to continue from; default: from nothing")
    parser.add_argument("--pictures", type=int, default=16_000)
    parser.add_argument("--steps", type=int, default=3_600)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--workers", type=int, default=2, help="drawing processes, and threads while training")
    parser.add_argument("--save-every", type=int, default=500, help="steps between snapshots of --out")
    args = parser.parse_args(argv)
    started = time.monotonic()
    set_seed(args.seed)
    pixels, notes = draw_all(args.pictures, args.seed, args.workers)
    torch.set_num_threads(args.workers)
    model = CLIP(**ARCHITECTURE).float()
    if args.start:
        model.load_state_dict(load_file(args.start))
    train(model, pixels, notes, args)
    print(f"{args.out}: {args.out.stat().st_size:,} bytes, {(time.monotonic() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
