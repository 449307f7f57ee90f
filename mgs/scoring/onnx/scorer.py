"""Score with onnxruntime alone, without torch: `python -m mgs.scoring.onnx.scorer FOLDER IMAGE --prompt TEXT`.

What `mgs export` wrote into FOLDER is all it needs beside numpy, Pillow, onnxruntime and CLIP's tokenizer. It does
not check its images: only `mgs score` finds damage that Pillow ignores, such as a JPEG that is cut off.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from mgs.images.colour import to_srgb
from mgs.methods.fragments import split_prompt
from mgs.prompts import clean_prompt

IMAGES, TEXTS, RECIPE = "images.onnx", "texts.onnx", "mgs.json"
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"  # of CLIP's tokenizer
MIN_SIDE, PATCH, GRID, MOS_MAX = 512, 384, 3, 5.0
MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's, where the recipe does not have them
STD = (0.26862954, 0.26130258, 0.27577711)


class OnnxScorer:
    """An exported scorer, on the CPU."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        self.recipe = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        self.images, self.texts = (
            onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
            for name in (IMAGES, TEXTS)
        )
        self.tokenizer = load_tokenizer(folder / VOCABULARY)

    def score(self, path: Path, prompt: str | None = None) -> dict[str, float]:
        """Dimension -> score, 0-5, of those that were trained; without a prompt, of those that need none.

        Raises `ValueError` for scores that are not finite.
        """
        taken = self.images.get_inputs()[0]  # (B, V, 3, S, S)
        views = cut_views(read_pixels(path), self.recipe["size"], taken.shape[1])
        mean, std = (np.array(self.recipe.get(name, of), np.float32) for name, of in (("mean", MEAN), ("std", STD)))
        views = np.ascontiguousarray(((views - mean) / std).transpose(0, 3, 1, 2), np.float32)[None]
        (embeddings,), (quality,), (authenticity,) = self.images.run(None, {taken.name: views})
        scores = {"quality": float(quality), "authenticity": float(authenticity)}
        if prompt and prompt.strip():
            scores["correspondence"] = self.correspondence(embeddings, prompt)
            scores["overall"] = float(np.dot(self.recipe["fusion"], list(scores.values())))
        if not np.isfinite(list(scores.values())).all():
            raise ValueError(f"{path}: its scores are not finite")
        return {name: value for name, value in scores.items() if name in self.recipe["scored"]}

    def correspondence(self, views: np.ndarray, prompt: str) -> float:
        """How far views, (V, D), show what the prompt says."""
        parts = split_prompt(prompt, self.recipe["prompt_style"])
        tokens = np.stack([self.tokenize(text) for text in (clean_prompt(prompt), *parts)])
        (texts,) = self.texts.run(None, {self.texts.get_inputs()[0].name: tokens})
        whole_prompt, fragments = texts[0], texts[1:]
        patches = views[1:] if self.recipe["patches"] else views
        nearest = np.sort(fragments @ patches.T, axis=1)[:, -self.recipe["top_patches"] :].mean(1)
        weights = np.exp(fragments @ whole_prompt)
        share = self.recipe["whole_share" if len(parts) > 1 else "whole_share_of_one"]
        found = float(nearest @ weights / weights.sum())
        return MOS_MAX * (share * float(views[0] @ whole_prompt) + (1 - share) * found)

    def tokenize(self, text: str) -> np.ndarray:
        """A text's token numbers, (77,), zeros behind the end token, which a text cut short keeps."""
        start, end = (self.tokenizer.encoder[f"<|{name}oftext|>"] for name in ("start", "end"))
        numbers = [start, *self.tokenizer.encode(text)[: self.recipe["context"] - 2], end]
        return np.array(numbers + [0] * (self.recipe["context"] - len(numbers)), np.int64)


def load_tokenizer(vocabulary: Path) -> Any:
    """openai-clip's tokenizer from its file: importing the package would import torch."""
    package = importlib.util.find_spec("clip")
    if package is None or not package.origin:
        raise ModuleNotFoundError("CLIP's tokenizer is not here: run pip install openai-clip==1.0.1")
    spec = importlib.util.spec_from_file_location("tokenizer", Path(package.origin).with_name("simple_tokenizer.py"))
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module.SimpleTokenizer(str(vocabulary))


def read_pixels(path: Path) -> np.ndarray:
    """An image file as sRGB, float32 on 0-1, (H, W, 3), the shorter side at least 512."""
    with Image.open(path) as file:
        picture = ImageOps.exif_transpose(file)
        if picture.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
            picture = Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).astype(np.uint8))
        picture = to_srgb(picture, file.info.get("icc_profile"))
        if picture.has_transparency_data:
            layer = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        picture = picture.convert("RGB")
    scale = MIN_SIDE / min(picture.size)
    if scale > 1:
        width, height = (max(MIN_SIDE, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture, np.float32) / 255


def cut_views(pixels: np.ndarray, size: int, count: int) -> np.ndarray:
    """The whole image and, up to that many views, its nine windows, on 0-1, (V, S, S, 3)."""
    height, width = pixels.shape[:2]
    starts = [[i * ((side - PATCH) // (GRID - 1)) for i in range(GRID)] for side in (height, width)]
    parts = [pixels, *(pixels[y : y + PATCH, x : x + PATCH] for y in starts[0] for x in starts[1])]
    return np.stack([resize(part, size) for part in parts[:count]])


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Bilinear, not antialiased, pixel centres at halves: (H, W, 3) to (size, size, 3)."""
    for axis in (0, 1):
        length = pixels.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.floor(at).astype(int)
        share = (at - low).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
        high = np.minimum(low + 1, length - 1)
        pixels = pixels.take(low, axis) * (1 - share) + pixels.take(high, axis) * share
    return pixels


def main(argv: Sequence[str] | None = None) -> None:
    """Score one image and print its scores as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--prompt")
    args = parser.parse_args(argv)
    try:
        print(json.dumps(OnnxScorer(args.folder).score(args.image, args.prompt)))
    except (OSError, ValueError) as error:  # of missing files, and files that are not pictures
        parser.error(str(error))


if __name__ == "__main__":
    main()
