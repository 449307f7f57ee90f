import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from safetensors.torch import save_file
from torch.utils.tensorboard import SummaryWriter

from mgs.backbones.clip import CLIPBackbone
from mgs.backbones.openai import openai_clip
from mgs.backbones.packing import PackedTexts
from mgs.backbones.texts import TextEncoder
from mgs.engine.engine import make_engine
from mgs.evaluation import report
from mgs.machine import Machine
from mgs.methods.table import make_method
from mgs.scoring.loading import Source
from mgs.scoring.scorer import Scorer
from mgs.training import log

torch.set_num_threads(1)  # the towers here are tiny: waiting for a second thread costs more than it brings
IMAGES = 30  # of the set that `own_set` makes
SHARED = Path(__file__).resolve().parents[2] / "shared"
# No time limit on an example: a machine that is busy fails no test.
settings.register_profile("quick", deadline=None, max_examples=25)
settings.register_profile("all", deadline=None)


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="also the tests marked slow, and more examples in the others")


def pytest_configure(config):
    settings.load_profile("all" if config.getoption("--all") else "quick")


def pytest_collection_modifyitems(config, items):
    """Leave out what is slow, unless all is asked for."""
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow and not config.getoption("--all"):
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


def pytest_terminal_summary(terminalreporter, config):
    if not config.getoption("--all"):
        terminalreporter.write_line("The slow tests were left out; --all runs them.")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the checkout with real images, published folds and official tables, where a machine has it."""
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}: the real datasets are not on this machine")
    return SHARED


def random_clip(*, size=96, patch=16, width=128, layers=3, embed=64, text_width=64, text_layers=2, context=77, seed=0):
    """An OpenAI CLIP with random weights, spread enough that its cosines differ."""
    torch.manual_seed(seed)
    clip = openai_clip().model.CLIP(
        embed, size, layers, width, patch, context, 49408, text_width, text_width // 64, text_layers
    )
    return clip.eval()


def random_backbone(**shape):
    """`random_clip` as a backbone."""
    return CLIPBackbone(random_clip(**shape), "test")


def encoder_of(backbone):
    """A backbone's text tower as a function of texts, on the CPU."""
    return TextEncoder(backbone, lambda texts: PackedTexts.of([backbone.tokenize(text) for text in texts]))


def embed_views(backbone, views):
    """Views, (..., 3, S, S), as embeddings, (..., D)."""
    return backbone.finish_images(backbone.start_images(views))


def score_views(method, views, prompts):
    """A method's scores, (B,) by dimension, of (B, V, 3, S, S) views with their prompts, without an engine."""
    reading = method.read(prompts)
    images, texts = embed_views(method.backbone, views), encoder_of(method.backbone)(reading.texts)
    return method.score(images, texts, reading.numbers)


@pytest.fixture
def two_threads(request):
    """Two threads for a test that, where all is asked for, runs on full-size towers too."""
    torch.set_num_threads(2 if request.config.getoption("--all") else 1)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def small_clip():
    """A CLIP of the demo's shape, with random weights."""
    return random_clip()


@pytest.fixture(scope="session")
def own_set(tmp_path_factory):
    """A user's own folder: pictures as good as they are bright, a CSV on a scale of 1 to 9, a small CLIP, a config."""
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(IMAGES):
        level = i / (IMAGES - 1)
        pixels = (level * 200 + rng.random((16, 18, 3)) * 55).astype(np.uint8)
        # plain squares pack and unpack fast; no side is below 512, so that nothing is enlarged
        Image.fromarray(pixels).resize((576, 512), Image.Resampling.NEAREST).save(folder / f"{i}.png")
        rows.append([f"{i}.png", f"a grey wall, number {i}", 1 + 8 * level, 9 - 8 * level])
    with (folder / "mos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "prompt", "quality", "correspondence"], *rows])
    save_file(random_clip(size=32, width=64, layers=2, embed=32).state_dict(), folder / "clip.safetensors")
    (folder / "own.yaml").write_text(
        "data: {table: mos.csv, protocol: random-image, mos_range: [1, 9], workers: 0}\n"
        "model: {clip: clip.safetensors}\ntrain: {epochs: 3, lr: 1e-3, final_lr: 1e-4}\nfolds: [1, 2]\n"
    )
    return folder


def skip_plots(patch):
    """Have training and testing draw nothing, which is most of the time that a small run takes."""
    patch.setattr(SummaryWriter, "add_figure", lambda *args, **options: None)
    for name in ("draw_scatter", "draw_views"):
        patch.setattr(log, name, lambda *args: None)
    patch.setattr(report, "draw_sections", lambda *args: {})
    patch.setattr(report, "choose_gallery", lambda *args: {})


def make_scorer(backbone, config, scored):
    """A config's method as a scorer that gives the dimensions `scored`, on the CPU."""
    engine = make_engine(make_method(backbone, config), config, Machine.choose("cpu", "fp32"))
    return Scorer(engine, Source("test", "", tuple(scored)))


@pytest.fixture
def here(own_set, tmp_path, monkeypatch, request):
    """A copy of the user's folder, and the working directory in it; plots are drawn where a test is marked `plots`."""
    shutil.copytree(own_set, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    if not request.node.get_closest_marker("plots"):
        skip_plots(monkeypatch)
    return tmp_path
