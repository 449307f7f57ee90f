"""`Scorer`: a checkpoint, or a bare CLIP, as a function from images and prompts to scores."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mgs.backbones.architecture import Activation
from mgs.backbones.backbone import Backbone
from mgs.backbones.table import load_backbone
from mgs.config import Precision
from mgs.config_files import load_elsewhere
from mgs.dimensions import DIMENSIONS, PROMPT_STYLES, Prompt
from mgs.engine.batcher import Batcher
from mgs.engine.engine import Engine
from mgs.engine.predict import EVAL_BATCH
from mgs.errors import UserError
from mgs.files import whole_file
from mgs.images.cuts import Cuts
from mgs.images.decode import BadImage
from mgs.images.forms import ImageInput, Pair, as_images, as_prompt, as_prompts, name_of
from mgs.images.inputs import load_image
from mgs.machine import Machine
from mgs.methods.method import Options
from mgs.scoring.explanation import Explanation, explain_picture
from mgs.scoring.loading import Source, open_bare, open_checkpoint
from mgs.scoring.own_process import OwnProcess
from mgs.scoring.score import Score, as_row, columns, raise_failure
from mgs.scoring.streaming import Loaded, Scored, T, load_pair, score_all
from mgs.scoring.wording import describe
from mgs.training.checkpoint import CHECKPOINT
from mgs.training.find_checkpoint import fetch_checkpoint


class Scorer(OwnProcess):
    """Scores images. Any number of threads may use it: a thread of its own scores for all of them, in full batches.

    An image has the same score alone and in any batch (to 1e-5 in float32). Made with `load` or `zero_shot`. `scored`
    names the dimensions that it gives: those that its checkpoint was trained on, or the three that a bare CLIP can
    guess at. It can be pickled, weights and all. In a process that was forked after it was made it refuses to work,
    with a `UserError`.
    """

    def __init__(self, engine: Engine, source: Source) -> None:
        super().__init__()
        self.engine, self.source = engine, source
        self.model = engine.method.eval().requires_grad_(False)  # so that matrices are cast once
        self.batcher = Batcher(engine)
        self.name, self.scored, self.prompt_style = source.name, source.scored, source.prompt_style

    def __getstate__(self) -> dict[str, Any]:
        return {"engine": self.engine, "source": self.source}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Scorer.__init__(self, **state)

    def __deepcopy__(self, memo: dict) -> Scorer:
        return self  # its weights never change, so torchmetrics need not copy them

    @classmethod
    @torch.inference_mode(False)  # changes of weights made in inference mode could not be noticed
    def load(cls, path: str | Path, *, device: str = "auto", precision: Precision = "auto") -> Scorer:
        """A scorer from a checkpoint file, a fold folder, or a run folder, whose first finished fold it takes.

        Views, sentences and prompt style are the checkpoint's own. Raises `UserError` if there is no valid checkpoint.
        """
        return cls(*open_checkpoint(Path(path), Machine.choose(device, precision)))

    @classmethod
    @torch.inference_mode(False)
    def zero_shot(
        cls,
        clip: str | None = None,
        *,
        method: str = "mgs",
        options: Mapping[str, Any] | None = None,
        activation: Activation | None = None,
        device: str = "auto",
        precision: Precision = "auto",
    ) -> Scorer:
        """A scorer from a bare CLIP, or from weights that another project trained; every status says so.

        `clip` is a name or a file, by default what `method` is published with; `options` are the method's own, such as
        `{"target": "quality"}`; `activation` is for a file that does not say its own. MGS scores at CLIP's own
        temperature unless its options say otherwise. Raises `UserError`.
        """
        config = load_elsewhere(method, [f"options.{name}={value}" for name, value in (options or {}).items()])
        backbone = load_backbone(clip or config.model.clip, option="clip", activation=activation)
        return cls.of_backbone(backbone, method=method, options=config.options, device=device, precision=precision)

    @classmethod
    def of_backbone(
        cls,
        backbone: Backbone,
        *,
        method: str = "mgs",
        options: Options | None = None,
        device: str = "auto",
        precision: Precision = "auto",
    ) -> Scorer:
        """A scorer from weights that are loaded already, by a method of `METHODS` and its options.

        The backbone becomes the method's own: it is frozen and moved, and a ResNet may lose its position embeddings.
        """
        return cls(*open_bare(backbone, Machine.choose(device, precision), method, options))

    @classmethod
    def from_pretrained(cls, name: str | Path, *, device: str = "auto", precision: Precision = "auto") -> Scorer:
        """A scorer from a folder that `save_pretrained` wrote, or from a Hugging Face hub repository of its name."""
        return cls.load(fetch_checkpoint(name), device=device, precision=precision)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Copy the checkpoint into a folder for `from_pretrained`, here or uploaded to the hub; returns its path."""
        if self.source.file is None or not self.source.file.is_file():
            raise UserError(f"{self.name}: not from a checkpoint, so there is nothing to save; load one")
        with whole_file(Path(folder) / CHECKPOINT) as temporary:
            shutil.copyfile(self.source.file, temporary)
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
        rows = [as_row(name_of(image), prompt, score) for (image, prompt), score in zip(pairs, scores, strict=True)]
        return pd.DataFrame(rows, columns=columns(self.model.labels)).astype(dict.fromkeys(DIMENSIONS, np.float64))

    def rank(self, images: Sequence[ImageInput], prompt: str | None = None, *, by: str | None = None) -> pd.DataFrame:
        """Score images of one prompt, the best first: by correspondence where there is a prompt, else by quality."""
        prompt = as_prompt(prompt)
        by = by or ("correspondence" if prompt and "correspondence" in self.scored else self.scored[0])
        if by not in self.scored:
            raise ValueError(f"by={by}: this scorer gives {', '.join(self.scored)}")
        if prompt is None and by in self.model.needs_prompt:
            raise ValueError(f"by={by}: is judged against a prompt; give one")
        images = as_images(images)
        table = self.score_many(images, [prompt] * len(images))
        return table.sort_values(by, ascending=False, kind="stable", ignore_index=True)

    def explain(self, image: ImageInput, prompt: str | None = None, *, style: str | None = None) -> Explanation:
        """Why an image gets its scores; without a prompt there are no fragments. Raises `UserError` for a bad image."""
        self.refuse_fork()
        try:
            pixels, remark = load_image(image, self.engine.cuts)
        except BadImage as error:
            raise UserError(str(error)) from None
        return self.begin_explanation(pixels, as_prompt(prompt), remark, style).result()

    def begin_explanation(
        self, pixels: Tensor, prompt: str | None, remark: str = "", style: str | None = None
    ) -> Future[Explanation]:
        """`explain`, of an image as `load_image` gives it with its remark, without waiting."""
        text = None if prompt is None else Prompt(prompt, self.check_style(style))

        def word(scores: dict[str, float]) -> Score:
            return raise_failure(self.describe(Scored(prompt, True, remark, scores)))

        return self.batcher.begin_on_thread(explain_picture, self.engine, pixels, text, word)

    def score_stream(
        self, pairs: Iterable[Pair], *, batch_size: int | None = None, style: str | None = None
    ) -> Iterator[Score]:
        """The scores of images with their prompts, in order; the next images are decoded while these are scored.

        Raises `UserError` at once for an impossible batch size or an unknown style.
        """
        checked = ((image, as_prompt(prompt)) for image, prompt in pairs)
        return (score for _, score in self.score_inputs(checked, load_pair, batch_size=batch_size, style=style))

    def score_inputs(
        self, inputs: Iterable[T], load: Callable[[T, Cuts], Loaded], *, batch_size: int | None, style: str | None
    ) -> Iterator[tuple[Any, Score]]:
        """The scores of what `load` makes of inputs, each after its `Loaded.item`; see `score_stream`."""
        self.refuse_fork()
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise UserError(f"batch_size={batch_size}: give 1 or more")
        size = batch_size or EVAL_BATCH[self.engine.machine.device.type]
        found = score_all(self.batcher, iter(inputs), load, size, self.check_style(style))
        return ((one.item, self.describe(one)) for one in found)

    def check_style(self, style: str | None) -> str:
        """The style that prompts are read in; an unknown name is a `UserError`."""
        style = style or self.prompt_style
        if style not in PROMPT_STYLES:
            raise UserError(f"prompt style {style!r}: choose from {', '.join(PROMPT_STYLES)}")
        return style

    def describe(self, found: Scored) -> Score:
        """A score with its remarks."""
        return describe(found, self.model, self.scored, self.source.remarks)
