"""Checkpoints of the original project: read without running anything, with the two axes under their right names."""

import os

import pytest
import torch
from conftest import random_clip
from typer.testing import CliRunner

from mgs import Scorer
from mgs.cli import app
from mgs.config import ModelConfig
from mgs.errors import UserError
from mgs.model.fragments import Prompt
from mgs.model.mgs import MGS
from mgs.training.foreign import import_original


def original(tmp_path, *, prefix="clip_model.", more=None):
    """A file as the original project saves it."""
    clip = random_clip(size=32, width=64, layers=2, embed=32)
    state = {f"{prefix}{name}": value for name, value in clip.state_dict().items()}
    path = tmp_path / "original.pt"
    torch.save({"model_state_dict": {**state, **(more or {})}, "epoch": 3, "best": 0.9}, path)
    return clip, path


@pytest.mark.parametrize("prefix", ["", "clip_model.", "module.model."])
def test_an_original_checkpoint_scores_with_its_axes_put_right(tmp_path, own_set, prefix):
    clip, path = original(tmp_path, prefix=prefix, more={"alpha": torch.tensor([0.4]), "head.weight": torch.zeros(3)})
    result = CliRunner().invoke(app, ["import-original", str(path), str(tmp_path / "out"), "--dataset", "AIGCIQA2023"])
    assert result.exit_code == 0, result.output
    assert "not used: head.weight" in result.output
    scorer = Scorer.load(tmp_path / "out", device="cpu")
    assert scorer.scored == ("quality", "authenticity", "correspondence")
    assert scorer.model.alpha.item() == pytest.approx(0.4)
    plain = MGS(clip, ModelConfig()).eval()
    plain.alpha.data.fill_(0.4)
    views = torch.randn(2, 10, 3, 32, 32)
    prompts = [Prompt("a cat, on a mat"), Prompt("a dog")]
    with torch.inference_mode():
        ours, theirs = scorer.model(views, prompts), plain(views, prompts)
    torch.testing.assert_close(ours.quality, theirs.authenticity)
    torch.testing.assert_close(ours.authenticity, theirs.quality)
    torch.testing.assert_close(ours.correspondence, theirs.correspondence)
    explanation = scorer.explain(own_set / "0.png", "a cat, on a mat")
    assert explanation.quality == pytest.approx(explanation.score.quality, abs=1e-5)


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (Harmful(), "could run code"),
        ({"model_state_dict": {"visual.conv1.weight": Harmful()}}, "could run code"),
        ({"model_state_dict": [1, 2]}, "no dict of tensors"),
        ({"model_state_dict": {"a": torch.zeros(1)}}, "0 tensors called"),
        ({"model_state_dict": {"visual.conv1.weight": torch.zeros(64, 3, 16, 16)}}, "no tensor|do not make up"),
    ],
)
def test_what_is_no_such_checkpoint_is_refused_and_nothing_is_run(tmp_path, monkeypatch, content, told):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "bad.pt")
    with pytest.raises(UserError, match=told):
        import_original(tmp_path / "bad.pt", tmp_path / "out", dataset="AGIQA-3K")
    assert not (tmp_path / "harmed").exists()
    assert not (tmp_path / "out").exists()


def test_missing_files_and_datasets_without_dimensions_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        import_original(tmp_path / "none.pt", tmp_path / "out", dataset="AGIQA-3K")
    with pytest.raises(UserError, match="name the dataset"):
        import_original(tmp_path / "none.pt", tmp_path / "out", dataset="custom")
