import math

import numpy as np
import oracle
import pytest
import torch
from conftest import embed_views, encoder_of, random_backbone, random_clip, score_views

from mgs.backbones.clip import CLIPBackbone
from mgs.config import Config, ModelConfig
from mgs.config_files import load_config
from mgs.dimensions import Prompt
from mgs.engine.engine import pad_columns
from mgs.images.cuts import Cuts, cut_views
from mgs.methods.method import find_truncated
from mgs.methods.mgs import MGS, MGSOptions
from mgs.methods.table import choose_cuts, make_method
from mgs.methods.templates import sentences

PROMPTS = [
    Prompt("cat, driving car, wild, anime style", "keywords"),
    Prompt("a cat", "keywords"),
    Prompt("a river in a forest: painted by J.R.R. Tolkien, close-up, baroque style", "hybrid"),
    Prompt("statue", "hybrid"),
    Prompt('"A red bus next to a head-on sign. It was shot with a 4.5mm lens"', "sentence"),
    Prompt('"a bench"', "sentence"),
    Prompt("On a hill, without trees", "sentence"),
    Prompt("word " * 100 + "in the end", "sentence"),
]


def random_pictures(count, *, height=530, width=600):
    # Blocks of colour, so that neighbouring patches and pictures differ in what CLIP can see.
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (count, 9, 10, 3), dtype=np.uint8)
    return coarse.repeat(-(-height // 9), 1).repeat(-(-width // 10), 2)[:, :height, :width]


def cut(pictures, backbone, cuts=Cuts()):  # noqa: B008 - which is frozen
    images = torch.from_numpy(pictures.copy()).permute(0, 3, 1, 2)
    return cut_views(images, cuts, backbone.size, backbone.mean, backbone.std)


def method_of(clip, **options):
    """MGS on a CLIP, of which nothing is frozen."""
    return MGS(CLIPBackbone(clip, "test"), MGSOptions(**options))


def score(model, pictures, prompts, cuts=Cuts()):  # noqa: B008
    with torch.no_grad():
        return score_views(model, cut(pictures, model.backbone, cuts), prompts)


def test_views_equal_the_oracles_pixel_by_pixel():
    pictures = random_pictures(1, height=531, width=700)
    (picture,), (ours,) = pictures, cut(pictures, random_backbone(size=64, layers=1))
    assert ours.shape == (10, 3, 64, 64)
    np.testing.assert_allclose(ours.numpy(), np.stack(oracle.views_of(picture, 64)), atol=1e-5)


def test_model_equals_the_oracle_for_every_style_with_one_fragment_and_many(small_clip):
    pictures = random_pictures(len(PROMPTS))
    model = method_of(small_clip)
    ours = score(model, pictures, PROMPTS)
    spread = set()
    for i, (picture, prompt) in enumerate(zip(pictures, PROMPTS, strict=True)):
        truth = oracle.score(small_clip, oracle.views_of(picture, 96), prompt.text, prompt.style)
        for dimension, value in truth.items():
            assert ours[dimension][i].item() == pytest.approx(value, abs=1e-5), (prompt, dimension)
        spread.add(round(truth["correspondence"], 3))
    assert len(spread) == len(PROMPTS)  # pictures and prompts that all score alike would prove nothing


def test_model_equals_the_oracle_with_learned_values_away_from_their_start(small_clip):
    model = method_of(small_clip, temperature=20.0)
    with torch.no_grad():
        model.alpha.fill_(-1.3)
        model.fusion.copy_(torch.tensor([0.5, -1.0, 2.0]))
    pictures = random_pictures(3)
    ours = score(model, pictures, PROMPTS[:3])
    for i, (picture, prompt) in enumerate(zip(pictures, PROMPTS, strict=False)):
        views = oracle.views_of(picture, 96)
        truth = oracle.score(
            small_clip, views, prompt.text, prompt.style, alpha=-1.3, temperature=20, weights=(0.5, -1, 2)
        )
        for dimension, value in truth.items():
            assert ours[dimension][i].item() == pytest.approx(value, abs=1e-5)


def test_a_score_does_not_depend_on_the_batch_around_it(small_clip):
    model = method_of(small_clip)
    pictures = random_pictures(4)
    together = score(model, pictures, PROMPTS[:4])
    for i in range(4):
        alone = score(model, pictures[i : i + 1], PROMPTS[i : i + 1])
        for dimension, values in alone.items():
            assert values.item() == pytest.approx(together[dimension][i].item(), abs=1e-5)


def test_rows_and_columns_that_only_fill_up_a_shape_change_no_score(small_clip):
    model = method_of(small_clip)
    views = torch.randn(len(PROMPTS), 10, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        images, reading = embed_views(model.backbone, views), model.read(PROMPTS)
        texts = encoder_of(model.backbone)(reading.texts)
        scores = model.score(images, texts, reading.numbers)
        more = torch.cat([texts, torch.randn(7, texts.shape[1])])
        wider = model.score(images, more, {name: pad_columns(value) for name, value in reading.numbers.items()})
    assert reading.numbers["fragments"].shape[1] % 8 != 0
    for dimension, values in scores.items():
        torch.testing.assert_close(wider[dimension], values, atol=1e-6, rtol=0)


def test_what_is_read_of_prompts_names_each_text_once_and_every_texts_row(small_clip):
    reading = method_of(small_clip).read(PROMPTS)
    assert len(set(reading.texts)) == len(reading.texts)
    assert reading.texts[:25] == sentences("joint")
    for i, prompt in enumerate(PROMPTS):
        whole, fragments = oracle.fragments_of(prompt.text, prompt.style)
        assert reading.texts[reading.numbers["whole"][i]] == whole
        assert reading.numbers["counts"][i] == len(fragments)
        assert [reading.texts[row] for row in reading.numbers["fragments"][i, : len(fragments)]] == fragments


def test_the_paper_temperature_keeps_quality_within_its_narrow_band(small_clip):
    # Cosines lie in [-1, 1], so softmax(1 * s) can move the expected level only from 1.1 to 3.9 or so.
    weight = [math.exp(1), math.exp(1), math.exp(-1), math.exp(-1), math.exp(-1)]
    lowest = sum(w * level for w, level in zip(weight, oracle.LEVEL, strict=True)) / sum(weight)
    scores = score(method_of(small_clip), random_pictures(2), PROMPTS[:2])
    assert 1.0 < lowest < 1.3
    assert all(lowest <= q <= 5 - lowest for q in scores["quality"])


class TestAblations:
    def run(self, clip, **options):
        return score(method_of(clip, **options), random_pictures(2), PROMPTS[:2])

    def test_whole_prompt_alone_is_five_times_its_cosine_with_the_image(self, small_clip):
        ours = self.run(small_clip, correspondence="whole")
        for i, picture in enumerate(random_pictures(2)):
            image = oracle.image_vector(small_clip, oracle.views_of(picture, 96)[0])
            truth = 5 * image @ oracle.text_vector(small_clip, PROMPTS[i].text)
            assert ours["correspondence"][i].item() == pytest.approx(truth, abs=1e-5)

    def test_fragments_alone_leave_the_whole_prompt_only_its_weights(self, small_clip):
        ours = self.run(small_clip, correspondence="fragments")
        for i, picture in enumerate(random_pictures(2)):
            views = oracle.views_of(picture, 96)
            patches = [oracle.image_vector(small_clip, view) for view in views[1:]]
            text, fragments = oracle.fragments_of(PROMPTS[i].text, PROMPTS[i].style)
            vectors = [oracle.text_vector(small_clip, fragment) for fragment in fragments]
            shares = oracle.softmax([v @ oracle.text_vector(small_clip, text) for v in vectors])
            best = [sum(sorted((p @ v for p in patches), reverse=True)[:3]) / 3 for v in vectors]
            truth = 5 * sum(share * value for share, value in zip(shares, best, strict=True))
            assert ours["correspondence"][i].item() == pytest.approx(truth, abs=1e-5)

    def test_without_patches_the_whole_image_answers_both_branches(self, small_clip):
        cuts = choose_cuts("mgs", load_config(None, ["name=x", "views.layout=none"]).views)
        ours = score(method_of(small_clip), random_pictures(2), PROMPTS[:2], cuts)
        for i, picture in enumerate(random_pictures(2)):
            whole = oracle.views_of(picture, 96)[0]
            truth = oracle.score(small_clip, [whole] * 10, PROMPTS[i].text, PROMPTS[i].style)
            assert ours["quality"][i].item() == pytest.approx(truth["quality"], abs=1e-5)
            assert ours["correspondence"][i].item() == pytest.approx(truth["correspondence"], abs=1e-5)

    def test_separate_templates_score_each_word_list_by_itself(self, small_clip):
        ours = self.run(small_clip, templates="separate")
        for i, picture in enumerate(random_pictures(2)):
            whole, *patches = [oracle.image_vector(small_clip, view) for view in oracle.views_of(picture, 96)]
            lists = {
                "quality": [f"A photo of {q} quality." for q in oracle.QUALITY],
                "authenticity": [f"A photo that appears {r}." for r in oracle.REALISM],
            }
            for dimension, level_sentences in lists.items():
                texts = [oracle.text_vector(small_clip, sentence) for sentence in level_sentences]
                similarity = [(whole @ t + sum(p @ t for p in patches) / 9) / 2 for t in texts]
                shares = oracle.softmax(similarity)
                truth = sum(level * share for level, share in zip(oracle.LEVEL, shares, strict=True))
                assert ours[dimension][i].item() == pytest.approx(truth, abs=1e-5)

    def test_clips_own_temperature_multiplies_the_similarities(self, small_clip):
        ours = self.run(small_clip, temperature="clip")
        views = oracle.views_of(random_pictures(2)[0], 96)
        temperature = small_clip.logit_scale.exp().item()
        truth = oracle.score(small_clip, views, PROMPTS[0].text, PROMPTS[0].style, temperature=temperature)
        assert ours["quality"][0].item() == pytest.approx(truth["quality"], abs=1e-5)

    def test_learned_temperature_starts_at_one_and_trains(self, small_clip):
        model = method_of(small_clip, temperature="learned")
        assert model.temperature.item() == 1
        assert model.log_temperature.requires_grad
        assert not method_of(small_clip).log_temperature.requires_grad


@pytest.mark.parametrize(("share", "frozen"), [(0, 0), (0.25, 1), (0.5, 2), (0.75, 3), (1, 4)])
def test_the_first_blocks_of_both_towers_freeze_and_the_rest_trains(share, frozen):
    clip = random_clip(layers=4, text_layers=4)
    model = make_method(CLIPBackbone(clip, "test"), Config(model=ModelConfig(frozen_blocks=share)))
    for tower in (clip.visual.transformer, clip.transformer):
        for i, block in enumerate(tower.resblocks):
            assert {p.requires_grad for p in block.parameters()} == {i >= frozen}
    others = {n: p.requires_grad for n, p in model.named_parameters() if "resblocks" not in n}
    still = {name for name, trains in others.items() if not trains}
    assert still == {"backbone.logit_scale", "log_temperature"}


def test_a_frozen_stem_leaves_nothing_trainable_below_the_frozen_blocks():
    model = make_method(random_backbone(layers=2), Config(model=ModelConfig(freeze_stem=True)))
    still = {n for n, p in model.named_parameters() if not p.requires_grad and "resblocks" not in n}
    assert still == {
        "backbone.logit_scale",
        "log_temperature",
        "backbone.positional_embedding",
        "backbone.token_embedding.weight",
        *(f"backbone.visual.{n}" for n in ("class_embedding", "positional_embedding", "conv1.weight")),
        *(f"backbone.visual.ln_pre.{n}" for n in ("weight", "bias")),
    }


def test_long_text_is_cut_with_its_end_token_kept_and_is_reported():
    long = "word " * 100
    method = method_of(random_clip(layers=1, text_layers=1))
    numbers = method.backbone.tokenize(long)
    assert len(numbers) == 77
    assert numbers[-1] == max(numbers)  # the end token has the highest number, and CLIP reads the text off there
    assert numbers[1:-1] == method.backbone.tokenize("word")[1:-1] * 75
    prompts = [Prompt("short"), Prompt("word " * 75), Prompt(long)]
    assert find_truncated(method, prompts) == [long.strip()]
    assert find_truncated(method_of(random_clip(layers=1, text_layers=1, context=248)), prompts) == []


def test_gradients_reach_every_trainable_parameter(small_clip):
    config = Config(model=ModelConfig(frozen_blocks=0), options=MGSOptions(temperature="learned"))
    model = make_method(CLIPBackbone(small_clip, "test"), config)
    views = cut(random_pictures(2), model.backbone)
    score_views(model, views, PROMPTS[:2])["overall"].sum().backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    # One-image biases aside, whatever trains must be moved by the loss; keys' biases cancel in the softmax.
    assert not [name for name in without if "in_proj_bias" not in name]
