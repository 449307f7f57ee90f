"""Does training help on the demo's drawings, and does each part of MGS? `python -m benchmarks.demo_ablations`

It trains the demo, three ablations of it, and nothing at all, then compares SRCC on the test drawings, the mean over
seeds. Comparisons are paired: drawings of one prompt are drawn again together, 10,000 times (bootstrap). A difference
whose 95 % interval contains zero is noise. The interval is about other test drawings, not about other seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

import test as test_recipe
import train as train_recipe
from mgs.demo.write import write_demo
from mgs.dimensions import DIMENSIONS
from mgs.methods.fragments import split_prompt

FULL = "full"
RUNS = {
    FULL: ["configs/demo.yaml"],
    "untrained": ["configs/demo.yaml", "train.epochs=0"],
    "no-fragments": ["configs/ablations/no-fragments.yaml", "base=configs/demo.yaml"],
    "no-patches": ["configs/ablations/no-patches.yaml", "base=configs/demo.yaml"],
    "separate-templates": ["configs/ablations/separate-templates.yaml", "base=configs/demo.yaml"],
}
TEST = "splits/prompt-disjoint/1/test.csv"
SEVERAL = 3  # fragments
RESAMPLED = 10_000


def main(argv: Sequence[str] | None = None) -> None:
    """Train, test, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data/demo"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[42], help="of training; SRCC is averaged over them")
    args = parser.parse_args(argv)
    if not args.root.exists():
        write_demo(args.root)
    tables = {run: scored(run, words, args) for run, words in RUNS.items()}
    full = tables[FULL][0]
    test = pd.read_csv(args.root / TEST, keep_default_na=False).set_index("image").loc[full.index]
    lengths = [len(split_prompt(prompt, style)) for prompt, style in zip(test.prompt, test.prompt_style, strict=True)]
    several = full.index[np.array(lengths) >= SEVERAL]
    for told, images in (("all drawings", full.index), (f"prompts of {SEVERAL} fragments or more", several)):
        print(f"\n{told}: {len(images)} drawings; SRCC, and how much higher the full model's is [95 % interval]")
        for run, table in tables.items():
            cells = [tell(full.loc[images], tables[FULL], table, dimension) for dimension in DIMENSIONS[:3]]
            print(f"{run:20}{'   '.join(cells)}")


def scored(run: str, words: Sequence[str], args: argparse.Namespace) -> list[pd.DataFrame]:
    """The test drawings with their MOS, prompts and predictions, by image; a table a seed."""
    tables = []
    for seed in args.seeds:
        name = f"ablation-{run}-{seed}"
        settings = [*words, f"name={name}", f"seed={seed}", f"data.root={args.root}"]
        train_recipe.main(settings)
        test_recipe.main(settings)
        (path,) = Path("runs", name, "report").glob("predictions_*.csv")
        tables.append(pd.read_csv(path, keep_default_na=False).set_index("image"))
    return tables


def tell(test: pd.DataFrame, full: list[pd.DataFrame], other: list[pd.DataFrame], dimension: str) -> str:
    """One run's SRCC on some test drawings, and how much higher the full model's is."""
    mos = test[f"{dimension}_mos"].to_numpy()
    ours, theirs = (
        np.stack([table.loc[test.index, f"{dimension}_pred"].to_numpy() for table in tables])
        for tables in (full, other)
    )  # (seeds, drawings)
    its = srcc(theirs, mos)
    if np.array_equal(ours, theirs):
        return f"{dimension} {its:.3f}".ljust(44)
    groups = list(test.groupby("prompt").indices.values())
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(RESAMPLED):
        rows = np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])
        differences.append(srcc(ours[:, rows], mos[rows]) - srcc(theirs[:, rows], mos[rows]))
    low, high = np.quantile(differences, (0.025, 0.975))
    verdict = "noise" if low <= 0 <= high else "higher" if low > 0 else "lower"
    return f"{dimension} {its:.3f} ({srcc(ours, mos) - its:+.3f} [{low:+.3f}, {high:+.3f}] {verdict})".ljust(44)


def srcc(predictions: NDArray[np.floating], mos: NDArray[np.floating]) -> float:
    """Spearman's rank correlation of (seeds, N) predictions with (N,) MOS, the mean over seeds."""
    ranks = rankdata(np.vstack([mos, predictions]), axis=1)
    return float(np.corrcoef(ranks)[0, 1:].mean())


if __name__ == "__main__":
    main()
