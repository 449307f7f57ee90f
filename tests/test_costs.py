"""What a method costs, against formulas written out by hand."""

import pytest
import torch
from conftest import random_backbone

from mgs.config import Config
from mgs.dimensions import Prompt
from mgs.engine.costs import count_gflop, count_parameters
from mgs.engine.engine import make_engine
from mgs.machine import Machine
from mgs.methods.table import make_method

PROMPT = "a red fox, on a hill"
TOKENS = 12  # of "A photo depicts " and the prompt, with start and end


def whole_block(tokens, width):
    """Multiplications and additions of a residual block: four projections, attention, an MLP four times as wide."""
    return 2 * tokens * width * (4 * width + 8 * width) + 4 * tokens**2 * width


def image_tower(*, views, tokens=37, width=128, layers=3, embed=64, patch=16):
    """The last block makes keys and values of all tokens, and all else of one."""
    last = 2 * width * (2 * tokens * width + 2 * width + 8 * width) + 4 * tokens * width
    stem = 2 * (tokens - 1) * 3 * patch**2 * width
    return views * (stem + (layers - 1) * whole_block(tokens, width) + last + 2 * width * embed)


def text_tower(*, tokens, width=64, layers=2, embed=64):
    """The last block projects and attends for all tokens, and all else for the end token."""
    last = 2 * tokens * 3 * width**2 + 4 * tokens**2 * width + 2 * 9 * width**2
    return (layers - 1) * whole_block(tokens, width) + last + 2 * width * embed


def engine_of(method):
    config = Config(method=method, data={"dataset": "demo"})
    return make_engine(make_method(random_backbone(), config), config, Machine.choose("cpu", "fp32"))


@pytest.mark.parametrize(("method", "views"), [("clip-score", 1), ("mgs", 10)])
def test_operations_are_those_of_the_formulas_and_do_not_depend_on_what_is_kept(method, views):
    engine, picture = engine_of(method), torch.zeros(3, 600, 512, dtype=torch.uint8)
    gflop, texts = count_gflop(engine, picture, Prompt(PROMPT))
    assert gflop - texts == pytest.approx(image_tower(views=views) / 1e9, rel=0.02)
    if method == "clip-score":
        assert len(engine.backbone.tokenize(f"A photo depicts {PROMPT}")) == TOKENS
        assert texts == pytest.approx(text_tower(tokens=TOKENS) / 1e9, rel=0.02)
    with torch.inference_mode():
        engine.score(engine.stage([picture], [Prompt(PROMPT)]))  # keeps the texts
    assert count_gflop(engine, picture, Prompt(PROMPT)) == (gflop, texts)


def test_parameters_are_counted_with_the_backbones():
    method = engine_of("mgs").method
    every, trained = count_parameters(method)
    clip = random_backbone()
    own = 1 + 3 + 1  # alpha, fusion and the temperature, which is frozen here
    assert every == sum(p.numel() for p in clip.parameters()) + own
    frozen = (
        2
        + sum(  # with logit_scale
            p.numel()
            for blocks in (clip.visual.transformer.resblocks[:1], clip.transformer.resblocks[:1])
            for p in blocks.parameters()
        )
    )
    assert trained == every - frozen
