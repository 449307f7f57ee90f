"""MGS inside other people's code: tensors in, the same scores out, gradients down to the pixels."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_cuda import fake_cuda

from mgs import Scorer
from mgs.errors import UserError
from mgs.scoring.metric import ImageMetric, create_metric


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
    images = (0.1 + torch.from_numpy(pictures[:1]) * (0.8 / 255)).requires_grad_()
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


def test_a_sliver_is_refused_as_a_file_of_its_shape_is(clip):
    metric = create_metric("quality", clip=clip)
    with pytest.raises(ValueError, match="4000x1 is too thin to enlarge"):
        metric(torch.zeros(1, 3, 1, 4000))
    with pytest.raises(ValueError, match="images: a list; give a tensor"):
        metric([torch.zeros(3, 512, 512)])


def test_what_is_no_batch_of_images_is_an_error(clip):
    metric = create_metric("correspondence", clip=clip)
    with pytest.raises(ValueError, match="give floats on 0-1"):
        metric(torch.zeros(3, 512, 512), ["x"])
    with pytest.raises(ValueError, match="judged against a prompt"):
        metric(torch.zeros(1, 3, 512, 512))
    with pytest.raises(ValueError, match="judged against a prompt"):
        metric(torch.zeros(2, 3, 512, 512), ["x", None])
    with pytest.raises(ValueError, match=r"1 prompt\(s\) for 2 image\(s\)"):
        metric(torch.zeros(2, 3, 512, 512), ["x"])
    with pytest.raises(ValueError, match="one text in place of a list"):
        metric(torch.zeros(3, 3, 512, 512), "cat")
    with pytest.raises(ValueError, match="give floats on 0-1"):
        metric(torch.zeros(2, 3, 0, 512), ["x", "y"])
    for low, high in ((-1, 1), (0, 255), (0, float("nan"))):
        with pytest.raises(ValueError, match=rf"pixels from .* to {high}: give floats on 0-1|pixels from nan"):
            metric(torch.tensor([low, high]).float().expand(1, 3, 4, 2), ["x"])
    with pytest.raises(UserError, match=r"metric overall: .* gives quality, authenticity, correspondence"):
        create_metric("overall", clip=clip)
    with pytest.raises(UserError, match="one of the two"):
        create_metric("quality")


def test_what_asks_for_nothing_is_answered(clip):
    metric = create_metric("quality", clip=clip)
    assert metric(torch.zeros(0, 3, 512, 512)).shape == (0,)
    assert metric(torch.zeros(1, 3, 512, 512), [None]).shape == (1,)
    assert metric(torch.full((1, 3, 512, 512), 1 + 1e-4)).shape == (1,)  # rounding


def test_a_metric_computes_in_float32_whatever_surrounds_it(clip, pictures):
    metric = create_metric("quality", clip=clip)
    images = torch.from_numpy(pictures[:1]).float() / 255
    expected = metric(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(metric(images), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(metric.half()(images), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.nn.Sequential(metric).to(torch.bfloat16)(images), expected, atol=1e-6, rtol=0)


def test_a_metric_does_not_wait_for_the_scorer_whose_weights_it_shares(clip, pictures):
    metric = create_metric("quality", clip=clip)
    images = torch.from_numpy(pictures[:1]).float() / 255
    expected = metric(images)
    with ThreadPoolExecutor(1) as pool:
        free = threading.Event()
        busy = pool.submit(metric.scorer.batcher.call, free.wait)
        try:
            assert torch.equal(metric(images), expected)
        finally:
            free.set()
        assert busy.result()


def test_a_metric_is_in_float32_whatever_precision_its_scorer_has(clip, pictures):
    images = torch.from_numpy(pictures[:2]).float() / 255
    expected = create_metric("correspondence", clip=clip)(images, PROMPTS[:2])
    scorer = Scorer.zero_shot(clip)
    scorer.engine.machine = replace(scorer.engine.machine, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ImageMetric(scorer, "correspondence")(images, PROMPTS[:2])
    assert torch.equal(found, expected)


def test_a_copied_metric_has_weights_and_engine_of_its_own(clip, pictures):
    metric = create_metric("correspondence", clip=clip)
    images = torch.from_numpy(pictures[:1]).float() / 255
    expected = metric(images, ["a bird"])
    other = copy.deepcopy(metric)
    assert torch.equal(other(images, ["a bird"]), expected)
    with fake_cuda():
        other.to("cuda")
    assert torch.equal(metric(images, ["a bird"]), expected)
    assert metric.scorer.score(torch.from_numpy(pictures[0]), "a bird").correspondence == pytest.approx(expected.item())


def test_weights_that_a_host_saved_with_an_older_version_are_read(clip, pictures):
    host = torch.nn.ModuleDict({"loss": create_metric("quality", clip=clip)})
    state = {name.replace("model.backbone.", "model.clip."): value for name, value in host.state_dict().items()}
    host.load_state_dict(state)


def test_texts_that_a_scorer_has_kept_may_meet_gradients(clip, pictures):
    metric = create_metric("correspondence", clip=clip)
    images = (torch.from_numpy(pictures[:1]).float() / 255).requires_grad_()
    expected = torch.autograd.grad(metric(images, PROMPTS[1:2]).sum(), images)
    metric.scorer.engine.texts.embeddings.forget()
    metric.scorer.score(torch.from_numpy(pictures[0]), PROMPTS[1])
    torch.testing.assert_close(torch.autograd.grad(metric(images, PROMPTS[1:2]).sum(), images), expected)
    metric.scorer.engine.texts.embeddings.forget()
    with torch.inference_mode():
        metric(images.detach(), PROMPTS[1:2])
    torch.testing.assert_close(torch.autograd.grad(metric(images, PROMPTS[1:2]).sum(), images), expected)


def test_metrics_and_a_scorer_of_the_same_weights_work_at_once(clip, pictures):
    metric = create_metric("quality", clip=clip)
    images = (torch.from_numpy(pictures[:1]).float() / 255).requires_grad_()

    def climb(number):
        return metric(images, [None]), *torch.autograd.grad(metric(images).sum(), images)

    expected = climb(0)
    score = metric.scorer.score(torch.from_numpy(pictures[0]), "a wall")
    with ThreadPoolExecutor(4) as pool:
        scores = [pool.submit(metric.scorer.score, torch.from_numpy(pictures[0]), "a wall") for _ in range(10)]
        for found in pool.map(climb, range(10)):
            torch.testing.assert_close(found, expected)
        assert [one.result().quality for one in scores] == pytest.approx([score.quality] * 10, abs=1e-5)


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
    before = metric.compute()["quality"]
    with pytest.raises(UserError, match="no such file"):
        metric.update([images[1], "nowhere.png"])
    with pytest.raises(ValueError, match="one text in place of a list"):
        metric.update(images, "cat")
    assert metric.compute()["quality"] == before  # nothing of a batch that failed is counted


def test_a_metric_follows_its_weights_to_another_device(clip):
    metric = create_metric("correspondence", clip=clip, device="cpu")
    with fake_cuda():
        metric.to("cuda")
        assert metric.engine.machine.device.type == "cuda"
        assert metric(torch.empty(2, 3, 512, 512, device="cuda"), PROMPTS[:2]).device.type == "cuda"
