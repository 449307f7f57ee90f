"""Checkpoints of the original project: read without running anything, with the two axes under their right names."""

import math
import operator
import os

import numpy as np
import oracle
import pytest
import torch
from conftest import random_clip, score_views
from typer.testing import CliRunner

from mgs import Scorer
from mgs.cli import app
from mgs.dimensions import Prompt
from mgs.errors import UserError
from mgs.training.checkpoint import read_metadata
from mgs.training.import_original import import_original

HEADS = {"alpha": torch.zeros(()), "mos_fusion": torch.zeros(3)}


def original(tmp_path, *, prefix="clip.", heads=None, **entries):
    """A file as the original project saves it."""
    clip = random_clip(size=32, width=64, layers=2, embed=32)
    state = {f"{prefix}{name}": value for name, value in clip.state_dict().items()}
    path = tmp_path / "original.pt"
    heads = HEADS if heads is None else heads
    torch.save({"model_state_dict": {**state, **heads}, **entries}, path)
    return clip, path


def softmax(numbers):
    return [math.exp(n) / sum(map(math.exp, numbers)) for n in numbers]


@pytest.mark.parametrize("prefix", ["", "clip.", "clip_model.", "module.model."])
def test_an_original_checkpoint_scores_as_it_did_with_its_axes_under_their_right_names(tmp_path, prefix):
    heads = {"alpha": torch.tensor(0.4), "mos_fusion": torch.tensor([1.5, -0.5, 0.2]), "head.weight": torch.zeros(3)}
    clip, path = original(tmp_path, prefix=prefix, heads=heads, fold=3, dataset="AGIQA1k")
    result = CliRunner().invoke(app, ["import-original", str(path), str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "not used: head.weight\n" in result.output
    scorer = Scorer.load(tmp_path / "out", device="cpu")
    assert scorer.scored == ("overall",)
    facts = read_metadata(tmp_path / "out" / "best.safetensors")
    assert (facts["dataset"], facts["fold"]) == ("AGIQA-1K", 3)
    views = torch.randn(1, 10, 3, 32, 32)
    plain = oracle.score(clip, views[0].numpy(), "a cat, on a mat", "keywords", alpha=0.4)
    its_quality, its_authenticity = plain["authenticity"], plain["quality"]  # the original's names for them
    shares = softmax([1.5, -0.5, 0.2])
    with torch.inference_mode():
        ours = score_views(scorer.model, views, [Prompt("a cat, on a mat", "keywords")])
    assert ours["quality"].item() == pytest.approx(its_quality, abs=1e-5)
    assert ours["authenticity"].item() == pytest.approx(its_authenticity, abs=1e-5)
    assert ours["correspondence"].item() == pytest.approx(plain["correspondence"], abs=1e-5)
    three = (its_quality, its_authenticity, plain["correspondence"])
    assert ours["overall"].item() == pytest.approx(sum(map(operator.mul, shares, three)), abs=1e-5)


def test_an_imported_checkpoint_is_explained_by_its_own_axes(tmp_path, own_set):
    _, path = original(tmp_path, dataset="AIGCIQA2023")
    import_original(path, tmp_path / "out")
    explanation = Scorer.load(tmp_path / "out", device="cpu").explain(own_set / "0.png", "a cat, on a mat")
    expected = np.array(explanation.joint).sum(1) @ [0, 1.25, 2.5, 3.75, 5]
    assert expected == pytest.approx(explanation.score.quality, abs=1e-5)


@pytest.mark.parametrize(
    ("entries", "asked", "became"),
    [
        ({"dataset": "AIGCIQA2023", "fold": "7"}, None, ("AIGCIQA2023", 7)),
        ({"dataset": "agiqa_3k", "fold": True}, "AGIQA-3K", ("AGIQA-3K", 0)),
        ({"fold": -1}, "AGIQA-3K", ("AGIQA-3K", 0)),
        ({}, "AGIQA-1K", ("AGIQA-1K", 0)),
    ],
)
def test_dataset_and_fold_are_what_the_file_says(tmp_path, entries, asked, became):
    _, path = original(tmp_path, **entries)
    import_original(path, tmp_path / "out", dataset=asked)
    facts = read_metadata(tmp_path / "out" / "best.safetensors")
    assert (facts["dataset"], facts["fold"]) == became


@pytest.mark.parametrize(
    ("asked", "options", "told"),
    [
        ("AGIQA-3K", {"dataset": "AGIQA-1K"}, "--dataset AGIQA-3K: .* trained on AGIQA-1K; leave the option out"),
        (None, {"dataset": "mine"}, "says that it was trained on mine; only AGIQA-1K, AGIQA-3K, AIGCIQA2023"),
        ("AGIQA-3K", {"dataset": "PKU-I2IQA"}, "says that it was trained on PKU-I2IQA; only"),
        (None, {}, "does not name its dataset; say it with --dataset"),
        ("custom", {}, "--dataset custom: not what the original trains on"),
        ("demo", {}, "--dataset demo: not what the original trains on"),
        ("AGIQA-1K", {"heads": {"alpha": torch.zeros(())}}, "no tensor called mos_fusion"),
        ("AGIQA-3K", {"heads": {}}, "no tensor called alpha"),
        (
            "AGIQA-1K",
            {"heads": HEADS | {"mos_fusion": torch.zeros(4)}},
            "mos_fusion holds 4 numbers, not 3",
        ),
    ],
)
def test_an_import_that_would_be_a_guess_is_refused(tmp_path, asked, options, told):
    _, path = original(tmp_path, **options)
    with pytest.raises(UserError, match=told):
        import_original(path, tmp_path / "out", dataset=asked)
    assert not (tmp_path / "out").exists()


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


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        import_original(tmp_path / "none.pt", tmp_path / "out", dataset="AGIQA-3K")
