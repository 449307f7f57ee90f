"""Checkpoints in the format of older versions: read as they are, with the scores that their weights give today."""

import json

import numpy as np
import pytest
import torch
from conftest import random_clip
from safetensors import safe_open
from safetensors.torch import save_file

from mgs import Scorer
from mgs.backbones.clip import CLIPBackbone
from mgs.config import Config, ModelConfig, ViewsConfig
from mgs.config_files import fill_views
from mgs.dimensions import DIMENSIONS
from mgs.errors import UserError
from mgs.methods.mgs import MGSOptions
from mgs.methods.table import make_method
from mgs.training.checkpoint import save_checkpoint


def read_checkpoint(path):
    """A checkpoint's tensors and its metadata."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        return tensors, json.loads(file.metadata()["mgs"])


def write_checkpoint(path, tensors, metadata):
    save_file(tensors, path, metadata={"mgs": json.dumps(metadata)})
    return path


def age(path, old):
    """Write a checkpoint as versions before 2 did: other names for tensors, and options in other sections."""
    tensors, metadata = read_checkpoint(path)
    config = metadata["config"]
    del config["method"], metadata["cuts"], metadata["scale"], metadata["backbone"]["mean"], metadata["backbone"]["std"]
    config["model"] |= config.pop("options")
    config["model"]["patches"] = config["views"]["layout"] != "none"
    if not config["model"]["patches"]:
        config["views"]["layout"] = "grid"
    tensors = {
        f"clip.{name.removeprefix('backbone.')}" if name.startswith("backbone.") else name: tensor
        for name, tensor in tensors.items()
    }
    return write_checkpoint(old, tensors, {**metadata, "format": "mgs-1"})


def save(path, **sections):
    """A checkpoint of random weights with these sections of its config."""
    config = Config(name="test", **sections)
    fill_views(config)
    method = make_method(CLIPBackbone(random_clip(size=32, width=64, layers=2, embed=32), "test"), config)
    with torch.no_grad():
        method.alpha.fill_(0.3)
        method.fusion.copy_(torch.tensor([1, -0.5, 0.2]))
        if config.options and config.options.temperature == "learned":
            method.log_temperature.fill_(1.1)
    save_checkpoint(path, method, config, {"val": {dimension: {} for dimension in DIMENSIONS}})
    return path


CASES = {
    "defaults": {"options": MGSOptions()},
    "without patches": {"options": MGSOptions(temperature="learned"), "views": ViewsConfig(layout="none")},
    "ablated": {
        "options": MGSOptions(templates="separate", correspondence="fragments", temperature=7.5),
        "views": ViewsConfig(layout="cover", antialias=True),
        "model": ModelConfig(frozen_blocks=0),
    },
    "imported": {
        "options": MGSOptions(templates="swapped", temperature="clip"),
        "model": ModelConfig(freeze_stem=True),
    },
}


@pytest.mark.parametrize("case", CASES)
def test_an_old_checkpoint_scores_as_the_same_weights_do_today(tmp_path, case):
    new = save(tmp_path / "new.safetensors", **CASES[case])
    old = age(new, tmp_path / "old.safetensors")
    picture = np.random.default_rng(0).integers(0, 256, (600, 1300, 3), dtype=np.uint8)
    scorers = [Scorer.load(path, device="cpu") for path in (new, old)]
    scores = [scorer.score(picture, "a cat, on a mat: red, under a tree") for scorer in scorers]
    assert scores[0] == scores[1]
    assert scores[0].overall is not None
    assert scorers[0].engine.cuts == scorers[1].engine.cuts
    assert scorers[0].model.options == scorers[1].model.options == CASES[case]["options"]


def test_an_old_checkpoint_has_none_of_the_new_names(tmp_path):
    new = save(tmp_path / "new.safetensors", **CASES["without patches"])
    tensors, metadata = read_checkpoint(age(new, tmp_path / "old.safetensors"))
    assert {name.partition(".")[0] for name in tensors} == {"alpha", "fusion", "log_temperature", "clip"}
    assert metadata["format"] == "mgs-1"
    assert set(metadata["config"]).isdisjoint({"method", "options"})
    assert metadata["config"]["model"].keys() >= {"templates", "correspondence", "temperature", "patches"}
    assert metadata["config"]["views"] == {"layout": "grid", "antialias": False}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors, facts: facts.update(format="mgs-3"), "in format mgs-3, this version reads mgs-2"),
        (lambda tensors, facts: facts.update(format="mgs-2"), "no tensor|do not fit|do not make up|not an MGS"),
        (lambda tensors, facts: tensors.update(head=torch.zeros(1)), "do not fit its config: head"),
        (lambda tensors, facts: tensors.pop("fusion"), "do not fit its config: fusion"),
        (lambda tensors, facts: facts["config"]["model"].update(temperature=-1), "options.temperature"),
        (lambda tensors, facts: facts["config"]["model"].update(templates="x"), "templates"),
        (lambda tensors, facts: facts["config"]["model"].update(patches="maybe"), "patches"),
    ],
)
def test_a_damaged_old_checkpoint_is_refused(tmp_path, change, told):
    old = age(save(tmp_path / "new.safetensors", options=MGSOptions()), tmp_path / "old.safetensors")
    tensors, facts = read_checkpoint(old)
    change(tensors, facts)
    write_checkpoint(old, tensors, facts)
    with pytest.raises(UserError, match=told) as caught:
        Scorer.load(old, device="cpu")
    assert str(old) in str(caught.value)


@pytest.mark.parametrize(("fact", "value"), [("scale", [1, 5]), ("cuts", {"windows": "grid", "side": 224})])
def test_a_checkpoint_of_other_cuts_or_scale_than_its_method_has_now_is_refused(tmp_path, fact, value):
    tensors, metadata = read_checkpoint(save(tmp_path / "c.safetensors"))
    write_checkpoint(tmp_path / "c.safetensors", tensors, {**metadata, fact: value})
    with pytest.raises(UserError, match=f"trained with another {fact}; score with mgs"):
        Scorer.load(tmp_path / "c.safetensors")


def test_a_backbone_of_other_pixel_statistics_keeps_them(tmp_path):
    config = Config(name="test")
    method = make_method(CLIPBackbone(random_clip(size=32, width=64, layers=2, embed=32), "test"), config)
    method.backbone.mean.fill_(0.5)
    method.backbone.std.fill_(0.25)
    save_checkpoint(tmp_path / "c.safetensors", method, config, {"val": {"quality": {}}})
    backbone = Scorer.load(tmp_path / "c.safetensors", device="cpu").model.backbone
    assert (backbone.mean.flatten().tolist(), backbone.std.flatten().tolist()) == ([0.5] * 3, [0.25] * 3)
