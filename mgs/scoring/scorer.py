"""`Scorer`: a checkpoint, or a bare CLIP, as a function from images and prompts to scores."""

from __future__ import annotations

import itertools
import math
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mgs.backbones.openai import Backbone, input_size, load_backbone
from mgs.config import Config, ModelConfig, Precision, ViewsConfig
from mgs.datasets.facts import NEED_A_PROMPT, facts_of
from mgs.datasets.samples import Sample
from mgs.dimensions import DIMENSIONS, PROMPT_STYLES, Prompt
from mgs.engine.engine import EVAL_BATCH, Pipeline
from mgs.errors import UserError, is_out_of_memory
from mgs.files import file_sha256, whole_file
from mgs.images.cache import ImageCache
from mgs.images.decode import BadImage
from mgs.images.inputs import ImageInput, Pair, as_images, as_prompt, as_prompts, load_image, load_or_reason, name_of
from mgs.methods.mgs import MGS
from mgs.scoring.explanation import Explanation, compare_picture, explain_scores
from mgs.scoring.own_process import OwnProcess
from mgs.scoring.score import COLUMNS, OK, Score, failure, raise_failure
from mgs.scoring.wording import remark_on_checkpoint, remarks_on_prompt
from mgs.training.checkpoint import CHECKPOINT, fetch_checkpoint, find_checkpoint, load_checkpoint

ZERO_SHOT = "zero-shot, never trained on MOS"
DECODERS = 4  # threads


class Scorer(OwnProcess):
    """Scores images; thread-safe. An image has the same score alone and in any batch (to 1e-5 in float32).

    Made with `load` or `zero_shot`. `scored` names the dimensions that it gives: those that its checkpoint was trained
    on, or the three that a bare CLIP can guess at. It can be pickled, weights and all. In a process that was forked
    after it was made it refuses to work, with a `UserError`.
    """

    def __init__(self, model: MGS, scored: Sequence[str], views: ViewsConfig, machine: Config) -> None:
        super().__init__()  # with a lock, since the model keeps texts between calls
        self.pipeline = Pipeline.of(machine, views, input_size(model.clip), ImageCache(Path()))
        self.model = model.to(self.pipeline.device).eval()
        self.scored = tuple(scored)
        self.prompt_style = "sentence"
        self.name, self.remarks, self.fingerprint = "", "", ""  # its source, what each status says, its weights' hash
        self.fits = sys.maxsize  # images at once; lowered when memory runs out

    def __deepcopy__(self, memo: dict) -> Scorer:
        return self  # its weights never change, so torchmetrics need not copy them

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto", precision: Precision = "auto") -> Scorer:
        """A scorer from a checkpoint file, a fold folder, or a run folder, whose first finished fold it takes.

        Views, sentences and prompt style are the checkpoint's own. Raises `UserError` if there is no valid checkpoint.
        """
        file = find_checkpoint(Path(path))
        checkpoint = load_checkpoint(file)
        scored = [dimension for dimension in DIMENSIONS if dimension in checkpoint.metadata.get("val", {})]
        if not scored:
            raise UserError(f"{file}: does not say which dimensions it was trained on; train it again")
        machine = Config(device=device, precision=precision)
        scorer = cls(checkpoint.model, scored, checkpoint.config.views, machine)
        data = checkpoint.config.data
        scorer.prompt_style = data.prompt_style or facts_of(data.dataset).prompt_style
        scorer.name, scorer.remarks = str(file), remark_on_checkpoint(checkpoint.metadata)
        scorer.fingerprint = file_sha256(file)
        return scorer

    @classmethod
    def zero_shot(cls, clip: str = "ViT-B/16", *, device: str = "auto", precision: Precision = "auto") -> Scorer:
        """A scorer from a bare CLIP that has seen no MOS, at CLIP's own temperature; every status says so."""
        return cls.of_backbone(load_backbone(clip, option="clip"), device=device, precision=precision)

    @classmethod
    def of_backbone(cls, backbone: Backbone, *, device: str = "auto", precision: Precision = "auto") -> Scorer:
        """`zero_shot`, of a CLIP that is loaded already."""
        model = MGS(backbone.clip, ModelConfig(clip=backbone.name, temperature="clip"))
        scorer = cls(model, DIMENSIONS[:3], ViewsConfig(), Config(device=device, precision=precision))
        scorer.name, scorer.remarks, scorer.fingerprint = f"zero-shot {backbone.name}", ZERO_SHOT, backbone.sha256
        return scorer

    @classmethod
    def from_pretrained(cls, name: str | Path, *, device: str = "auto", precision: Precision = "auto") -> Scorer:
        """A scorer from a folder that `save_pretrained` wrote, or from a Hugging Face hub repository of its name."""
        return cls.load(fetch_checkpoint(name), device=device, precision=precision)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Copy the checkpoint into a folder for `from_pretrained`, here or uploaded to the hub; returns its path."""
        if not Path(self.name).is_file():
            raise UserError(f"{self.name}: not from a checkpoint, so there is nothing to save; load one")
        with whole_file(Path(folder) / CHECKPOINT) as temporary:
            shutil.copyfile(self.name, temporary)
        return Path(folder) / CHECKPOINT

    def score(self, image: ImageInput, prompt: str | None = None, *, style: str | None = None) -> Score:
        """Score one image; `style` is the prompt's (keywords, hybrid or sentence), by default the training's.

        Raises `UserError` for an image that cannot be read.
        """
        (score,) = self.score_stream([(image, prompt)], style=style)
        return raise_failure(score)

    def score_many(
        self,
        images: Sequence[ImageInput],
        prompts: Sequence[str | None] | None = None,
        *,
        batch_size: int | None = None,
        style: str | None = None,
    ) -> pd.DataFrame:
        """Score images, each with its own prompt: a table of image, prompt, the four scores and status.

        An image that cannot be read is a row without scores, whose status gives the reason. Raises `ValueError` where
        there are not as many prompts as images, or a single item is given in place of a list.
        """
        images = as_images(images)
        pairs = list(zip(images, as_prompts(prompts, len(images)), strict=True))
        scores = self.score_stream(pairs, batch_size=batch_size, style=style)
        rows = [
            {"image": name_of(image), "prompt": prompt, **asdict(score)}
            for (image, prompt), score in zip(pairs, scores, strict=True)
        ]
        return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(DIMENSIONS, np.float64))

    def rank(self, images: Sequence[ImageInput], prompt: str | None = None, *, by: str | None = None) -> pd.DataFrame:
        """Score images of one prompt, the best first: by correspondence where there is a prompt, else by quality."""
        prompt = as_prompt(prompt)
        by = by or ("correspondence" if prompt and "correspondence" in self.scored else self.scored[0])
        if by not in self.scored:
            raise ValueError(f"by={by}: this scorer gives {', '.join(self.scored)}")
        images = as_images(images)
        table = self.score_many(images, [prompt] * len(images))
        return table.sort_values(by, ascending=False, kind="stable", ignore_index=True)

    @torch.inference_mode()
    def explain(self, image: ImageInput, prompt: str | None = None, *, style: str | None = None) -> Explanation:
        """Why an image gets its scores; without a prompt there are no fragments. Raises `UserError` for a bad image."""
        self.refuse_fork()
        text, style = as_prompt(prompt), self.check_style(style)
        try:
            pixels, remark = load_image(image)
        except BadImage as error:
            raise UserError(str(error)) from None
        with self.lock:
            found = compare_picture(self.pipeline, self.model, pixels, Prompt(text or "", style))
        scores = {name: value.item() for name, value in vars(self.model.combine(found)).items()}
        score = raise_failure(self.describe(scores, text, remark))
        return explain_scores(self.model, self.pipeline.settings.layout, pixels, found, text, style, score)

    def score_stream(
        self, pairs: Iterable[Pair], *, batch_size: int | None = None, style: str | None = None
    ) -> Iterator[Score]:
        """The scores of images with their prompts, in order; the next images are decoded while these are scored.

        Raises `UserError` at once for an impossible batch size or an unknown style.
        """
        self.refuse_fork()
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise UserError(f"batch_size={batch_size}: give 1 or more")
        size = batch_size or EVAL_BATCH[self.pipeline.device.type]
        return self.score_batches(iter(pairs), size, self.check_style(style))

    def score_batches(self, pairs: Iterator[Pair], size: int, style: str) -> Iterator[Score]:
        """`score_stream`, `size` images at a time, or as many as fit."""

        def fetch(pool: ThreadPoolExecutor) -> tuple[list[Pair], Iterator[tuple[Tensor | None, str]]]:
            batch = list(itertools.islice(pairs, min(size, self.fits)))
            return batch, pool.map(load_or_reason, [image for image, _ in batch])

        with ThreadPoolExecutor(DECODERS) as pool:
            batch, loading = fetch(pool)
            while batch:
                loaded = list(loading)
                following = fetch(pool)
                yield from self.score_loaded(loaded, [as_prompt(prompt) for _, prompt in batch], style)
                batch, loading = following

    def check_style(self, style: str | None) -> str:
        """The style that prompts are read in; an unknown name is a `UserError`."""
        style = style or self.prompt_style
        if style not in PROMPT_STYLES:
            raise UserError(f"prompt style {style!r}: choose from {', '.join(PROMPT_STYLES)}")
        return style

    def score_loaded(
        self, loaded: Sequence[tuple[Tensor | None, str]], prompts: Sequence[str | None], style: str
    ) -> list[Score]:
        """Scores of decoded pictures, each with a remark; where a picture is None, the remark is the reason."""
        whole = [i for i, (picture, _) in enumerate(loaded) if picture is not None]
        tensors = [loaded[i][0] for i in whole]
        scores = iter(self.run([t for t in tensors if t is not None], [prompts[i] or "" for i in whole], style))
        return [
            failure(remark) if picture is None else self.describe(next(scores), prompt, remark)
            for (picture, remark), prompt in zip(loaded, prompts, strict=True)
        ]

    @torch.inference_mode()
    def run(self, pictures: Sequence[Tensor], prompts: Sequence[str], style: str) -> list[dict[str, float] | None]:
        """Each picture's raw scores by dimension; None where memory doesn't hold even one picture."""
        found: list[dict[str, float] | None] = []
        while len(found) < len(pictures):
            part = slice(len(found), len(found) + self.fits)
            try:
                found += self.run_together(pictures[part], prompts[part], style)
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # outside the handler, whose traceback would keep the tensors that did not fit
            if self.pipeline.device.type == "cuda":
                torch.cuda.empty_cache()
            count = len(pictures[part])
            if count == 1:
                found.append(None)
            else:
                self.fits = min(self.fits, count // 2)  # another thread may have lowered it further
        return found

    def run_together(self, pictures: Sequence[Tensor], prompts: Sequence[str], style: str) -> list[dict[str, float]]:
        """The raw scores of pictures that go through the model at once."""
        batch = [(p, Sample("", Path(), text, style, {})) for p, text in zip(pictures, prompts, strict=True)]
        with self.lock:
            scores = self.pipeline.score(self.model, batch)
        values = {name: tensor.tolist() for name, tensor in scores.items()}
        return [{name: column[i] for name, column in values.items()} for i in range(len(pictures))]

    def describe(self, raw: dict[str, float] | None, prompt: str | None, remark: str) -> Score:
        """A score with its remarks."""
        if raw is None:
            return failure("out of memory for a single image; use a smaller image, or another device")
        told = {d: raw[d] for d in self.scored if prompt is not None or d not in NEED_A_PROMPT}
        if wrong := [d for d, value in told.items() if not math.isfinite(value)]:
            return failure(f"{', '.join(wrong)} not finite; score with precision=fp32, or use another checkpoint")
        remarks = [remark, *remarks_on_prompt(prompt, self.model.clip.context_length), self.remarks]
        said = "; ".join(filter(None, remarks))
        return Score(**{d: told.get(d) for d in DIMENSIONS}, status=f"{OK}: {said}" if said else OK)
