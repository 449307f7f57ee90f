"""Draw the docs' explanations of test drawings: `python -m scripts.draw_explanations [runs/demo] [docs/images]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from PIL import Image

from mgs import Scorer
from mgs.config_files import load_config
from mgs.errors import exit_on_user_error
from mgs.scoring.draw_explanation import save_explanation

WIDTH = 1200  # pixels
PICTURES = {  # drawings, with a prompt of ours or None for their own
    "why": ("grainspire_test_0180.jpg", "a black apple, a red umbrella, an orange pear"),
    "why_houses": ("plainsong_test_0112.jpg", None),
    "why_boats": ("glimmer_test_0023.jpg", None),
}


def main(argv: Sequence[str]) -> None:
    """Write why.png and its kin."""
    run = Path(argv[0] if argv else "runs/demo")
    out = Path(argv[1] if len(argv) > 1 else "docs/images")
    root = Path(load_config(run / "config.yaml").data.root)
    table = pd.read_csv(root / "splits/prompt-disjoint/1/test.csv", keep_default_na=False)
    prompts = {Path(image).name: prompt for image, prompt in zip(table["image"], table["prompt"], strict=True)}
    scorer = Scorer.load(run)
    for name, (image, prompt) in PICTURES.items():
        path = out / f"{name}.png"
        save_explanation(scorer.explain(root / "images" / image, prompt or prompts[image]), path)
        with Image.open(path) as drawn:
            small = drawn.convert("RGB").resize(
                (WIDTH, round(drawn.height * WIDTH / drawn.width)), Image.Resampling.LANCZOS
            )
        small.save(path, optimize=True)


if __name__ == "__main__":
    exit_on_user_error(main, sys.argv[1:])
