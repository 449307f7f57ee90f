"""The lean towers against openai-clip's own, embeddings and gradients, and the whole model against the plain way."""

import pytest
import torch
from conftest import random_clip
from torch import nn

from benchmarks.plain import Plain, plain_texts, plain_views
from mgs.backbones.freezing import freeze
from mgs.backbones.openai import token_numbers
from mgs.backbones.towers import ROW_TOKENS, Rows, finish_texts, finish_views, start_texts, start_views
from mgs.config import ModelConfig
from mgs.dimensions import Prompt
from mgs.methods.mgs import MGS

TEXTS = [
    "",
    "a cat",
    "A photo of bad quality that appears fairly realistic.",
    "a bench",
    "word " * 100,
    "cafés über 北京",
]
PROMPTS = [
    Prompt("a river in a forest: painted by J.R.R. Tolkien, close-up, baroque style", "hybrid"),
    Prompt("statue", "hybrid"),
    Prompt("On a hill, without trees, a dog behind a red door"),
]
SHAPES = {
    "demo": {},
    "ViT-B/16": {"size": 224, "width": 768, "layers": 12, "embed": 512, "text_width": 512, "text_layers": 12},
}


FULL = pytest.param("ViT-B/16", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=["demo", FULL])
def clip(request):
    model = random_clip(**SHAPES[request.param])
    for parameter in model.parameters():  # biases and norms start at 0 and 1, where a lost one would not show
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.2)
    return model


def encode_texts(clip, texts, stop=0):
    tokens = [token_numbers(text, 77) for text in texts]
    return finish_texts(clip, start_texts(clip, tokens, stop), [len(text) for text in tokens], stop)


def some_views(clip, *shape):
    size = clip.visual.input_resolution
    return torch.randn(*shape, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_view_embeddings_equal_openai_clips_from_whatever_block_they_are_taken_up(clip):
    views = some_views(clip, 2)
    truth = plain_views(clip, views)
    for stop in (0, 1, len(clip.visual.transformer.resblocks) - 1):
        ours = finish_views(clip, start_views(clip, views, stop), stop)
        torch.testing.assert_close(ours, truth, atol=1e-6, rtol=0)
    assert finish_views(clip, start_views(clip, views[None])).shape == (1, *truth.shape)


@torch.no_grad()
def test_text_embeddings_equal_openai_clips_at_77_tokens_from_whatever_block_they_are_taken_up(clip):
    truth = plain_texts(clip, TEXTS)
    for stop in (0, 1, len(clip.transformer.resblocks) - 1):
        torch.testing.assert_close(encode_texts(clip, TEXTS, stop), truth, atol=1e-6, rtol=0)
    many = [f"number {i}, " + "word " * (i % 60) for i in range(40)]  # more than a row holds
    torch.testing.assert_close(encode_texts(clip, many), plain_texts(clip, many), atol=1e-6, rtol=0)


def test_texts_lie_in_rows_without_touching_one_another():
    lengths = [3, 77, 20, 5, 5, 60, 77, 77, 31]
    rows = Rows.of(lengths, torch.device("cpu"))
    assert rows.shape[0] == -(-sum(lengths) // ROW_TOKENS)
    assert len(set(rows.places.tolist())) == sum(lengths)
    assert rows.places[torch.tensor(lengths).cumsum(0) - 1].tolist() == rows.ends.tolist()
    looked_at = rows.mask[:, 0].flatten(0, 1).sum(-1)[rows.places]  # itself and all before it in its own text
    assert looked_at.tolist() == [i + 1 for length in lengths for i in range(length)]


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def loss_of(scores):
    targets = torch.tensor([1.0, 4.0, 2.5])
    return sum(((getattr(scores, d) - targets) ** 2).mean() for d in ("quality", "authenticity", "correspondence"))


@pytest.mark.parametrize(
    ("clip", "freeze_stem"),
    [("demo", False), ("demo", True), pytest.param("ViT-B/16", False, marks=pytest.mark.slow)],
    indirect=["clip"],
)
def test_scores_and_every_gradient_equal_the_plain_ways(clip, freeze_stem, two_threads):
    for parameter in clip.parameters():
        parameter.requires_grad_(True).grad = None
    model = MGS(clip, ModelConfig(freeze_stem=freeze_stem))
    plain = Plain(clip, model.alpha)
    views = some_views(clip, 3, 4)  # of any number of patches, but at least the three that a fragment is scored on
    truth = plain(views, PROMPTS)
    loss_of(truth).backward()
    expected = gradients(plain)
    model.zero_grad()
    ours = model(views, PROMPTS)
    loss_of(ours).backward()
    found = gradients(model)
    for name in vars(ours):
        torch.testing.assert_close(vars(ours)[name], vars(truth)[name], atol=1e-5, rtol=0)
    assert found.keys() == expected.keys()
    assert len(found) > 20
    for name, gradient in expected.items():
        error = (found[name] - gradient).norm() / gradient.norm().clamp(min=1e-8)
        assert error < 1e-4, (name, error)


def saved_bytes(function):
    """Bytes that autograd keeps for the backward pass, weights aside, each storage once."""
    storages = {}

    def note(tensor):
        if not isinstance(tensor, nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = function()
    assert result.requires_grad
    return sum(storages.values())


def test_nothing_is_kept_for_a_backward_pass_below_the_lowest_trainable_weight():
    clip = random_clip(layers=4, text_layers=4)
    views, tokens = some_views(clip, 4), [token_numbers("a cat", 77)]
    freeze(clip, 0.5, stem=True)
    assert not start_views(clip, views, 2).requires_grad
    assert not start_texts(clip, tokens, 2).requires_grad
    whole = saved_bytes(lambda: finish_views(clip, start_views(clip, views)))
    upper = saved_bytes(lambda: finish_views(clip, start_views(clip, views, 2), 2))
    assert whole == upper


def test_fewer_activations_are_kept_than_the_plain_towers_keep():
    clip = random_clip(layers=4, text_layers=4)
    views = some_views(clip, 4)
    plain = saved_bytes(lambda: clip.encode_image(views))
    lean = saved_bytes(lambda: finish_views(clip, start_views(clip, views)))
    assert lean < 0.8 * plain, lean / plain
