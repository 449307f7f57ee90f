from pathlib import Path

import pytest
import torch

from mgs.model.clip_backbone import openai_clip

torch.set_num_threads(1)  # the towers here are tiny: waiting for a second thread costs more than it brings
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the checkout with real images, published folds and official tables, where a machine has it."""
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}: the real datasets are not on this machine")
    return SHARED


def random_clip(*, size=96, patch=16, width=128, layers=3, embed=64, text_width=64, text_layers=2, seed=0):
    """An OpenAI CLIP with random weights, spread enough that its cosines differ."""
    torch.manual_seed(seed)
    clip = openai_clip().model.CLIP(
        embed, size, layers, width, patch, 77, 49408, text_width, text_width // 64, text_layers
    )
    return clip.eval()


@pytest.fixture
def small_clip():
    """A CLIP of the demo's shape, with random weights."""
    return random_clip()
