"""What takes longer than a moment: a full-size training step, a compiler, the benchmark."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import random_backbone, score_views

from mgs.config import Config
from mgs.datasets.samples import Sample
from mgs.dimensions import Prompt
from mgs.engine.engine import make_engine
from mgs.engine.loader import Loader
from mgs.images.cache import ImageCache
from mgs.machine import Machine, compile_or_not
from mgs.methods.table import make_method
from mgs.training.trainer import Trainer

FULL = {"size": 224, "width": 768, "layers": 12, "embed": 512, "text_width": 512, "text_layers": 12}


@pytest.mark.parametrize(
    ("shape", "parameters", "trained"),
    [
        ({"layers": 4, "text_layers": 4}, 4.276e6, range(2, 4)),
        pytest.param(FULL, 149.6e6, range(6, 12), marks=pytest.mark.slow),
    ],
    ids=["small", "ViT-B/16"],
)
def test_a_training_step_moves_what_trains_and_nothing_else(two_threads, shape, parameters, trained):
    config = Config(name="x")
    config.data.workers, config.train.batch_size = 0, 2
    model = make_method(random_backbone(**shape), config)
    targets = {"quality": 4.0, "authenticity": 1.0, "correspondence": 2.0}
    prompts = ["a bench", "a red bus on a road next to a tree"]
    samples = [Sample(p, p, p, "sentence", targets) for p in prompts]
    loader = Loader(make_engine(model, config, Machine.choose("cpu", "fp32")), ImageCache(Path("unused")))
    trainer = Trainer(loader, samples, config)
    pictures = [torch.randint(0, 256, (3, 512, 640), dtype=torch.uint8) for _ in samples]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert sum(p.numel() for p in before.values()) == pytest.approx(parameters, rel=1e-3)
    assert trainer.step(loader.stage(samples, pictures)) > 0
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    # No MOS of `overall` here, so its weights have no gradient.
    assert moved == trainable - {"fusion"}
    blocks = {int(name.split("resblocks.")[1].split(".")[0]) for name in moved if "resblocks" in name}
    assert blocks == set(trained)


@pytest.mark.slow
def test_compiled_blocks_give_the_same_scores(capsys):
    model = make_method(random_backbone(), Config())
    views, prompts = torch.randn(2, 10, 3, 96, 96), [Prompt("a bench"), Prompt("a red bus on a road")]
    with torch.no_grad():
        eager = score_views(model, views, prompts)
        model.backbone.run_block = compile_or_not(model.backbone.run_block)
        compiled = score_views(model, views, prompts)
    if "torch.compile failed" in capsys.readouterr().err:
        pytest.skip("torch.compile finds no compiler on this machine")
    for name, values in eager.items():
        torch.testing.assert_close(compiled[name], values, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_the_benchmark_writes_rows_whose_exact_ones_agree_with_the_plain_way(shared, tmp_path):
    out = tmp_path / "speed.json"
    words = ["--root", str(shared / "agiqa3k"), "--model", "demo", "--batch", "2", "--repeats", "1", "--out", str(out)]
    subprocess.run([sys.executable, "-m", "benchmarks.speed", *words], check=True, cwd=Path(__file__).parents[1])
    rows = json.loads(out.read_text())["rows"]
    assert {(row["mode"], row["precision"]) for row in rows} == {
        (m, p) for m in ("eval", "train") for p in ("fp32", "bf16")
    }
    for row in rows:
        assert row["images_per_second"] > 0
        assert row["max_score_difference"] < (1e-5 if row["precision"] == "fp32" else 0.05), row
