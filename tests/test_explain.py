"""Explanations: the parts add up to the score, and the pictures and pages can be made for any prompt."""

import errno
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_scorer
from typer.testing import CliRunner

from mgs import Scorer
from mgs.backbones.clip import CLIPBackbone
from mgs.backbones.table import load_backbone
from mgs.cli import app
from mgs.config import Config, ViewsConfig
from mgs.errors import UserError
from mgs.methods.mgs import MGS, MGSOptions
from mgs.methods.templates import AUTHENTICITY_WORDS, QUALITY_WORDS
from mgs.scoring import scorer as scorer_module
from mgs.scoring.draw_explanation import draw_explanation, heatmap, make_page, save_explanation, sums


@pytest.fixture(scope="module")
def scorer(own_set):
    scorer = Scorer.zero_shot(str(own_set / "clip.safetensors"))
    with torch.no_grad():
        scorer.model.alpha.fill_(0.7)
    return scorer


def grey_picture():
    return np.random.default_rng(0).integers(0, 256, (600, 700, 3), dtype=np.uint8)


PROMPTS = ["a wall", "a red wall, with a door, under a tree", '"a cat, on a sofa"']


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_parts_add_up_to_the_scores(scorer, prompt):
    explanation = scorer.explain(grey_picture(), prompt)
    assert explanation.score == scorer.score(grey_picture(), prompt)
    assert explanation.correspondence == pytest.approx(explanation.score.correspondence, abs=1e-5)
    joint = np.array(explanation.joint)
    assert joint.sum() == pytest.approx(1, abs=1e-6)
    levels = np.array([0, 1.25, 2.5, 3.75, 5])
    assert joint.sum(1) @ levels == pytest.approx(explanation.score.quality, abs=1e-5)
    assert joint.sum(0) @ levels == pytest.approx(explanation.score.authenticity, abs=1e-5)
    assert sum(fragment.weight for fragment in explanation.fragments) == pytest.approx(1, abs=1e-6)


def test_an_image_is_decoded_and_encoded_once(scorer, own_set, monkeypatch):
    calls = []
    for owner, name in ((scorer_module, "load_image"), (CLIPBackbone, "start_images"), (MGS, "compare")):
        function = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, f=function, n=name, **k: calls.append(n) or f(*a, **k))
    scorer.explain(own_set / "0.png", "a wall")
    assert calls == ["load_image", "start_images", "compare"]


def test_a_picture_that_cannot_be_written_whole_is_not_there(scorer, tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    explanation = scorer.explain(grey_picture(), "a wall")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save_explanation(explanation, tmp_path / "why.svg")
    assert not list(tmp_path.iterdir())


def test_fragments_are_scored_on_the_three_patches_that_show_them_best(scorer):
    explanation = scorer.explain(grey_picture(), PROMPTS[1])
    assert [fragment.text for fragment in explanation.fragments] == ["a red wall", "with a door", "under a tree"]
    assert len(explanation.boxes) == 9
    for fragment in explanation.fragments:
        best = np.sort(fragment.patches)[::-1][:3]
        assert fragment.cosine == pytest.approx(best.mean(), abs=1e-6)
        assert sorted(fragment.patches[i] for i in fragment.counted) == pytest.approx(sorted(best))


def test_a_prompt_of_one_fragment_is_all_whole_prompt(scorer):
    explanation = scorer.explain(grey_picture(), PROMPTS[0])
    assert explanation.whole_share == 1
    assert scorer.explain(grey_picture(), PROMPTS[1]).whole_share == pytest.approx(1 / (1 + np.exp(-0.7)))


def test_a_patch_score_is_what_an_image_of_such_patches_would_get(scorer, monkeypatch):
    explanation = scorer.explain(grey_picture(), "a wall")
    compare = MGS.compare

    def all_alike(self, *embedded):
        found = compare(self, *embedded)
        found.levels_patches = found.levels_patches[:, 4:5].expand_as(found.levels_patches)
        return found

    monkeypatch.setattr(MGS, "compare", all_alike)
    assert scorer.score(grey_picture(), "a wall").quality == pytest.approx(explanation.patch_quality[4], abs=1e-5)
    assert explanation.patch_quality[4] != pytest.approx(explanation.score.quality, abs=1e-6)


def test_without_patches_the_whole_image_is_the_one_patch(own_set, tmp_path):
    backbone = load_backbone(str(own_set / "clip.safetensors"))
    scorer = make_scorer(backbone, Config(views=ViewsConfig(layout="none")), ["quality"])
    explanation = scorer.explain(grey_picture(), "a wall, with a door")
    assert len(explanation.boxes) == len(explanation.patch_quality) == len(explanation.fragments[0].patches) == 1
    assert explanation.patch_quality[0] == pytest.approx(explanation.score.quality, abs=1e-5)
    heat = heatmap(explanation.fragments[0].patches, explanation.boxes, (600, 700))
    assert np.unique(heat).size == 1
    save_explanation(explanation, tmp_path / "why.png")


@pytest.mark.parametrize(
    ("scored", "levels"),
    [
        (["quality"], ["quality"]),
        (["authenticity", "correspondence"], ["authenticity"]),
        (["correspondence"], []),
        (["overall"], ["quality", "authenticity"]),
    ],
)
def test_no_more_is_told_than_the_scores_are_made_of(own_set, scored, levels):
    backbone = load_backbone(str(own_set / "clip.safetensors"))
    scorer = make_scorer(backbone, Config(options=MGSOptions(temperature="clip")), scored)
    explanation = scorer.explain(grey_picture(), PROMPTS[1])
    titles = " ".join(axes.get_title() for axes in draw_explanation(explanation).axes)
    page = make_page(explanation)
    prompt_is_told = scored != ["quality"]
    assert [f"{name}, if all" in titles for name in ("quality", "authenticity")] == [
        name in levels for name in ("quality", "authenticity")
    ]
    assert ("a red wall" in titles) == ("<h2>Correspondence</h2>" in page) == prompt_is_told
    assert ("probability" in titles) == ("<h2>Patches</h2>" in page) == bool(levels)
    assert re.findall(r"(quality|authenticity)</th>", page.partition("<h2>Patches</h2>")[2].lower()) == levels
    assert bool(re.search(r"overall -?[\d.]+ = ", page)) == (scored == ["overall"])


def test_overall_is_told_as_the_sum_that_makes_it(own_set):
    scorer = make_scorer(load_backbone(str(own_set / "clip.safetensors")), Config(), ["overall"])
    with torch.no_grad():
        scorer.model.fusion.copy_(torch.tensor([0.1, -0.4, 0.9]))
    explanation = scorer.explain(grey_picture(), PROMPTS[1])
    total, *terms = map(float, re.findall(r"-?\d+\.\d+", sums(explanation)[-1]))
    assert total == pytest.approx(explanation.score.overall, abs=0.005)
    assert sum(share * part for share, part in zip(terms[::2], terms[1::2], strict=True)) == pytest.approx(
        total, abs=0.03
    )


def test_without_a_prompt_there_are_no_fragments(scorer, tmp_path):
    explanation = scorer.explain(grey_picture())
    assert explanation.fragments == []
    assert explanation.score.correspondence is None
    save_explanation(explanation, tmp_path / "why.html")
    assert "No prompt was given" in (tmp_path / "why.html").read_text(encoding="utf-8")


def test_a_heatmap_is_the_mean_of_the_patches_over_each_pixel():
    heat = heatmap([1.0, 3.0], [(0, 0, 384), (0, 100, 384)], (400, 500))
    assert heat[10, 10] == 1
    assert heat[10, 200] == 2
    assert heat[10, 400] == 3
    assert np.isnan(heat[390, 10])


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg", "html"])
def test_an_explanation_is_saved_by_command_with_hostile_prompts(own_set, tmp_path, suffix):
    out = tmp_path / f"why.{suffix}"
    prompt = '<script>alert("$x")</script>, a $5 wall_1, ' + "very " * 60 + "long, with 猫"
    words = ["explain", own_set / "0.png", "--prompt", prompt, "--zero-shot", "--clip", own_set / "clip.safetensors"]
    result = CliRunner().invoke(app, [*map(str, words), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert out.stat().st_size > 5000
    if suffix == "html":
        page = out.read_text(encoding="utf-8")
        assert "<script" not in page
        assert all(word in page for word in (*QUALITY_WORDS, *AUTHENTICITY_WORDS))


def test_a_wrong_kind_of_picture_is_refused(scorer, tmp_path):
    with pytest.raises(UserError, match=r"why.txt: no such kind of picture; end its name in .png"):
        save_explanation(scorer.explain(grey_picture(), "x"), tmp_path / "why.txt")
    with pytest.raises(UserError, match="no such file"):
        scorer.explain(tmp_path / "none.png", "x")
