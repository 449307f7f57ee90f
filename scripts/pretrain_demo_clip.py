"""Pre-train the demo's small CLIP on drawings and their captions, from nothing, on a CPU.

    python -m scripts.pretrain_demo_clip --out clip.safetensors

Architecture and key names are OpenAI's; the file holds fp16 weights. Training is contrastive, on pictures that are
drawn for contents of the pre-training part of the drawn world. No caption names just what a prompt of the demo's train,
val or test part asks for, though a view may show it: a prompt of two groups contains those of one. Captions say what is
really in the view, as alt texts do, and some say how it looks; none is a sentence of MGS. A view chooses among the
captions of all views in a batch, among captions of its own that differ in one element, among those of how two groups
stand, and among the names of things.

The same processor and versions give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path

import clip
import numpy as np
import torch
import torch.nn.functional as F
from clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from mgs.backbones.architecture import MEAN, STD
from mgs.demo.prompts import with_article
from mgs.demo.things.table import THINGS
from mgs.files import file_sha256, whole_file
from mgs.machine import set_seed
from scripts.demo_captions import View, arrange, caption, choose
from scripts.demo_lessons import NAMED, Lessons, contrastive_loss, match, one_way
from scripts.demo_probes import probe
from scripts.demo_views import KEPT, PATCH, SIZE, Views, draw_all
from scripts.muon import Muon

ARCHITECTURE = {
    "embed_dim": 96, "image_resolution": SIZE, "vision_layers": 3, "vision_width": 128, "vision_patch_size": PATCH,
    "context_length": 77, "vocab_size": 49408, "transformer_width": 64, "transformer_heads": 1, "transformer_layers": 3,
}  # fmt: skip
TEXT_FROM = 0.6  # share of the steps in which the image tower learns alone
WHOLES = 0.5  # share of whole pictures, in which things have places, among the views that captions are learned from
RISE, FALL = 0.04, 0.5  # shares of a tower's steps
MAX_LOGIT_SCALE = math.log(100)
ALIKE = 192  # texts of about one length, encoded together
NAMES = [with_article(thing) for thing in THINGS]


@lru_cache(maxsize=400_000)
def tokens(text: str) -> tuple[int, ...]:
    """Token numbers up to the end token."""
    row = clip.tokenize(text)[0]
    return tuple(row[: int(row.argmax()) + 1].tolist())


def encode_text(model: CLIP, texts: Sequence[str]) -> Tensor:
    """Unit-norm text embeddings; computed up to the longest text only, which the causal mask makes exact."""
    rows = [tokens(text) for text in texts]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    parts = [
        encode_rows(model, [rows[i] for i in order[start : start + ALIKE]]) for start in range(0, len(rows), ALIKE)
    ]
    return torch.cat(parts)[np.argsort(order)]


def encode_rows(model: CLIP, rows: Sequence[tuple[int, ...]]) -> Tensor:
    """What `encode_text` gives of a few texts, padded to the longest of them."""
    length = max(map(len, rows))
    padded = torch.tensor([row + (0,) * (length - len(row)) for row in rows])
    for block in model.transformer.resblocks:
        block.attn_mask = model.build_attention_mask()[:length, :length]
    hidden = model.token_embedding(padded) + model.positional_embedding[:length]
    hidden = model.transformer(hidden.transpose(0, 1)).transpose(0, 1)
    ends = model.ln_final(hidden[torch.arange(len(rows)), padded.argmax(-1)])
    return F.normalize(ends @ model.text_projection, dim=-1)


def encode_image(model: CLIP, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Unit-norm embeddings of (B, 96, 96, 3) uint8 views, (B, D), and of their patches' values, (B, 64, D).

    As `LastBlock.embed_patches` reads them. Only the class token leaves the last block, so it alone is computed there.
    """
    tower = model.visual
    views = (pixels.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    patches = tower.conv1(views.permute(0, 3, 1, 2)).flatten(2).mT
    x = torch.cat([tower.class_embedding.expand(len(patches), 1, -1), patches], 1) + tower.positional_embedding
    *blocks, last = tower.transformer.resblocks
    x = nn.Sequential(*blocks)(tower.ln_pre(x).transpose(0, 1)).transpose(0, 1)
    attention = last.attn
    query, key, value = F.linear(last.ln_1(x), attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
    heads = (it.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for it in (query[:, :1], key, value))
    taken = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    shown = x[:, :1] + attention.out_proj(taken)
    shown = shown + last.mlp(last.ln_2(shown))
    tokens = tower.ln_post(torch.cat([shown, attention.out_proj(value[:, 1:])], 1)) @ tower.proj
    tokens = F.normalize(tokens, dim=-1)
    return tokens[:, 0], tokens[:, 1:]


def sum_of_losses(model: CLIP, images: Tensor, views: Sequence[View], rng: np.random.Generator) -> Tensor:
    """The losses of a view's choices: among the batch's captions, its own few, two groups' places, names of things."""
    captions = [caption(view, rng) for view in views]
    choices = [choose(view, rng) for view in views]
    places = [arrange(view, rng) for view in views]
    groups = [[text for text, _ in captions], NAMES, list(chain(*choices)), list(chain(*places))]
    told, names, own, placed = encode_text(model, list(chain(*groups))).split(list(map(len, groups)))
    scale = model.logit_scale.exp()
    facts = [view.facts for view in views]
    among_all = contrastive_loss(scale * images @ told.T, match(facts, [claims for _, claims in captions]))
    among_names = one_way(scale * images @ names.T, match(facts, NAMED))
    among_own = first_of_few(scale * images, own, choices)
    among_places = first_of_few(scale * images, placed, places)
    return among_all + among_names + among_own + among_places


def first_of_few(images: Tensor, texts: Tensor, choices: Sequence[Sequence[str]]) -> Tensor:
    """The mean loss of choosing the first, true one of each view's few texts; `texts` are all of them in a row.

    Views with no choice are left out; 0 if there is none with one.
    """
    counts = torch.tensor([len(few) for few in choices])
    owner = torch.arange(len(choices)).repeat_interleave(counts)
    place = torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner]
    logits = torch.full((len(choices), max(1, *map(len, choices))), -torch.inf)
    logits = logits.index_put((owner, place), (images[owner] * texts).sum(-1))
    some = counts > 1
    return -logits[some].log_softmax(1)[:, 0].sum() / some.sum().clamp(min=1)


def train(model: CLIP, views: Views, args: argparse.Namespace) -> None:
    """Train in place."""
    lessons = Lessons(ARCHITECTURE["embed_dim"])
    text_from = int(args.steps * TEXT_FROM)
    of_images = make_optimizers([*model.visual.named_parameters(), *lessons.named_parameters()], args.steps, args)
    of_texts = make_optimizers(
        [it for it in model.named_parameters() if not it[0].startswith("visual")], args.steps - text_from, args
    )
    rng = np.random.default_rng((args.seed, 1))
    bar = tqdm(range(args.steps), desc="pre-training", unit="step", mininterval=5)
    for step in bar:
        rows = choose_rows(len(views.notes) // KEPT, WHOLES if step >= text_from else 1 / KEPT, args.batch_size, rng)
        notes = [views.notes[i] for i in rows]
        images, patches = encode_image(model, views.pixels[rows])
        loss = lessons(images, patches, views, rows, [note.facts for note in notes])
        if step >= text_from:
            loss = loss + sum_of_losses(model, images, notes, rng)
        learning = [*of_images, *of_texts] if step >= text_from else of_images
        for optimizer, _ in learning:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in learning:
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        bar.set_postfix(loss=f"{loss.item():.3f}", scale=f"{model.logit_scale.exp().item():.1f}", refresh=False)
        if args.probe_every and (step + 1) % args.probe_every == 0 and step + 1 < args.steps:
            tqdm.write(f"step {step + 1}: {examine(model, 100, part='val')}")


def choose_rows(pictures: int, wholes: float, count: int, rng: np.random.Generator) -> Tensor:
    """Numbers of views, of which a share are whole pictures, the first of each picture's views."""
    kept = np.where(rng.random(count) < wholes, 0, rng.integers(1, KEPT, size=count))
    return torch.from_numpy(rng.integers(pictures, size=count) * KEPT + kept)


def make_optimizers(
    named: Sequence[tuple[str, nn.Parameter]], steps: int, args: argparse.Namespace
) -> list[tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]]:
    """Muon for the matrices of the blocks, AdamW for all else, each with its pace for so many steps.

    The pace rises, stays, and falls in the last part of them.
    """

    def pace(step: int) -> float:
        done = (step + 1) / steps
        return min(done / RISE, 1, (1 - done) / FALL)

    matrices = [p for name, p in named if "resblocks" in name and p.ndim == 2]
    others = [p for name, p in named if "resblocks" not in name or p.ndim < 2]
    made: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=args.muon_lr),
        torch.optim.AdamW(others, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    return [(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, pace)) for optimizer in made]


@torch.no_grad()
def examine(model: CLIP, number: int, part: str) -> dict[str, float]:
    """How often the model chooses the right caption for pictures of a part of the world; see `demo_probes`."""
    return probe(
        lambda views: F.normalize(model.encode_image(views), dim=-1),
        lambda texts: encode_text(model, texts),
        number=number,
        seed=0,
        part=part,
    )


def save(model: CLIP, args: argparse.Namespace) -> None:
    """Write the weights as fp16 under OpenAI's names, wholly or not at all."""
    state = {name: weight.detach().half().contiguous() for name, weight in model.state_dict().items()}
    about = {
        "made_by": "scripts/pretrain_demo_clip.py",
        "seed": args.seed,
        "steps": args.steps,
        "batch_size": args.batch_size,
        "lr": args.lr,
        "muon_lr": args.muon_lr,
        "data": f"{args.pictures} pictures drawn for the demo's pre-training part, {KEPT} views each, with captions of "
        "what is in them; no photographs, none of MGS's sentences, and no caption that names just what a prompt of "
        "the demo's train, val or test part asks for",
    }
    with whole_file(args.out) as temporary:
        save_file(state, temporary, metadata={"about": json.dumps(about)})  # several entries get a random order


def main(argv: Sequence[str] | None = None) -> None:
    """Draw, train, examine, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the file to write, *.safetensors")
    parser.add_argument("--pictures", type=int, default=16_000)
    parser.add_argument("--steps", type=int, default=11_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3, help="AdamW's")
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--workers", type=int, default=2, help="processes that draw; training takes one thread")
    parser.add_argument("--probe-every", type=int, default=0, help="steps between examinations; 0: at the end alone")
    args = parser.parse_args(argv)
    started = time.monotonic()
    set_seed(args.seed)
    views = draw_all(args.pictures, args.seed, args.workers)
    print(f"drawn in {(time.monotonic() - started) / 60:.1f} minutes")
    torch.set_num_threads(1)  # two would take 70 to 90 % of the time, and give other bytes
    model = CLIP(**ARCHITECTURE).float()
    train(model, views, args)
    save(model, args)
    print(f"{args.out}: {args.out.stat().st_size:,} bytes, SHA-256 {file_sha256(args.out)}")
    print(f"{(time.monotonic() - started) / 60:.0f} minutes; right choices: {examine(model, 400, part='test')}")


if __name__ == "__main__":
    main()
