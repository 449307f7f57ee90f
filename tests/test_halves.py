"""The frozen half is computed once per image, and training goes on as if it were computed every time."""

import json

import numpy as np
import pytest
import torch
from conftest import random_backbone
from typer.testing import CliRunner

from mgs import machine
from mgs.cli import app
from mgs.config import Config, ModelConfig, ViewsConfig
from mgs.datasets.samples import Sample
from mgs.engine import halves as module
from mgs.engine.engine import make_engine
from mgs.engine.halves import KeptHalves, describe_key
from mgs.errors import UserError
from mgs.images.cache import ImageCache
from mgs.machine import Machine
from mgs.methods.table import make_method
from mgs.recipes import test as testing
from mgs.recipes import train as training

WORDS = ["own.yaml", "folds=[1]", "model.freeze_stem=true", "data.cache_folder=kept"]


@pytest.fixture
def computed(monkeypatch):
    """The images that went through the frozen half to be kept."""
    names = []
    compute = module.compute

    def note(engine, images, sample):
        names.append(sample.name)
        return compute(engine, images, sample)

    monkeypatch.setattr(module, "compute", note)
    return names


def curve(here, name):
    lines = [json.loads(line) for line in (here / f"runs/{name}/fold_01/metrics.jsonl").read_text().splitlines()]
    figures = ("srcc", "plcc", "krcc", "rmse", "pair_accuracy")  # three images are too few for a fit
    return np.array([[line["loss"], *(one[f] for one in line["val"].values() for f in figures)] for line in lines])


def kept(here):
    return sorted(path.relative_to(here) for path in (here / "kept").rglob("*.npy"))


def test_training_with_what_is_kept_follows_the_curve_of_training_without(here, computed):
    training.main([*WORDS, "name=kept"])
    assert len(computed) == 1 + 24  # one to measure, then those of train and val
    training.main([*WORDS, "name=fresh", "train.cache_gb=0"])
    assert len(computed) == 1 + 24
    np.testing.assert_allclose(curve(here, "kept"), curve(here, "fresh"), atol=1e-5)
    assert len(curve(here, "kept")) == 3
    testing.main([*WORDS, "name=kept"])


def test_other_folds_and_runs_compute_only_what_is_missing(here, computed):
    training.main([*WORDS, "train.epochs=1"])
    files, first = kept(here), len(computed)
    training.main([*WORDS, "train.epochs=1", "folds=[1,2]", "overwrite=true"])
    assert 0 < len(computed) - first < 24
    assert set(files) < set(kept(here))
    assert len(kept(here)) <= 30
    before = len(computed)
    training.main([*WORDS, "train.epochs=2", "folds=[1,2]", "name=another"])
    assert len(computed) == before


def test_what_was_damaged_or_removed_is_made_again_by_the_next_run_and_named_by_this_one(here, computed):
    training.main([*WORDS, "train.epochs=1"])
    damaged, gone = kept(here)[:2]
    (here / damaged).write_bytes((here / damaged).read_bytes()[:1000])
    (here / gone).unlink()
    before, first = len(kept(here)), len(computed)
    training.main([*WORDS, "train.epochs=2", "name=again"])
    assert len(computed) - first == 1 + 2
    assert len(kept(here)) == before + 1

    cache = KeptHalves(here / "nowhere", ImageCache(here))
    sample = Sample("a.png", here / "0.png", "", "sentence", {})
    cache.images.fill([sample.image], "ram", torch.device("cpu"))
    with pytest.raises(UserError, match="gone or damaged since training began"):
        cache.read(sample)


def test_half_precision_runs_keep_half_the_bytes(here, monkeypatch):
    monkeypatch.setattr(machine, "cpu_has_bf16", lambda: True)
    training.main([*WORDS, "train.epochs=1"])
    exact = {np.load(here / file).dtype for file in kept(here)}
    CliRunner().invoke(app, ["clean", "kept"])
    training.main([*WORDS, "train.epochs=1", "name=half", "precision=bf16"])
    assert exact == {np.dtype("float32")}
    assert {np.load(here / file).dtype for file in kept(here)} == {np.dtype("float16")}


def test_no_more_disk_is_used_than_allowed_and_both_ways_it_is_said(here, capsys):
    training.main([*WORDS, "train.epochs=1", "train.cache_gb=1e-6"])
    assert kept(here) == []
    assert "do not fit" in capsys.readouterr().out
    training.main([*WORDS, "train.epochs=1", "name=roomy"])
    assert "frozen half: writing 24 images x 0.01 MB = 0.00 GB to kept/activations/" in capsys.readouterr().out


def test_clean_removes_what_is_kept_and_nothing_else(here):
    training.main([*WORDS, "train.epochs=1", "data.cache=disk"])
    (here / "kept" / "mine.txt").write_text("mine")
    assert len(kept(here)) > 24
    result = CliRunner().invoke(app, ["clean", "kept"])
    assert result.exit_code == 0
    assert "GB removed" in result.output
    assert kept(here) == []
    assert (here / "kept" / "mine.txt").exists()


def test_whatever_the_frozen_half_depends_on_gives_another_key():
    def key(*, backbone=None, views=None, dtype=torch.float32, stored=torch.float32, **model):
        config = Config(model=ModelConfig(freeze_stem=True, **model), views=views or ViewsConfig())
        method = make_method(backbone or random_backbone(layers=4), config)
        return describe_key(make_engine(method, config, Machine(torch.device("cpu"), dtype)), stored)

    def changed(block, by):
        backbone = random_backbone(layers=4)
        with torch.no_grad():
            backbone.visual.transformer.resblocks[block].mlp.c_fc.bias[3] += by
        return backbone

    smaller = random_backbone(layers=4)
    smaller.size = 64
    assert key() == key() == key(backbone=changed(2, by=1))  # what trains is not part of it
    keys = [
        key(),
        key(backbone=changed(1, by=1e-3)),
        key(backbone=smaller),
        key(views=ViewsConfig(antialias=True)),
        key(views=ViewsConfig(layout="cover")),
        key(views=ViewsConfig(layout="none")),
        key(dtype=torch.bfloat16),
        key(stored=torch.float16),
        key(frozen_blocks=0.25),
    ]
    assert len(set(keys)) == len(keys)
