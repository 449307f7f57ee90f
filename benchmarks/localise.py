"""Does a fragment light the patch where its object was drawn? `python -m benchmarks.localise [--checkpoint PATH]`

It uses faultless drawings of two to four things, from the part of the drawn world that is kept for testing. For each
thing, the fragment that names it ranks the nine patches. The true patch is the one whose centre is nearest to the
thing's. Chance is rank 5.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from scipy import stats
from tqdm import tqdm

from mgs import Scorer
from mgs.demo.generators import Damage, as_asked, draw, places
from mgs.demo.prompts import sample_content, with_article
from mgs.methods.mgs import TOP_PATCHES
from mgs.scoring.explanation import Explanation

PATCHES = 9


def main(argv: Sequence[str] | None = None) -> None:
    """Draw, explain, rank, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="default: the demo CLIP as it ships, zero-shot")
    parser.add_argument("--drawings", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    scorer = Scorer.load(args.checkpoint) if args.checkpoint else Scorer.zero_shot("demo")
    ranks = [rank for i in tqdm(range(args.drawings)) for rank in rank_true_patches(scorer, (args.seed, i))]
    reach, chance = 1.96 * stats.sem(ranks), (PATCHES + 1) / 2
    first = np.mean(np.array(ranks) <= TOP_PATCHES)
    print(f"{scorer.name}: {args.drawings} drawings, {len(ranks)} objects")
    print(f"mean rank of the true patch {np.mean(ranks):.2f} ± {reach:.2f} of {PATCHES}, chance {chance}")
    print(f"among the {TOP_PATCHES} that count: {first:.0%}, chance {TOP_PATCHES / PATCHES:.0%}")


def rank_true_patches(scorer: Scorer, seed: tuple[int, int]) -> list[int]:
    """For each thing in one drawing, the rank of the patch that it lies in, 1 the brightest."""
    rng = np.random.default_rng(seed)
    while len((content := sample_content(rng, "test")).things) < 2:
        pass
    drawn = as_asked(content)
    spots = places(drawn, np.random.default_rng((*seed, 1)))
    picture = draw(drawn, Damage(), np.random.default_rng((*seed, 1)))
    prompt = ", ".join(with_article(thing) for thing in content.things)
    explanation = scorer.explain(torch.from_numpy(picture).permute(2, 0, 1), prompt, style="keywords")
    pairs = zip(explanation.fragments, spots, strict=True)
    return [rank_of(fragment.patches, nearest_patch(explanation, x, y)) for fragment, (x, y, *_) in pairs]


def nearest_patch(explanation: Explanation, x: float, y: float) -> int:
    """The patch whose centre is nearest to a point of the drawing."""
    centres = np.array([(top + side / 2, left + side / 2) for top, left, side in explanation.boxes])  # (P, 2)
    return int(((centres - (y, x)) ** 2).sum(1).argmin())


def rank_of(values: Sequence[float], i: int) -> int:
    """The place of entry `i` among the values, the largest first."""
    return 1 + sum(value > values[i] for value in values)


if __name__ == "__main__":
    main()
