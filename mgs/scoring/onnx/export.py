"""`mgs export`: a scorer as two ONNX graphs and a JSON file, enough to score without torch."""

from __future__ import annotations

import copy
import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mgs.backbones.backbone import Backbone
from mgs.backbones.clip import CLIPBackbone
from mgs.backbones.openai import openai_clip
from mgs.errors import UserError
from mgs.files import whole_file, write_json
from mgs.images.cuts import count_views
from mgs.methods.mgs import MGS, TOP_PATCHES
from mgs.scoring.onnx.scorer import IMAGES, RECIPE, TEXTS, VOCABULARY, OnnxScorer
from mgs.scoring.scorer import Scorer

PARITY = 1e-3  # in MOS points; the largest difference that an exported scorer may have
NEEDED = ("onnx", "onnxscript", "onnxruntime")


class ImageTower(nn.Module):
    """Views, (B, V, 3, S, S), to embeddings, (B, V, D), and the two scores that need no prompt, (B,) each."""

    def __init__(self, model: MGS, sentences: Tensor) -> None:
        """`sentences` are the level sentences' embeddings, (T, D)."""
        super().__init__()
        self.model, self.level = model, sentences

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        backbone = self.model.backbone
        embeddings = backbone.finish_images(backbone.start_images(views))
        patches = embeddings[:, 1:] if views.shape[1] > 1 else embeddings
        similarity = (embeddings[:, 0] @ self.level.T + (patches @ self.level.T).mean(1)) / 2
        return embeddings, *self.model.read_levels(similarity)


class TextTower(nn.Module):
    """Token numbers, (N, L), zeros behind the end token, to embeddings, (N, D)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, tokens: Tensor) -> Tensor:
        return self.backbone.embed_padded(tokens)


def export(scorer: Scorer, folder: Path) -> None:
    """Write images.onnx, texts.onnx, mgs.json and CLIP's vocabulary into `folder`, for `scorer.OnnxScorer`.

    Each file is written wholly or not at all. mgs.json comes last, and without it the others are not read. Raises
    `UserError` if onnx, onnxscript or onnxruntime is not installed, and for views other than the paper's.
    """
    if missing := [name for name in NEEDED if not importlib.util.find_spec(name)]:
        raise UserError(f"export needs {', '.join(missing)}: run pip install {' '.join(missing)}")
    engine = scorer.engine
    if not isinstance(engine.method, MGS):
        raise UserError("export: only the method mgs can be exported so far")
    if not isinstance(engine.backbone, CLIPBackbone):
        raise UserError("export: only CLIPs with OpenAI's kind of vision transformer can be exported so far")
    if engine.cuts.windows == "cover" or engine.cuts.antialias:
        raise UserError("export: only the paper's nine windows, not antialiased, can be exported so far")
    (folder / RECIPE).unlink(missing_ok=True)  # of an older export, whose graphs are about to be replaced
    sentences = scorer.batcher.call(engine.embed_texts, engine.method.sentences).cpu()
    model = copy.deepcopy(engine.method).cpu().eval().requires_grad_(False)
    size, context = model.backbone.size, model.backbone.context
    views = torch.zeros(2, count_views((2 * engine.cuts.side,) * 2, engine.cuts), 3, size, size)
    tokens = torch.zeros(2, context, dtype=torch.int64)
    batch, texts = torch.export.Dim("batch"), torch.export.Dim("texts")
    outputs = ["embeddings", "quality", "authenticity"]
    write_graph(ImageTower(model, sentences), views, folder / IMAGES, {0: batch}, outputs)
    write_graph(TextTower(model.backbone), tokens, folder / TEXTS, {0: texts}, ["embeddings"])
    with whole_file(folder / VOCABULARY) as temporary:
        shutil.copyfile(Path(str(openai_clip().__file__)).with_name(VOCABULARY), temporary)
    share = {"both": model.alpha.sigmoid().item(), "whole": 1.0, "fragments": 0.0}[model.options.correspondence]
    recipe = {
        "source": scorer.name,
        "scored": list(scorer.scored),
        "size": size,
        "mean": model.backbone.mean.flatten().tolist(),
        "std": model.backbone.std.flatten().tolist(),
        "context": context,
        "patches": engine.cuts.windows != "none",
        "prompt_style": scorer.prompt_style,
        "top_patches": TOP_PATCHES,
        "whole_share": share,  # of correspondence, for prompts of more than one fragment
        "whole_share_of_one": 0.0 if model.options.correspondence == "fragments" else 1.0,
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
