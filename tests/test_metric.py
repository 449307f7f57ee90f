"""MGS inside other people's code: tensors in, the same scores out, gradients down to the pixels."""

import numpy as np
import pytest
import torch

from mgs import Scorer
from mgs.errors import UserError
from mgs.scoring.metric import create_metric


@pytest.fixture(scope="module")
def clip(own_set):
    return str(own_set / "clip.safetensors")


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (3, 3, 520, 600), dtype=np.uint8)


PROMPTS = ["a wall", "a red wall, with a door", "a cat"]


@pytest.mark.parametrize("dimension", ["quality", "authenticity", "correspondence"])
def test_a_metric_gives_the_scorers_scores(clip, pictures, dimension):
    metric = create_metric(dimension, clip=clip)
    table = Scorer.zero_shot(clip).score_many(list(torch.from_numpy(pictures)), PROMPTS)
    scores = metric(torch.from_numpy(pictures).float() / 255, PROMPTS)
    np.testing.assert_allclose(scores.numpy(), table[dimension], atol=1e-5)
    assert metric.score_range == (0, 5)
    assert metric.lower_better is False


def test_small_images_are_enlarged_as_files_are(clip):
    small = np.random.default_rng(1).integers(0, 256, (3, 200, 300), dtype=np.uint8)
    expected = Scorer.zero_shot(clip).score(torch.from_numpy(small)).quality
    found = create_metric("quality", clip=clip)(torch.from_numpy(small)[None].float() / 255)
    assert found.item() == pytest.approx(expected, abs=2e-3)  # files are enlarged in whole numbers


@pytest.mark.parametrize("dimension", ["quality", "correspondence"])
def test_gradients_reach_the_pixels_and_are_right(clip, pictures, dimension):
    metric = create_metric(dimension, clip=clip)
    images = (torch.from_numpy(pictures[:1]).float() / 255).requires_grad_()
    metric(images, PROMPTS[1:2]).sum().backward()
    kept = images.detach().clone()
    assert torch.isfinite(images.grad).all()
    along = torch.nn.functional.normalize(images.grad.flatten(), dim=0).view_as(images)
    step = 0.5  # over all pixels together; a thousandth of a grey level each
    ahead, behind = (metric(kept + s * along, PROMPTS[1:2]).item() for s in (step, -step))
    assert (ahead - behind) / (2 * step) == pytest.approx(images.grad.norm().item(), rel=0.02)
    assert all(parameter.grad is None for parameter in metric.parameters())
    assert torch.equal(images.detach(), kept)  # nothing was changed in place


def test_climbing_the_gradient_raises_the_score(clip, pictures):
    metric = create_metric("quality", clip=clip)
    images = (torch.from_numpy(pictures[:1]).float() / 255).requires_grad_()
    before = metric(images)
    before.backward()
    after = metric((images + 0.01 * images.grad.sign()).clamp(0, 1).detach())
    assert after.item() > before.item()


def test_what_is_no_batch_of_images_is_an_error(clip):
    metric = create_metric("correspondence", clip=clip)
    with pytest.raises(ValueError, match="give floats on 0-1"):
        metric(torch.zeros(3, 512, 512), ["x"])
    with pytest.raises(ValueError, match="judged against a prompt"):
        metric(torch.zeros(1, 3, 512, 512))
    with pytest.raises(ValueError, match="1 prompts for 2 images"):
        metric(torch.zeros(2, 3, 512, 512), ["x"])
    with pytest.raises(UserError, match=r"metric overall: .* gives quality, authenticity, correspondence"):
        create_metric("overall", clip=clip)
    with pytest.raises(UserError, match="one of the two"):
        create_metric("quality")


def test_torchmetrics_gets_the_means_of_all_updates(clip, pictures):
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    from mgs.scoring.metric import MGSScore

    scorer = Scorer.zero_shot(clip)
    metric = MGSScore(scorer)
    images = list(torch.from_numpy(pictures))
    metric.update(images[:2], PROMPTS[:2])
    metric.update(images[2:], [None])
    table = scorer.score_many(images, [*PROMPTS[:2], None])
    for dimension, value in metric.compute().items():
        assert value.item() == pytest.approx(table[dimension].mean(), abs=1e-5)  # pandas leaves out what is missing
    twin = metric.clone()
    assert twin.compute()["quality"] == metric.compute()["quality"]
    twin.update(images[:1], PROMPTS[:1])
    assert twin.compute()["quality"] != metric.compute()["quality"]
    figure, _ = metric.plot()
    assert figure.axes
    metric.reset()
    metric.update(images[:1], PROMPTS[:1])
    assert metric.compute()["quality"].item() == pytest.approx(table["quality"][0], abs=1e-5)
    with pytest.raises(UserError, match="no such file"):
        metric.update(["nowhere.png"])
