"""`mgs export`: a scorer as two ONNX graphs and a JSON file, enough to score without torch."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mgs.backbones.openai import Clip, openai_clip
from mgs.backbones.towers import finish_views, start_views, unit_norm
from mgs.errors import UserError
from mgs.files import whole_file, write_json
from mgs.machine import exact_products
from mgs.methods.mgs import MGS, TOP_PATCHES
from mgs.methods.templates import read_levels
from mgs.scoring.onnx.scorer import IMAGES, RECIPE, TEXTS, VOCABULARY, OnnxScorer
from mgs.scoring.scorer import Scorer

PARITY = 1e-3  # in MOS points; the largest difference that an exported scorer may have
NEEDED = ("onnx", "onnxscript", "onnxruntime")


class ImageTower(nn.Module):
    """Views, (B, V, 3, S, S), to embeddings, (B, V, D), and the two scores that need no prompt, (B,) each.

    Without patches there is an embedding of view 0 alone.
    """

    def __init__(self, model: MGS) -> None:
        super().__init__()
        self.clip, self.templates, self.patches = model.clip, model.config.templates, model.config.patches
        with exact_products:
            self.level = model.encode_texts(model.sentences).detach()
        self.temperature = model.temperature.detach()

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        embeddings = finish_views(self.clip, start_views(self.clip, views if self.patches else views[:, :1]))
        patches = embeddings[:, 1:] if self.patches else embeddings
        similarity = (embeddings[:, 0] @ self.level.T + (patches @ self.level.T).mean(1)) / 2
        return embeddings, *read_levels(similarity, self.templates, self.temperature)


class TextTower(nn.Module):
    """Token numbers, (N, 77), zeros behind the end token, to embeddings, (N, D)."""

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, tokens: Tensor) -> Tensor:
        return unit_norm(self.clip.encode_text(tokens))


def export(scorer: Scorer, folder: Path) -> None:
    """Write images.onnx, texts.onnx, mgs.json and CLIP's vocabulary into `folder`, for `onnx_scorer.OnnxScorer`.

    Each file is written wholly or not at all. mgs.json comes last, and without it the others are not read. Raises
    `UserError` if onnx, onnxscript or onnxruntime is not installed, and for views other than the paper's.
    """
    if missing := [name for name in NEEDED if not importlib.util.find_spec(name)]:
        raise UserError(f"export needs {', '.join(missing)}: run pip install {' '.join(missing)}")
    settings = scorer.pipeline.settings
    if settings.layout != "grid" or settings.antialias:
        raise UserError("export: only the paper's nine windows, not antialiased, can be exported so far")
    (folder / RECIPE).unlink(missing_ok=True)  # of an older export, whose graphs are about to be replaced
    with scorer.lock:  # its model is on the CPU meanwhile
        model, size = scorer.model.cpu().eval().requires_grad_(False), scorer.pipeline.size
        views = torch.zeros(2, 10, 3, size, size)
        context = model.clip.context_length
        tokens = torch.zeros(2, context, dtype=torch.int64)
        batch, texts = torch.export.Dim("batch"), torch.export.Dim("texts")
        fast_path = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # its fused operator has no ONNX form
        try:
            write_graph(
                ImageTower(model), views, folder / IMAGES, {0: batch}, ["embeddings", "quality", "authenticity"]
            )
            write_graph(TextTower(model.clip), tokens, folder / TEXTS, {0: texts}, ["embeddings"])
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
            scorer.model.to(scorer.pipeline.device)
    with whole_file(folder / VOCABULARY) as temporary:
        shutil.copyfile(Path(str(openai_clip().__file__)).with_name(VOCABULARY), temporary)
    share = {"both": model.alpha.sigmoid().item(), "whole": 1.0, "fragments": 0.0}[model.config.correspondence]
    recipe = {
        "source": scorer.name,
        "scored": list(scorer.scored),
        "size": size,
        "context": context,
        "patches": model.config.patches,
        "prompt_style": scorer.prompt_style,
        "top_patches": TOP_PATCHES,
        "whole_share": share,  # of correspondence, for prompts of more than one fragment
        "whole_share_of_one": 0.0 if model.config.correspondence == "fragments" else 1.0,
        "fusion": model.fusion.softmax(-1).tolist(),  # of the three scores in overall
    }
    write_json(folder / RECIPE, recipe)


def write_graph(module: nn.Module, example: Tensor, path: Path, dynamic: dict, outputs: list[str]) -> None:
    """Export one tower, the first axis of any length."""
    program = torch.onnx.export(
        module.eval(), (example,), dynamo=True, dynamic_shapes=(dynamic,), output_names=outputs, verbose=False
    )
    assert program is not None
    with whole_file(path) as temporary:
        program.save(str(temporary))


def check_parity(scorer: Scorer, folder: Path, pairs: Sequence[tuple[Path, str]]) -> float:
    """The largest difference between exported and original scores of these image files, views and all.

    Raises `UserError` where it is more than 1e-3.
    """
    exported = OnnxScorer(folder)
    worst = 0.0
    for path, prompt in pairs:
        expected = scorer.score(path, prompt)
        found = exported.score(path, prompt)
        worst = max([worst, *(abs(value - getattr(expected, name)) for name, value in found.items())])
    if worst > PARITY:
        raise UserError(f"{folder}: exported scores are off by up to {worst:.4f}, more than {PARITY}; do not use them")
    return worst
