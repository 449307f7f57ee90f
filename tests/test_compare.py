"""Why images differ: the parts add up to the scores' differences, and the comparison is drawn and told in words."""

import numpy as np
import pytest
import torch
from conftest import make_scorer
from PIL import Image
from typer.testing import CliRunner

from mgs import Scorer
from mgs.backbones.table import load_backbone
from mgs.cli import app
from mgs.config import Config, ViewsConfig
from mgs.methods.mgs import MGSOptions
from mgs.scoring.compare_explanations import Difference, Part, compare, names_of, tell
from mgs.scoring.draw_comparison import make_comparison_page, save_comparison
from mgs.scoring.draw_explanation import caption
from mgs.scoring.explanation import Explanation

PROMPT = "a red wall, with a door, under a tree"
PICTURES = [np.random.default_rng(i).integers(0, 60 + 90 * i, (520, 600 + 40 * i, 3), dtype=np.uint8) for i in range(3)]


def scorer_of(own_set, *, layout="grid", **options):
    options = MGSOptions(**{"temperature": "clip", **options})
    config = Config(options=options, views=ViewsConfig(layout=layout))
    dimensions = ["quality", "authenticity", "correspondence", "overall"]
    scorer = make_scorer(load_backbone(str(own_set / "clip.safetensors")), config, dimensions)
    with torch.no_grad():
        scorer.model.alpha.fill_(0.7)
        scorer.model.fusion.copy_(torch.tensor([0.1, -0.4, 0.9]))
    return scorer


def explained(scorer, prompt=PROMPT):
    return [scorer.explain(picture, prompt) for picture in PICTURES]


@pytest.mark.parametrize(
    ("prompt", "layout", "options"),
    [
        (PROMPT, "grid", {}),
        (PROMPT, "grid", {"templates": "separate"}),
        (PROMPT, "grid", {"templates": "swapped", "temperature": 1.0}),
        (PROMPT, "grid", {"correspondence": "fragments"}),
        (PROMPT, "cover", {}),
        (PROMPT, "none", {}),
        ("a wall", "grid", {}),
    ],
)
def test_the_parts_add_up_to_the_scores_differences(own_set, prompt, layout, options):
    scorer = scorer_of(own_set, layout=layout, **options)
    found = explained(scorer, prompt)
    comparison = compare(found, ["a", "b", "c"], scorer.model)
    for other, differences in zip(found[1:], comparison.differences, strict=True):
        assert [one.dimension for one in differences] == ["quality", "authenticity", "correspondence", "overall"]
        for one in differences:
            total = getattr(other.score, one.dimension) - getattr(found[0].score, one.dimension)
            assert one.total == total
            assert sum(part.difference for part in one.parts) == pytest.approx(total, abs=1e-5)
            assert abs(total) > 1e-4


def test_a_part_of_correspondence_is_what_its_own_change_makes(own_set):
    scorer = scorer_of(own_set)
    first, other, _ = explained(scorer)
    parts = compare([first, other], ["a", "b"], scorer.model).differences[0][2].parts
    assert [part.name for part in parts] == ["the whole prompt", "'a red wall'", "'with a door'", "'under a tree'"]
    share = 1 / (1 + np.exp(-0.7))
    assert parts[0].difference == pytest.approx(share * (other.whole - first.whole), abs=1e-6)
    before, after = (5 * one.fragments[1].weight * one.fragments[1].cosine for one in (first, other))
    assert parts[2].difference == pytest.approx((1 - share) * (after - before), abs=1e-6)


def test_a_view_that_did_not_change_has_no_part_in_a_level(own_set):
    scorer = scorer_of(own_set)
    first, other, _ = explained(scorer)
    mixed = other.level_cosines.clone()
    mixed[1:] = first.level_cosines[1:]
    mixed[5] = other.level_cosines[5]  # the patch in the middle
    other = Explanation(**{**vars(other), "level_cosines": mixed})
    for one in compare([first, other], ["a", "b"], scorer.model).differences[0][:2]:
        changed = {part.name: part.difference for part in one.parts if abs(part.difference) > 1e-9}
        assert set(changed) == {"the whole image", "the middle patch"}


def test_without_patches_the_whole_image_makes_all_of_a_level(own_set):
    scorer = scorer_of(own_set, layout="none")
    differences = compare(explained(scorer), ["a", "b", "c"], scorer.model).differences
    assert {part.name for one in differences for level in one[:2] for part in level.parts} == {"the whole image"}


def test_images_of_different_prompts_are_compared_without_parts_of_the_prompt(own_set, tmp_path):
    scorer = scorer_of(own_set)
    found = [scorer.explain(PICTURES[0], "a wall"), scorer.explain(PICTURES[1], PROMPT), scorer.explain(PICTURES[2])]
    comparison = compare(found, ["a.png", "b.png", "c.png"], scorer.model)
    assert [bool(one.parts) for one in comparison.differences[0]] == [True, True, False, False]
    assert [one.dimension for one in comparison.differences[1]] == ["quality", "authenticity"]
    assert comparison.sentences[2].endswith("; their prompts differ")
    save_comparison(comparison, tmp_path / "why.png")
    assert "no part has a counterpart" in make_comparison_page(comparison)


@pytest.mark.parametrize(
    ("total", "parts", "words"),
    [
        (0.4, (0.1, 0.3), "b is better than a in correspondence by 0.40, most of it from 'y'"),
        (-0.4, (-0.3, -0.1), "b is worse than a in correspondence by 0.40, most of it from 'x'"),
        (0.4, (-0.3, 0.7), "b is better than a in correspondence by 0.40, most of it from 'y'"),
        (0.001, (-0.3, 0.301), "b and a are alike in correspondence"),
        (0.4, (), "b is better than a in correspondence by 0.40; their prompts differ"),
    ],
)
def test_a_difference_in_words(total, parts, words):
    named = [Part(name, value) for name, value in zip(("'x'", "'y'"), parts, strict=False)]
    assert tell(Difference("correspondence", total, named), "b", "a") == words


def test_no_part_is_called_most_that_is_less_than_half():
    parts = [Part(name, 0.1) for name in "wxyz"]
    assert tell(Difference("quality", 0.4, parts), "b", "a").endswith("by 0.40, 0.10 of it from w")


@pytest.mark.parametrize("suffix", ["png", "html"])
def test_images_are_compared_by_command_whatever_they_are_called(own_set, tmp_path, suffix):
    names = ["<b>.png", "$x$.png", "c.png"]
    for name, picture in zip(names, PICTURES, strict=True):
        Image.fromarray(picture).save(tmp_path / name)
    out, prompt = tmp_path / f"why.{suffix}", '<script>alert("$x")</script>, a $5 wall'
    words = [
        "explain",
        *(tmp_path / name for name in names),
        "--prompt",
        prompt,
        "--clip",
        own_set / "clip.safetensors",
    ]
    result = CliRunner().invoke(app, [*map(str, words), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert out.stat().st_size > 20_000
    assert "$x$.png" in result.output
    assert "<b>.png in quality" in result.output
    if suffix == "html":
        page = out.read_text(encoding="utf-8")
        assert "<script" not in page
        assert "<b>" not in page


def test_files_of_one_name_are_called_by_their_paths(tmp_path):
    assert names_of([tmp_path / "a.png", tmp_path / "b.png"]) == ["a.png", "b.png"]
    assert names_of([tmp_path / "1" / "a.png", tmp_path / "2" / "a.png"])[1] == str(tmp_path / "2" / "a.png")


def test_a_tower_without_tokens_is_explained_without_maps(own_set, tmp_path, monkeypatch):
    scorer = Scorer.zero_shot(str(own_set / "clip.safetensors"))
    backbone = scorer.engine.backbone
    monkeypatch.setattr(backbone, "finish_with_tokens", lambda x, f=backbone.finish_with_tokens: (f(x)[0], None))
    found = [scorer.explain(picture, PROMPT) for picture in PICTURES[:2]]
    assert [one.maps for one in found] == [None, None]
    comparison = compare(found, ["a", "b"], scorer.model)
    save_comparison(comparison, tmp_path / "why.png")
    assert "no maps" in " ".join(caption(found[0]))
