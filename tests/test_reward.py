"""MGS as a reward: the scorer's own numbers, whatever form a trainer's images have."""

import asyncio
import math
import re
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from serving import serving

from mgs import Reward
from mgs.errors import UserError
from mgs.scoring.scorer import Scorer

PAGE = Path(__file__).parents[1] / "docs" / "reward.md"
PROMPTS = ["a grey wall", "a red fox", "a wall of bricks", "nothing"]
MIX = {"quality": 1.0, "correspondence": 3.0}


@pytest.fixture(scope="module")
def scorer(own_set):
    return Scorer.zero_shot(str(own_set / "clip.safetensors"), device="cpu")


@pytest.fixture(scope="module")
def pixels():
    """uint8, (N, H, W, C)."""
    return np.random.default_rng(0).integers(0, 256, (4, 40, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(scorer, pixels):
    """By the scorer itself, on Pillow images, in plain arithmetic."""
    table = scorer.score_many([Image.fromarray(one) for one in pixels], PROMPTS)
    return [(q + 3 * c) / 4 / 5 for q, c in zip(table["quality"], table["correspondence"], strict=True)]


def test_every_form_of_images_gives_the_scorers_mix(scorer, pixels, expected, tmp_path):
    floats = torch.from_numpy(pixels).float() / 255
    for i, one in enumerate(pixels):
        Image.fromarray(one).save(tmp_path / f"{i}.png")
    files = [tmp_path / f"{i}.png" for i in range(4)]
    forms = {
        "Pillow": [Image.fromarray(one) for one in pixels],
        "arrays": list(pixels),
        "NHWC array": pixels,
        "NCHW array": pixels.transpose(0, 3, 1, 2),
        "NHWC tensor": torch.from_numpy(pixels),
        "NCHW tensor": torch.from_numpy(pixels).permute(0, 3, 1, 2),
        "NCHW floats with gradients": floats.permute(0, 3, 1, 2).requires_grad_(),
        "NHWC floats": floats,
        "NCHW doubles": floats.permute(0, 3, 1, 2).double(),
        "files": files,
        "contents": [file.read_bytes() for file in files],
    }
    reward = Reward(scorer, MIX)
    for name, images in forms.items():
        found = reward(images, PROMPTS, metadata=[{}] * 4)
        assert {type(value) for value in found} == {float}, name
        assert found == pytest.approx(expected, abs=1e-6), name


def test_each_dimension_is_on_0_to_1_and_all_count_alike_by_default(scorer, pixels):
    scores = Reward(scorer).score(list(pixels), PROMPTS)
    assert list(scores) == list(scorer.scored)
    table = scorer.score_many(list(pixels), PROMPTS)
    for name, values in scores.items():
        np.testing.assert_allclose(values, table[name] / 5, atol=1e-6)
    np.testing.assert_allclose(Reward(scorer)(list(pixels), PROMPTS), np.mean(list(scores.values()), axis=0), atol=1e-9)


def test_standardized_dimensions_have_mean_0_and_deviation_1_before_they_are_mixed(scorer, pixels):
    scores = Reward(scorer, MIX).score(list(pixels), PROMPTS)
    alike = [(np.array(values) - np.mean(values)) / np.std(values) for values in scores.values()]
    found = Reward(scorer, MIX, standardize=True)(list(pixels), PROMPTS)
    np.testing.assert_allclose(found, (alike[0] + 3 * alike[1]) / 4, atol=1e-6)
    assert Reward(scorer, MIX, standardize=True)(list(pixels[:1]), PROMPTS[:1]) == [0.0]


def test_a_bad_image_is_an_error_or_nan_and_the_others_keep_their_rewards(scorer, pixels, expected):
    images = [*pixels[:3], np.full((40, 48, 3), np.nan, dtype=np.float32)]
    with pytest.raises(ValueError, match=r"image 3, and 0 others of 4: error: the image: float pixels"):
        Reward(scorer, MIX)(images, PROMPTS)
    for standardize in (False, True):
        found = Reward(scorer, MIX, on_bad="nan", standardize=standardize)(images, PROMPTS)
        assert [math.isnan(value) for value in found] == [False, False, False, True]
    assert Reward(scorer, MIX, on_bad="nan")(images, PROMPTS)[:3] == pytest.approx(expected[:3], abs=1e-6)


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ({"beauty": 1}, "weights beauty: .* gives quality, authenticity, correspondence"),
        ({}, "give positive numbers"),
        ({"quality": -1.0}, "give positive numbers"),
        ({"quality": math.nan}, "give positive numbers"),
        ({"quality": 1e308, "correspondence": 1e308}, "give positive numbers"),
    ],
)
def test_a_mix_that_is_none_is_refused(scorer, weights, told):
    with pytest.raises(UserError, match=told):
        Reward(scorer, weights)


def test_prompts_and_shapes_that_do_not_fit_are_refused(scorer, pixels):
    reward = Reward(scorer, MIX)
    with pytest.raises(ValueError, match="3 prompt"):
        reward(list(pixels), PROMPTS[:3])
    for prompts in (None, [*PROMPTS[:3], " "]):
        with pytest.raises(ValueError, match="correspondence: judged against a prompt"):
            reward(list(pixels), prompts)
    with pytest.raises(ValueError, match=r"give \(N, C, H, W\)"):
        reward(pixels[0], PROMPTS[:1])
    assert len(Reward(scorer, {"quality": 1})(list(pixels))) == 4


def recipes(scorer, monkeypatch, address="http://127.0.0.1:8000"):
    """The names that the page's recipes define, with a scorer in place of the checkpoint that they load."""
    monkeypatch.setattr(Scorer, "load", classmethod(lambda cls, path, **options: scorer))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    for block in blocks:
        if "def " in block:
            found = {}
            exec(block.replace("http://127.0.0.1:8000", address), found)
            yield types.SimpleNamespace(**{name: value for name, value in found.items() if name[0] != "_"})


def test_the_recipes_run_as_their_trainers_call_them(scorer, pixels, monkeypatch, tmp_path):
    scores = Reward(scorer, {"quality": 0.5, "correspondence": 0.5})(pixels, PROMPTS)
    flow_grpo, dance_grpo, trl, verl_omni, *_ = recipes(scorer, monkeypatch)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    for given in (images, pixels):
        rewards, details = flow_grpo.mgs_score(torch.device("cpu"))(given, PROMPTS, [{}] * 4)
        assert details == {}
        np.testing.assert_allclose(torch.as_tensor(rewards), scores, atol=1e-6)
    Image.fromarray(pixels[1]).save(tmp_path / "1.png")
    assert dance_grpo.score_image(str(tmp_path / "1.png"), PROMPTS[1]) == pytest.approx(scores[1], abs=1e-6)
    rewards, _ = trl.reward_function(images, tuple(PROMPTS), tuple([{}] * 4))
    advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-8)  # what the trainer does next
    assert advantages.shape == (4,)
    np.testing.assert_allclose(rewards, scores, atol=1e-6)
    one = torch.from_numpy(pixels[2]).permute(2, 0, 1)
    told = verl_omni.compute_score(data_source="x", solution_image=one, ground_truth=PROMPTS[2], extra_info={}, more=1)
    assert told == {"score": pytest.approx(scores[2], abs=1e-6)}


def test_the_recipes_over_http_give_the_same_rewards(scorer, pixels, monkeypatch):
    scores = Reward(scorer, {"quality": 0.5, "correspondence": 0.5})(pixels, PROMPTS)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    with serving({"small": scorer}) as server:
        *_, verl_omni, flow_grpo = recipes(scorer, monkeypatch, f"http://127.0.0.1:{server.port}")
        rewards, details = flow_grpo.mgs_score(torch.device("cpu"))(images.float() / 255, PROMPTS, [{}] * 4)
        assert details == {}
        np.testing.assert_allclose(rewards, scores, atol=1e-5)

        async def score_all():
            pairs = zip(images, PROMPTS, strict=True)
            calls = [verl_omni.compute_score(data_source="x", solution_image=i, ground_truth=p) for i, p in pairs]
            return await asyncio.gather(*calls)

        np.testing.assert_allclose([told["score"] for told in asyncio.run(score_all())], scores, atol=1e-5)
